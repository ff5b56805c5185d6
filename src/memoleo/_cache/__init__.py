"""What users hold: a store with a codec, a clock and counters, and what is in it."""
