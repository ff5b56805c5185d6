"""`LocalOllama`: a real model behind Ollama's API, in a process of its own, for tests and demos."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from memoleo.errors import MemoleoError
from memoleo.testing._model_file import GGUF_SHA256, model_file

if TYPE_CHECKING:
    import httpx

__all__ = ["LocalOllama"]

_NEEDED = ("xllamacpp", "uvicorn", "starlette")
_GRACE_S = 10.0


class LocalOllama:
    """A server on a free loopback port that speaks Ollama's API, with a small model behind it.

    Needs the extra ``memoleo[local]``. The model (SmolLM2-135M, 98 MB) is fetched once and kept in
    the user's cache folder. One request is computed at a time, and the same request at temperature
    0, or with the same seed, has the same answer each time.

    ::

        with LocalOllama() as server:
            client = ollama.Client(server.url)
            client.generate("smollm2:135m", "Why is the sky blue?", options={"num_predict": 20})
            assert server.model_calls == 1

    Parameters
    ----------
    port
        the port; 0 takes a free one
    aliases
        further names under which the model is served
    threads
        CPU threads for one request; with more than one, a busy machine makes it very slow, because
        the threads wait for one another
    startup_timeout
        seconds to wait for the server
    switches
        how the server misbehaves from the start, see `switch`

    Raises
    ------
    MemoleoError
        when started: if the extra or the model is missing, or the server doesn't come up
    """

    model = "smollm2:135m"
    digest = GGUF_SHA256

    def __init__(
        self,
        *,
        port: int = 0,
        aliases: Sequence[str] = (),
        threads: int = 1,
        startup_timeout: float = 60.0,
        **switches: Any,
    ) -> None:
        self.port = port
        self._aliases = tuple(aliases)
        self._threads = threads
        self._startup_timeout = startup_timeout
        self._switches = switches
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._client: httpx.Client | None = None
        self._owner = 0

    # -- running

    def start(self) -> LocalOllama:
        """Start the server and wait until it answers; after `close`, it gets the same port."""
        if self._process is not None:
            return self
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise MemoleoError(
                f"The local model needs {', '.join(missing)}: pip install 'memoleo[local]'"
            )
        import httpx

        model = model_file()
        self._owner = os.getpid()
        self._folder = tempfile.TemporaryDirectory(prefix="memoleo-ollama-")
        ready = Path(self._folder.name) / "ready.json"
        command = [sys.executable, "-m", "memoleo.testing.local_ollama", "--until-stdin-closes"]
        command += [f"--port={self.port}", f"--threads={self._threads}", f"--model-file={model}"]
        command += [f"--ready-file={ready}", f"--switches={json.dumps(self._switches)}"]
        command += [f"--alias={alias}" for alias in self._aliases]
        with (Path(self._folder.name) / "log.txt").open("wb") as log:
            # The server goes away when its standard input closes, so it can't outlive us, even
            # if we are killed. The import path is ours, whatever was added to it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        try:
            self.port = self._port_when_ready(ready)
            self._client = httpx.Client(base_url=self.url, timeout=30.0, trust_env=False)
            self._control("GET", "/api/version")
            # The question whether it is up was ours, not the test's.
            self._control("DELETE", "/memoleo/counts")
        except BaseException:
            self.kill()
            raise
        return self

    def _port_when_ready(self, ready: Path) -> int:
        assert self._process is not None
        deadline = time.monotonic() + self._startup_timeout
        while not ready.exists():
            if self._process.poll() is not None:
                status = self._process.returncode
                raise MemoleoError(f"The local server ended with status {status}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise MemoleoError(
                    f"The local server didn't start within {self._startup_timeout:g} s:\n"
                    + self.log()
                )
            time.sleep(0.02)
        port: int = json.loads(ready.read_text("utf-8"))["port"]
        return port

    def close(self) -> None:
        """Stop the server; nothing happens if it isn't running."""
        self._end(kill=False)

    def kill(self) -> None:
        """Stop the server the hard way, in the middle of what it does."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        client, self._client = self._client, None
        folder, self._folder = self._folder, None
        # A forked child has a copy of this object, but the server isn't its to stop.
        if process is None or os.getpid() != self._owner:
            return
        if client is not None:
            client.close()
        if kill:
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if folder is not None:
            with contextlib.suppress(OSError):
                folder.cleanup()

    def __enter__(self) -> LocalOllama:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- where it is, what it was asked

    @property
    def host(self) -> str:
        """Host and port, as ``OLLAMA_HOST`` names them."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{self.host}"

    @property
    def pid(self) -> int | None:
        """The process of the server; ``None`` if it isn't running."""
        return self._process.pid if self._process is not None else None

    @property
    def counts(self) -> dict[str, Any]:
        """All that the server counts; other processes read it at ``GET /memoleo/counts``."""
        counts: dict[str, Any] = self._control("GET", "/memoleo/counts")
        return counts

    @property
    def requests(self) -> dict[str, int]:
        """How many requests each path had, whatever became of them."""
        requests: dict[str, int] = self.counts["requests"]
        return requests

    @property
    def model_calls(self) -> int:
        """For how many calls the model computed; loading and unloading don't count."""
        calls: int = self.counts["model_calls"]
        return calls

    def reset_counts(self) -> None:
        """Count from zero."""
        self._control("DELETE", "/memoleo/counts")

    def log(self) -> str:
        """Return what the server wrote to its output."""
        if self._folder is None:
            return ""
        return (Path(self._folder.name) / "log.txt").read_text("utf-8", "replace")

    # -- misbehaving

    def switch(self, **switches: Any) -> None:
        """Change how the server misbehaves on calls that ask the model.

        Parameters
        ----------
        **switches
            ``delay`` (seconds before each answer), ``fail_next`` (so many calls fail, with
            ``fail_status``, ``fail_message``, ``retry_after``), ``cut_after`` and ``error_after``
            (a stream ends after so many parts: in silence, or with an error part), ``digest``
            (the model's)

        Raises
        ------
        ValueError
            if there is no such switch, or the value isn't of its type
        """
        self._control("POST", "/memoleo/switches", switches)

    def switch_all_off(self) -> None:
        """Behave well again."""
        from memoleo.testing._ollama_switches import Switches

        self.switch(**Switches().as_dict())

    def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if self._client is None:
            raise MemoleoError("The local server isn't running: use it in a with statement.")
        response = self._client.request(method, path, json=body)
        if response.status_code == 400:
            raise ValueError(response.json()["error"])
        response.raise_for_status()
        return response.json()
