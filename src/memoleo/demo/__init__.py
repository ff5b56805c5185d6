"""The demo: a program that asks a language model, run twice; the second run asks nothing."""
