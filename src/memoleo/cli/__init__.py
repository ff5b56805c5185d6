"""The command line: ``memoleo COMMAND``, or ``python -m memoleo COMMAND``."""

from memoleo.cli._start import main

__all__ = ["main"]
