"""pickle, for those who ask for it by name: signed, and never read unless the signature holds."""

from __future__ import annotations

import os
from typing import Any

from memoleo.errors import CodecError, ConfigError

__all__ = ["PickleCodec"]

_MARK = b"\xc1P"
_DOMAIN = b"memoleo pickle 1\0"
_MAC = 32


class PickleCodec:
    """Stores whatever pickle can, signed with HMAC-SHA256 (RFC 2104).

    Unpickling runs what the payload says. The signature proves that this secret's holder wrote
    it, so keep the secret from everyone who may write to the store.

    Parameters
    ----------
    secret
        at least 16 bytes. `None` takes the text of the environment variable
        ``MEMOLEO_PICKLE_SECRET``, else a random secret in the user's data folder, which is made
        when it is first needed

    Raises
    ------
    ConfigError
        the secret is shorter than that
    """

    name: str = "pickle"

    def __init__(self, secret: bytes | None = None) -> None:
        if secret is not None and len(secret) < 16:
            raise ConfigError("PickleCodec: secret must be at least 16 bytes")
        self._secret = secret

    def __repr__(self) -> str:
        return "PickleCodec()"

    def encode(self, value: Any) -> bytes:
        """Return the signed pickle of `value`.

        Raises
        ------
        CodecError
            pickle can't store it, or there is no secret to sign with
        """
        import pickle

        try:
            body = pickle.dumps(value, protocol=5)
        except Exception as error:
            raise CodecError(f"{type(value).__qualname__} can't be pickled: {error}") from error
        return b"".join((_MARK, self._sign(body), body))

    def decode(self, payload: bytes) -> Any:
        """Return the value, if the signature holds.

        Raises
        ------
        CodecError
            the payload was not signed with this secret, or can't be unpickled
        """
        import hmac
        import pickle

        view = memoryview(payload)
        body = view[len(_MARK) + _MAC :]
        if view[: len(_MARK)] != _MARK or not hmac.compare_digest(
            view[len(_MARK) : len(_MARK) + _MAC], self._sign(body)
        ):
            raise CodecError("the signature of a pickled value does not hold: it was not read")
        try:
            return pickle.loads(body)
        except Exception as error:
            raise CodecError(f"the value can't be unpickled: {error!r}") from error

    def _sign(self, body: bytes | memoryview) -> bytes:
        import hmac

        if self._secret is None:
            self._secret = _default_secret()
        mac = hmac.new(self._secret, _DOMAIN, "sha256")
        mac.update(body)
        return mac.digest()


def _default_secret() -> bytes:
    text = os.environ.get("MEMOLEO_PICKLE_SECRET")
    if text is not None:
        secret = text.encode("utf-8", "surrogateescape")
        if len(secret) < 16:
            raise CodecError("MEMOLEO_PICKLE_SECRET must be at least 16 bytes long")
        return secret
    from memoleo.codecs._secret import secret_from_file

    return secret_from_file()
