"""Whether what is served is still what one would get."""
