"""HTTP calls of code that nobody edits: a rule names them, and nothing else is cached."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

import memoleo

seen: list[str] = []


class Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen.append(self.path)
        block = json.dumps({"score": len(str(body)), "call": len(seen)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(block)))
        self.end_headers()
        self.wfile.write(block)

    def log_message(self, *_: object) -> None: ...


server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

score = {"method": "POST", "url": f"{url}/score", "type": "scores", "ignore_body": ["/now"]}
with memoleo.enable("requests", rules=[score], cache="memory://"):
    for now in range(3):
        response = requests.post(f"{url}/score", json={"text": "why?", "now": now}, timeout=5)
        print(response.json(), "from the cache:", getattr(response, "from_cache", False))
        requests.post(f"{url}/queue", json=["LPOP", "jobs"], timeout=5)

print("the server saw:", seen)
server.shutdown()
server.server_close()
