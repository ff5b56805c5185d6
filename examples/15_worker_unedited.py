"""A worker that nobody edits, run twice: the second time asks nobody, and gives the same results.

It is the one in ``leo`` beside this file: bare requests, swallowed errors, fallbacks, and twelve
calls an entry. Stand-ins answer for the services that it asks.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

LEO = Path(__file__).parent / "leo"
sys.path.insert(0, str(LEO))

from stand_ins import StandIns  # noqa: E402

TEXTS = ["I slept badly and missed the deadline.", "We laughed all evening."]

with StandIns() as services:
    services.delay = {"router": 0.05, "ollama": 0.1}
    environment = {**os.environ, **services.environment, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "memoleo", "run", "--config", str(LEO / "memoleo.toml")]
    found = []
    for run in ("cold", "warm"):
        services.queue(TEXTS)
        services.asked.clear()
        started = time.perf_counter()
        subprocess.run(
            [*command, str(LEO / "worker.py"), "--drain"],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds = time.perf_counter() - started
        found.append(services.results())
        print(f"{run}: {services.upstream:2} calls, {seconds:.2f} s")

assert found[0] == found[1]
print(found[1][0]["wheel"])
