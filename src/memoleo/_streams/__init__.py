"""Iterators and generators: recorded as they are consumed, and replayed."""
