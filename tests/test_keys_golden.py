"""Keys are the same in every process, on every Python version, and in every release."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
SOURCE = HERE.parent / "src"

# Recorded once. A change here is a change of every key that users have stored.
GOLDEN = {
    "none": "8ce86a6ae65d3692e7305e2c",
    "bools": "94db389c4e59fb2d6786755b",
    "ints": "532ef6589710f2eefa8dd813",
    "floats": "40e3a48c49373e5c0befcca1",
    "complex": "eac513533a8c159f5d84a9fd",
    "texts": "96052b1d04b636dd7c36aa96",
    "bytes": "54b05966953459f6c7871ebd",
    "containers": "30473ec6dc612e96b35c0969",
    "dict": "44afbc8a78a83a98f07b7a72",
    "set": "3f11c0ddb46bf6b7c80d63d3",
    "ordered": "6ad5acdca377d43bedc5bfac",
    "default": "2c61cbf8eb6e986de79ea6d5",
    "counter": "cfcec24b217538e84d62db66",
    "deque": "2d765bcd0ad2760d1821ea35",
    "proxy": "f6b72ee83ea882f300ef05fe",
    "namespace": "c3b5e48e26d66deb7f08f0c8",
    "enum": "c06bd29c8dc2ca3f3ed2fbe5",
    "flag": "229adb881d377cc8b193da05",
    "decimal": "9cf249ffcdc97e297c48fdb1",
    "fraction": "798c4c61510a14f9eb6261e3",
    "naive": "a5758956bf87d9342b414891",
    "utc": "e492b1ed1e8c8ea1fec014b9",
    "offset": "c35a54ff5884acfa7fb7cfc4",
    "zone": "b733c2b71bbcfbf599677aeb",
    "date": "342da14a3aa759abbc3f4101",
    "time": "731955a2fd0eab820c4007f3",
    "timedelta": "6bc95f7ac5e5b55b3d5d7d5b",
    "uuid": "3f9ef028dd4157b5062277f7",
    "path": "473f6b0bfa6212c42bf4c29a",
    "pure paths": "9fccc90dfb079be2515a06ed",
    "pattern": "bce13b0b2002f3c757805dd1",
    "ranges": "ed00b9d618d0dfa90196882d",
    "addresses": "a381c7aec8ddfd9d35b1670e",
    "namedtuple": "2dfbedbdd3577607076e7b9d",
    "dataclass": "d43e515c3081d75dc34cf5d7",
    "pydantic": "a89ca2a47e5531dd633fc8f0",
    "msgspec": "00ecb28e1ca7ff8d8f8129bb",
    "attrs": "57dda2aa97bc76b26138c4c5",
    "subclass": "294e1729d743e9cc7de3ec88",
    "instance": "040f328dff0198facfaf25ec",
    "array": "c877558b84352631bff61726",
    "big-endian": "aef1742c585e36dfdeacb3ca",
    "texts array": "3c6153a717f44829d985114a",
    "objects": "10736b45451e530ae6f9b3fd",
    "records": "e8137b9ef77020db31f8b119",
    "moments": "1c4f173f0cb8d13294714eeb",
    "scalars": "e869daefe98d053174bbdb77",
    "builtins": "86d6d139c6c81661ebd0ba2a",
}


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_keys_do_not_depend_on_the_process(seed: str) -> None:
    """A process of its own, under any PYTHONHASHSEED, arrives at the recorded digests.

    The same table holds on each Python version that runs this test, so they agree.
    """
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = subprocess.run(
        [sys.executable, str(HERE / "keys_golden.py")],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(found.stdout) == GOLDEN


def test_every_recorded_value_is_told_apart() -> None:
    """The table would notice two kinds of value that fall together."""
    assert len(set(GOLDEN.values())) == len(GOLDEN)
