"""What is put around functions, to answer their calls from a cache or to measure them."""
