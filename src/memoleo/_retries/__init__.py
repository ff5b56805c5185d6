"""Trying again: which failures pass, how long to wait, and who may still try."""
