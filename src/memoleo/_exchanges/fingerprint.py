"""Credentials as keys may hold them: keyed fingerprints, from which nobody gets them back."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable

from memoleo._events import extras, logger
from memoleo.codecs._secret import secret_from_file
from memoleo.errors import CodecError
from memoleo.keys._canonical import frame

__all__ = ["fingerprint"]

_secrets: list[bytes] = []


def fingerprint(signs: Iterable[bytes]) -> bytes:
    """Return 32 bytes that stand for somebody; none for somebody without credentials.

    Parameters
    ----------
    signs
        everything that tells who it is, in a fixed order
    """
    joined = b"".join(map(frame, signs))
    return hmac.digest(_secret(), joined, "sha256") if joined else b""


def _secret() -> bytes:
    """Return the user's own secret: without it, nobody can try credentials against a key."""
    if not _secrets:
        try:
            import platformdirs

            folder = platformdirs.user_data_dir("memoleo", appauthor=False)
            _secrets.append(secret_from_file(os.path.join(folder, "fingerprint.secret")))
        except CodecError as error:
            logger.warning(
                "answers to authorized calls are kept for this process only: %s",
                error,
                extra=extras("no_secret", error=error),
            )
            _secrets.append(secrets.token_bytes(32))
    return _secrets[0]
