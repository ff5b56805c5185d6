"""A diary worker made faster without an edit in it: its two classes, cached and timed."""

from memoleo.leo._worker import enable_caching_for_worker

__all__ = ["enable_caching_for_worker"]
