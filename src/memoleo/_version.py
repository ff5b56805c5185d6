"""Which memoleo this is."""

from __future__ import annotations

__all__ = ["version"]


def version() -> str:
    """Return the installed version; "unknown" where the sources run without being installed."""
    from importlib import metadata

    try:
        return metadata.version("memoleo")
    except metadata.PackageNotFoundError:
        return "unknown"
