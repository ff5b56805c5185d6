"""One call that a store may answer: what to do is decided in `flow`, and done by the others."""
