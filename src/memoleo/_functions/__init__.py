"""Functions that stand for others: what kind they are, what passes for them, what is compiled."""
