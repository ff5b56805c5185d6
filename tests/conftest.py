"""What every test relies on: an environment without settings, and a cache of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import signal

import hypothesis

# The model's folder is shared: a fetch for each environment would be 98 MB each.
_KEPT = ("MEMOLEO_TEST_", "MEMOLEO_MODEL_DIR")
for _name in [name for name in os.environ if name.startswith("MEMOLEO_")]:
    if not _name.startswith(_KEPT):
        del os.environ[_name]
os.environ["MEMOLEO_CACHE"] = "memory://"

# A shell lets what it runs in the background ignore Ctrl-C, and so would every program that is
# started from here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if os.environ.get("PYTHONPATH"):  # children run in other folders
    os.environ["PYTHONPATH"] = os.pathsep.join(
        map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep))
    )

hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

# An installed memoleo registers its pytest plugin by itself; a bare `PYTHONPATH=src` doesn't.
if not importlib.metadata.entry_points(group="pytest11", name="memoleo") and (
    importlib.util.find_spec("memoleo.testing._plugin")
):
    pytest_plugins = ["memoleo.testing._plugin"]
