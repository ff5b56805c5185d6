"""Other programs that a test runs, and that don't outlive it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["started"]


@contextmanager
def started(args: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a program, as `subprocess.Popen` does, and kill it at the end if it still runs."""
    child = subprocess.Popen(args, **options)
    try:
        yield child
    finally:
        child.kill()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        child.wait(timeout=30)
