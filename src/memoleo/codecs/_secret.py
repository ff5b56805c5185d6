"""A secret of the user's own: a random one, in a file that nobody else can read."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress

from memoleo._platform.files import make_private_folder
from memoleo._platform.importing import importing
from memoleo.errors import CodecError

__all__ = ["secret_from_file"]

_SIZE = 32
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def secret_from_file(path: str | None = None, *, name: str = "pickle.secret") -> bytes:
    """Return the secret in a file, which is made with a new one if it is missing.

    Parameters
    ----------
    path
        the file; `None` is `name` in the user's data folder
    name
        of the file

    Raises
    ------
    CodecError
        the file can't be made, or can't be trusted
    """
    if path is None:
        with importing:
            import platformdirs

        path = os.path.join(platformdirs.user_data_dir("memoleo", appauthor=False), name)
    try:
        if not os.path.lexists(path):
            make_private_folder(os.path.dirname(path))
            _publish(path, secrets.token_bytes(_SIZE))
        return _read(path)
    except OSError as error:
        raise CodecError(f"there is no secret in {path}: {error}") from error


def _publish(path: str, secret: bytes) -> None:
    """Create `path` with its whole content at once, unless another process was faster."""
    draft = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secret)
        try:
            # A hard link appears at once and never replaces a file.
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:
            # This file system has no hard links.
            os.rename(draft, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _read(path: str) -> bytes:
    if os.path.islink(path):
        raise CodecError(f"{path} is a symbolic link: it was not read")
    with open(os.open(path, os.O_RDONLY | _NO_FOLLOW), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CodecError(f"{path} is not a regular file")
        # Windows has neither user numbers nor these modes; its profile folders are private.
        whoami = getattr(os, "geteuid", None)
        if whoami is not None and (status.st_uid != whoami() or status.st_mode & 0o077):
            raise CodecError(f"{path} must belong to you, with mode 0600")
        secret = file.read(_SIZE + 1)
    if len(secret) != _SIZE:
        raise CodecError(f"{path} does not hold a secret of {_SIZE} bytes: delete it")
    return secret
