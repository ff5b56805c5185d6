"""What of other people's libraries and programs is cached, and where they are taken hold of.

`Target` is public beside the dictionaries that `enable` takes as well, for editors and checkers.
"""

from memoleo.config._targets import Target

__all__ = ["Target"]
