"""A real browser for tests, and a dashboard for it to look at.

The browser is driven over the Chrome DevTools Protocol:

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from children import started
from websockets.sync.client import ClientConnection, connect

PLACES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
PROGRAM = next((found for place in PLACES if (found := shutil.which(place))), None)

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
)


class Page:
    """One tab. What goes wrong in it is gathered in `troubles`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._sent = 0
        self.troubles: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._sent += 1
        number = self._sent
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.ask("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited."""
        result = self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Return the value of an expression once it is true."""
        end = time.monotonic() + seconds
        while True:
            value = self.evaluate(expression)
            if value:
                return value
            assert time.monotonic() < end, f"never true: {expression}"
            # The browser answers when it has drawn what is new.
            self.evaluate("new Promise(done => setTimeout(done, 50))")

    def text(self, selector: str) -> str:
        """Return the visible text of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def look(self, width: int, height: int, theme: str = "light", scale: float = 1) -> None:
        """Set the size of the window in pixels, and what the system prefers."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        """Write what is seen to a PNG file."""
        result = self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(result["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        kind, params = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.troubles.append(details.get("exception", {}).get("description", details["text"]))
        elif kind == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.troubles.append(f"console: {params['args']}")
        elif kind == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.troubles.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif kind == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Start a browser with a profile of its own in a folder; yield its one tab."""
    assert PROGRAM is not None, "there is no Chromium here"
    process = subprocess.Popen(
        [PROGRAM, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("DevTools listening on "):
                break
        else:
            raise AssertionError(f"Chromium did not start: {''.join(said)}")
        port = line.rpartition("//")[2].partition("/")[0].rpartition(":")[2]
        with connect(_tab(port), max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.stderr.close()  # type: ignore[union-attr]
        try:
            process.wait(timeout=30)
        finally:
            process.kill()


def _tab(port: str) -> str:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", int(port), timeout=30)
    try:
        while True:
            connection.request("GET", "/json/list")
            pages = json.loads(connection.getresponse().read())
            for page in pages:
                if page["type"] == "page":
                    return str(page["webSocketDebuggerUrl"])
    finally:
        connection.close()


@contextmanager
def serving(*options: str, complains: bool = False, **environ: str) -> Iterator[str]:
    """Run `memoleo serve`, yield the address that it says, and end it by Ctrl-C.

    Its stderr stays empty, unless it has a reason to complain: then it has warnings alone.
    """
    with started(
        [sys.executable, "-m", "memoleo", "serve", "--json", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    ) as child:
        assert child.stdout is not None
        said = ""
        for line in child.stdout:
            said += line
            if line.startswith("}"):
                break
        assert said, child.communicate()[1]
        yield json.loads(said)["url"]
        if os.name == "posix":
            child.send_signal(signal.SIGINT)
        else:
            child.terminate()
        _, err = child.communicate(timeout=60)
        if os.name == "posix":
            warnings = [line for line in err.splitlines() if line.startswith("Warning: ")]
            assert (child.returncode, err.splitlines()) == (0, warnings), err
            assert bool(warnings) == complains, err
