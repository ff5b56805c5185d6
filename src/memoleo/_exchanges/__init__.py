"""HTTP calls that are answered from a cache, whichever library makes them."""
