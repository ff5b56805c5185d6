"""Two calls are the same call if and only if their keys are equal."""

from memoleo.keys._adapters import register
from memoleo.keys._address import Key, address
from memoleo.keys._keyer import Keyer

__all__ = ["Key", "Keyer", "address", "register"]
