"""The worker of ``examples/leo`` in processes of its own: as it is, and in the three ways."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LEO = Path(__file__).parents[1] / "examples" / "leo"
CONFIG = LEO / "memoleo.toml"

ENABLED = """
import runpy, sys
import memoleo
memoleo.enable(config={config!r})
sys.argv[0] = {worker!r}
runpy.run_path({worker!r}, run_name="__main__")
"""

CLASSES = """
import json, os, sys
sys.path.insert(0, {leo!r})
from memoleo.leo import enable_caching_for_worker
classes = enable_caching_for_worker(config={config!r})
from src.modules.queue import command
scorer = classes["HybridScorer"](timeout=30)
while (raw := command("LPOP", "entries")) is not None:
    job = json.loads(raw)
    result = scorer.enrich(job["text"], job["history"], timestamp=job["timestamp"])
    result = classes["PostEnricher"]().run_post_enrichment(result)
    command("RPUSH", "results", json.dumps({{**result, "id": job["id"]}}))
"""


def stand_ins() -> Any:
    """Return the module with the services that the worker calls."""
    spec = importlib.util.spec_from_file_location("leo_stand_ins", LEO / "stand_ins.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(way: str, *options: str, config: Path = CONFIG) -> list[str]:
    """Return the command of one of the ways: "plain", "run", "enable" or "classes"."""
    worker = str(LEO / "worker.py")
    places = {"worker": worker, "leo": str(LEO), "config": str(config)}
    if way == "plain":
        return [sys.executable, worker, *options]
    if way == "run":
        return [sys.executable, "-m", "memoleo", "run", "--config", str(config), worker, *options]
    script = {"enable": ENABLED, "classes": CLASSES}[way]
    return [sys.executable, "-c", script.format(**places), *options]


def environment(folder: Path, *services: Any, **others: str) -> dict[str, str]:
    """Return the variables of a worker: the services' (later ones go first), a cache, a seed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMOLEO_")}
    for each in services:
        kept.update(each)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", "")]))
    url = f"sqlite:///{(folder / 'cache.db').as_posix()}"
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONPATH": path, "MEMOLEO_CACHE": url, **others}


def work(
    way: str, environ: dict[str, str], folder: Path, *options: str, config: Path = CONFIG
) -> str:
    """Let the worker drain the queue; return what it printed."""
    ran = subprocess.run(
        arguments(way, "--drain", *options, config=config),
        cwd=folder,
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=110,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.stdout + ran.stderr
