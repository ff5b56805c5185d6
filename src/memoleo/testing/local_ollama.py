"""Serve the local model: ``python -m memoleo.testing.local_ollama --port 11434``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from memoleo.errors import MemoleoError
from memoleo.testing._local_ollama import LocalOllama
from memoleo.testing._model_file import model_file

__all__ = ["LocalOllama", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit status.

    Parameters
    ----------
    arguments
        the command line without the program; ``None``: this process's
    """
    parser = argparse.ArgumentParser(
        prog="python -m memoleo.testing.local_ollama",
        description="A small real model behind Ollama's API, for tests and demos.",
    )
    parser.add_argument("--port", type=int, default=11434, help="0 takes a free one")
    parser.add_argument("--alias", action="append", default=[], help="a further name of the model")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for one request")
    parser.add_argument("--model-file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ready-file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--switches", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        return _serve(given)
    except (ImportError, MemoleoError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def _serve(given: argparse.Namespace) -> int:
    from memoleo.testing._ollama_app import OllamaApp
    from memoleo.testing._ollama_switches import Switches

    try:
        import uvicorn
    except ImportError as error:
        raise ImportError("The local server needs uvicorn: pip install 'memoleo[local]'") from error

    switches = Switches()
    switches.change(given.switches)
    app = OllamaApp(
        given.model_file or model_file(),
        aliases=given.alias,
        threads=given.threads,
        switches=switches,
    )
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    # Listening begins before the address is told, so the first to read it gets an answer.
    listener = socket.create_server(("127.0.0.1", given.port))
    port = listener.getsockname()[1]
    if given.ready_file is not None:
        _tell(given.ready_file, port)
    else:
        print(f"Ollama's API at http://127.0.0.1:{port}, model {LocalOllama.model}", flush=True)
    if given.until_stdin_closes:
        threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()

    async def serve() -> None:
        try:
            await server.serve(sockets=[listener])
        finally:
            await app.close()

    # uvicorn stops in good order on a signal and then raises it again: that must not end us.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
    if given.until_stdin_closes and given.ready_file is not None:
        # Whoever started us cleans up too, unless it was killed.
        shutil.rmtree(given.ready_file.parent, ignore_errors=True)
    return 0


def _tell(ready: Path, port: int) -> None:
    half = ready.with_suffix(".half")
    half.write_text(json.dumps({"port": port, "pid": os.getpid()}), "utf-8")
    os.replace(half, ready)


def _stop_with_stdin(server: object) -> None:
    while sys.stdin.buffer.read(1024):
        pass
    server.should_exit = True  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
