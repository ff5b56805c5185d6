"""Stand-ins for the services that the worker calls: a router, songs, a Redis over REST, Ollama.

    python stand_ins.py          # prints the environment variables that lead a worker here

The same question always gets the same answer, and everything that is asked is counted.
"""

import hashlib
import json
import os
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TITLES = ["Blue Morning", "Ashes", "Slow River", "Northern Light", "Two Doors", "Salt", "Homeward"]
MODEL = "phi3:latest"


def number(*parts):
    """Return a number from 0 to 1 that is always the same for the same parts."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class StandIns:
    """All services on one free port of this machine, until the block ends.

    Attributes
    ----------
    asked
        how often each service was asked: "router", "songs", "played", "redis", "ollama"
    failing
        statuses of the next answers of a service, such as ``failing["router"] = [503]``
    delay
        seconds that a service takes
    bodies
        what was asked, per service
    lists, numbers
        what the Redis holds
    """

    def __init__(self, port=0):
        self.asked = Counter()
        self.failing = {}
        self.delay = {}
        self.bodies = {"router": [], "ollama": []}
        self.lists = {}
        self.numbers = Counter()
        self.lock = threading.Lock()
        self._port = port

    def __enter__(self):
        self._server = Server(("127.0.0.1", self._port), handler(self))
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self):
        """Where all of them are."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self):
        """The variables that lead a worker here."""
        return {
            "HF_URL": self.url,
            "HF_TOKEN": "hf_secret_of_the_worker",
            "OLLAMA_BASE_URL": self.url,
            "OLLAMA_MODEL": MODEL,
            "SONG_URL": self.url,
            "REDIS_REST_URL": f"{self.url}/redis",
            "REDIS_REST_TOKEN": "redis_secret_of_the_worker",
        }

    @property
    def upstream(self):
        """How often the services were asked something that a cache could answer."""
        return self.asked["router"] + self.asked["songs"] + self.asked["ollama"]

    def queue(self, texts, history=(), start=0):
        """Put entries into the queue, each with a timestamp of its own, counted from `start`."""
        jobs = [
            {"id": n, "text": text, "history": list(history), "timestamp": start + n}
            for n, text in enumerate(texts)
        ]
        self.lists.setdefault("entries", deque()).extend(map(json.dumps, jobs))

    def results(self, name="results"):
        """Take the results out, in the order of their entries."""
        return sorted(map(json.loads, self.lists.pop(name, ())), key=lambda each: each["id"])

    # The services.

    def router(self, path, body):
        """Classify, or compare a sentence with others."""
        inputs = body["inputs"]
        if isinstance(inputs, dict):
            source = inputs["source_sentence"]
            return [number(source, sentence) for sentence in inputs["sentences"]]
        labels = body["parameters"]["candidate_labels"]
        scored = sorted(((number(inputs, label), label) for label in labels), reverse=True)
        return {
            "sequence": inputs,
            "labels": [label for _, label in scored],
            "scores": [score for score, _ in scored],
        }

    def ollama(self, path, body):
        """Generate some words."""
        words = f"word-{number(body['prompt'], body.get('options'))}"
        return {
            "model": body["model"],
            "created_at": "2026-01-01T00:00:00Z",
            "response": f"{words}\n- walk\n- sleep",
            "done": True,
            "done_reason": "stop",
            "context": [1, 2, 3],
            "total_duration": 5,
            "eval_count": 7,
        }

    def songs(self, mood):
        """Recommend three songs."""
        ranked = sorted(TITLES, key=lambda title: number(mood, title))
        return {"mood": mood, "songs": [{"title": title, "year": 1999} for title in ranked[:3]]}

    def redis(self, words):
        """Execute a command."""
        name, key, *rest = words
        with self.lock:
            held = self.lists.setdefault(key, deque())
            if name == "LPOP":
                return held.popleft() if held else None
            if name == "RPUSH":
                held.extend(rest)
                return len(held)
            if name == "INCR":
                self.numbers[key] += 1
                return self.numbers[key]
        raise KeyError(name)


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


def handler(services):
    """Return what answers requests for some services."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            path, _, query = self.path.partition("?")
            if path == "/recommend":
                self.serve("songs", lambda: services.songs(query.split("mood=")[-1].split("&")[0]))
            elif path == "/api/tags":
                digest = hashlib.sha256(MODEL.encode()).hexdigest()
                self.serve("tags", lambda: {"models": [{"name": MODEL, "digest": digest}]})
            else:
                self.send({"error": "not found"}, 404)

        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"null")
            if self.path == "/redis":
                self.serve("redis", lambda: {"result": services.redis(body)})
            elif self.path == "/played":
                self.serve("played", lambda: {"ok": True})
            elif self.path.startswith("/hf-inference/models/"):
                services.bodies["router"].append(body)
                self.serve("router", lambda: services.router(self.path, body))
            elif self.path == "/api/generate":
                services.bodies["ollama"].append(body)
                self.serve("ollama", lambda: services.ollama(self.path, body))
            else:
                self.send({"error": "not found"}, 404)

        def serve(self, name, answer):
            with services.lock:
                services.asked[name] += 1
                failures = services.failing.get(name)
                status = failures.pop(0) if failures else 200
            time.sleep(services.delay.get(name, 0))
            if status == 200:
                self.send(answer())
            else:
                self.send({"error": "made to fail", "estimated_time": 20.0}, status)

        def send(self, answer, status=200):
            block = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(block)))
            self.send_header("Set-Cookie", "session=cookie_secret; Path=/")
            self.end_headers()
            self.wfile.write(block)

    return Handler


if __name__ == "__main__":
    with StandIns(int(os.environ.get("PORT", 0))) as running:
        for name, value in running.environment.items():
            print(f"export {name}={value}")
        running.queue(["I slept badly and missed the deadline.", "We laughed all evening."] * 3)
        threading.Event().wait()
