"""A server that speaks Ollama's API, says something new each time, and counts what it is asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ScriptedOllama:
    """Answers on a free loopback port until the block ends.

    Attributes
    ----------
    requests
        requests by path
    bodies
        the bodies of all requests that ask something, in their order
    sent
        the parts of all answers to them
    digests
        the models and their digests, as ``/api/tags`` lists them
    extra
        fields that are added to the rows of ``/api/tags``
    final
        fields that replace those of a final answer
    message
        fields that are added to the message of a chat
    fail
        status of the next failures, first one first
    cut_after, error_after
        a stream ends after so many parts, without an end or with an error
    gate
        requests that ask something wait for it
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.sent: list[list[dict[str, Any]]] = []
        self.digests = {"m:latest": "d1", "other:latest": "d2"}
        self.extra: dict[str, Any] = {}
        self.final: dict[str, Any] = {}
        self.message: dict[str, Any] = {}
        self.fail: list[int] = []
        self.tags_status = 200
        self.cut_after: int | None = None
        self.error_after: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> int:
        """How many requests asked the model something."""
        return len(self.bodies)

    @property
    def port(self) -> int:
        return self._server.server_port

    def __enter__(self) -> ScriptedOllama:
        self.start()
        return self

    def start(self, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self.gate.set()
        self.stop()

    def stop(self) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._server.hang_up()
            self._thread.join()
            self._server.server_close()
            self._thread = None  # type: ignore[assignment]

    def answer(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the parts of an answer; the last one is the end."""
        with self._lock:
            self.bodies.append(body)
            number = len(self.bodies)
        model, stamp = body["model"], f"2026-01-01T00:00:{number:02}Z"
        counts = {"total_duration": 1000 + number, "load_duration": 7, "prompt_eval_count": 5}
        if path == "/api/embed":
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            counts["prompt_eval_count"] = sum(map(len, texts))
            vectors = [_vector(text) for text in texts]
            return [{"model": model, "embeddings": vectors, **counts, **self.final}]
        if path == "/api/embeddings":
            return [{"embedding": _vector(body["prompt"])}]
        if path == "/v1/systemone":
            answers = {name: {"type": "noul", "noul": number / 7} for name in body["questions"]}
            usage = {"input_tokens": 5, "output_tokens": 3}
            return [{"model": model, "answers": answers, "usage": usage}]
        common = {"model": model, "created_at": stamp}
        end = {"done": True, "done_reason": "stop", "eval_count": 3, **counts, **self.final}
        words = ["word ", f"{number} ", "ends."]
        if path == "/api/generate":
            parts = [{**common, "response": word, "done": False} for word in words]
            return [*parts, {**common, "response": "", "context": [1, 2, number], **end}]
        parts = [
            {**common, "message": {"role": "assistant", "content": word}, "done": False}
            for word in words
        ]
        if self.message:
            extra = {"role": "assistant", "content": "", **self.message}
            parts.append({**common, "message": extra, "done": False})
        return [*parts, {**common, "message": {"role": "assistant", "content": ""}, **end}]


def whole(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the parts of an answer as the real server does."""
    end = dict(parts[-1])
    if "response" in end:
        end["response"] = "".join(part["response"] for part in parts)
    if "message" in end:
        message = dict(end["message"])
        message["content"] = "".join(part["message"]["content"] for part in parts)
        for name in ("thinking", "tool_calls"):
            found = [part["message"][name] for part in parts if name in part["message"]]
            if found:
                text = name == "thinking"
                message[name] = (
                    "".join(found) if text else [call for each in found for call in each]
                )
        end["message"] = message
    return end


def _vector(text: str) -> list[float]:
    return [byte / 7 for byte in hashlib.sha256(text.encode()).digest()[:8]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that leaves in the middle of a stream


def _handler(script: ScriptedOllama) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            script.requests[self.path] += 1
            rows = [
                {"name": name, "model": name, "digest": digest, **script.extra}
                for name, digest in script.digests.items()
            ]
            if script.tags_status == 200:
                self._send(200, {"models": rows})
            else:
                self._send(script.tags_status, {"error": "no"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            with script._lock:
                script.requests[self.path] += 1
            if self.path in ("/api/pull", "/api/create"):
                rows = [{"status": "pulling"}, {"status": "success"}]
                self._send_parts(rows) if body.get("stream") else self._send(200, rows[-1])
                return
            if self.path == "/api/copy":
                self._send(200, {})
                return
            script.gate.wait(20)
            if script.fail:
                self._send(script.fail.pop(0), {"error": "made to fail"})
                return
            nothing = {"/api/chat": "messages", "/api/generate": "prompt"}.get(self.path)
            if nothing is not None and not body.get(nothing):
                reason = "unload" if body.get("keep_alive") == 0 else "load"
                self._send(200, {
                    "model": body["model"], "response": "", "done": True, "done_reason": reason,
                    "message": {"role": "assistant", "content": ""},
                })  # fmt: skip
                return
            parts = script.answer(self.path, body)
            script.sent.append(parts)
            if body.get("stream"):
                if script.cut_after is not None:
                    parts = parts[: script.cut_after]
                elif script.error_after is not None:
                    parts = [*parts[: script.error_after], {"error": "broke"}]
                self._send_parts(parts)
            else:
                self._send(200, whole(parts))

        def do_DELETE(self) -> None:
            script.requests[self.path] += 1
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._send(200, {})

        def _send(self, status: int, answer: Any) -> None:
            block = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(block)))
            self.end_headers()
            self.wfile.write(block)

        def _send_parts(self, parts: list[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in parts:
                block = json.dumps(part).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    return Handler
