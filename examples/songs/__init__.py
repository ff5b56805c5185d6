"""A web API of songs, with the moods of a real one."""
