"""Pickle only by name, and only what was signed with this program's own secret."""

from __future__ import annotations

import hmac
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from memoleo.codecs import AutoCodec, Codec, PickleCodec, resolve_codec
from memoleo.codecs._secret import secret_from_file
from memoleo.errors import CodecError, ConfigError

SECRET = b"0123456789abcdef"
exploded: list[str] = []


def explode() -> None:
    exploded.append("boom")


class Bomb:
    def __reduce__(self) -> Any:
        return explode, ()


class Thing:
    def __init__(self, x: Any) -> None:
        self.x = x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MEMOLEO_PICKLE_SECRET", raising=False)
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    return tmp_path / "data"


def test_pickle_round_trip() -> None:
    """What the exact codec refuses comes back through pickle."""
    codec = PickleCodec(SECRET)
    shared = [1]
    result = codec.decode(codec.encode(Thing([shared, shared])))
    assert result.x == [[1], [1]]
    assert result.x[0] is result.x[1]


def test_bad_signature() -> None:
    """A payload without a valid signature is never unpickled."""
    codec = PickleCodec(SECRET)
    bomb = pickle.dumps(Bomb())
    good = codec.encode([1, 2])
    forged = [
        bomb,
        b"",
        b"\xc1P",
        b"\xc1P" + bytes(32) + bomb,
        good[:34] + bomb,
        b"\xc1P" + hmac.digest(SECRET, bomb, "sha256") + bomb,
        PickleCodec(b"another secret 16").encode(Bomb()),
        good[:-1],
        good + b"x",
        b"\xc1\x01" + good[2:],
    ]
    for at in range(len(good)):
        flipped = bytearray(good)
        flipped[at] ^= 1
        forged.append(bytes(flipped))
    for payload in forged:
        with pytest.raises(CodecError, match="signature"):
            codec.decode(payload)
    assert exploded == []
    codec.decode(codec.encode(Bomb()))
    assert exploded == ["boom"]
    exploded.clear()


def test_auto_reads_no_pickle() -> None:
    """The exact codec never reads a pickle."""
    for payload in (pickle.dumps(Bomb()), PickleCodec(SECRET).encode(Bomb())):
        with pytest.raises(CodecError):
            AutoCodec().decode(payload)
    assert exploded == []


def test_unpicklable() -> None:
    """What pickle can't store is a `CodecError`."""
    with pytest.raises(CodecError, match="can't be pickled"):
        PickleCodec(SECRET).encode(threading.Lock())
    with pytest.raises(CodecError, match="can't be unpickled"):
        PickleCodec(SECRET).decode(_signed(b"garbage"))


def _signed(body: bytes) -> bytes:
    return b"\xc1P" + PickleCodec(SECRET)._sign(body) + body


def test_secret_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret comes from the environment."""
    monkeypatch.setenv("MEMOLEO_PICKLE_SECRET", SECRET.decode())
    assert PickleCodec().decode(PickleCodec(SECRET).encode(1)) == 1
    monkeypatch.setenv("MEMOLEO_PICKLE_SECRET", "short")
    with pytest.raises(CodecError, match="at least 16 bytes"):
        PickleCodec().encode(1)


def test_short_secret() -> None:
    """A short secret is refused at once."""
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        PickleCodec(b"short")


def test_secret_in_repr() -> None:
    """The secret does not show."""
    assert "0123" not in repr(PickleCodec(SECRET))


def test_secret_file(folder: Path) -> None:
    """The secret file is private and kept."""
    payload = PickleCodec().encode({1})
    path = folder / "pickle.secret"
    assert PickleCodec().decode(payload) == {1}
    assert [entry.name for entry in folder.iterdir()] == ["pickle.secret"]
    assert len(path.read_bytes()) == 32
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700


def test_secret_on_first_use(folder: Path) -> None:
    """Nothing is made before it is needed."""
    PickleCodec()
    resolve_codec("pickle")
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes and links")
def test_untrusted_secret_file(folder: Path) -> None:
    """A secret file that others could have made or read is refused."""
    folder.mkdir()
    path = folder / "pickle.secret"
    elsewhere = folder / "elsewhere"
    path.symlink_to(elsewhere)
    with pytest.raises(CodecError, match="symbolic link"):
        PickleCodec().encode(1)
    assert not elsewhere.exists()
    path.unlink()
    path.write_bytes(bytes(32))
    path.chmod(0o644)
    with pytest.raises(CodecError, match="mode 0600"):
        PickleCodec().encode(1)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(CodecError, match="32 bytes"):
        PickleCodec().encode(1)
    path.unlink()
    path.mkdir()
    with pytest.raises(CodecError):
        PickleCodec().encode(1)


def test_no_secret_folder(folder: Path) -> None:
    """A folder that can't be made is a `CodecError`."""
    folder.write_text("a file in the way")
    with pytest.raises(CodecError, match="no secret"):
        PickleCodec().encode(1)


def test_secret_race(tmp_path: Path) -> None:
    """Processes that start together agree on one secret."""
    path = tmp_path / "new" / "secret"
    program = f"from memoleo.codecs._secret import *; print(secret_from_file({str(path)!r}).hex())"
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    secrets = {child.communicate()[0].strip() for child in children}
    assert secrets == {path.read_bytes().hex()}
    assert secret_from_file(str(path)) == path.read_bytes()


def test_codecs_by_name() -> None:
    """A codec is found by its name, and an object that is one is taken as it is."""
    assert isinstance(resolve_codec("auto"), AutoCodec)
    assert isinstance(resolve_codec("pickle"), PickleCodec)
    assert resolve_codec("auto") is resolve_codec("auto")
    mine = PickleCodec(SECRET)
    assert resolve_codec(mine) is mine
    assert isinstance(mine, Codec)
    assert [resolve_codec(name).name for name in ("auto", "pickle")] == ["auto", "pickle"]


@pytest.mark.parametrize("wrong", ["json", "", 3, None, AutoCodec])
def test_unknown_codec(wrong: Any) -> None:
    """An unknown codec is a `ConfigError`."""
    with pytest.raises(ConfigError, match="codec="):
        resolve_codec(wrong)


def test_unknown_name() -> None:
    """The error for an unknown name lists the known ones."""
    with pytest.raises(ConfigError, match="'auto', 'pickle'"):
        resolve_codec("json")
