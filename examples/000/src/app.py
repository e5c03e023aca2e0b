"""A stand-in for document 000's auth-service: its endpoints, and nothing behind them.

app.py ADDRESS VERSION   serve
app.py migrate           what the document's init container does: once per release
"""

import json
import random
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SETTINGS = json.loads((Path(__file__).parent / "settings.json").read_text())
STOPPING = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        path = self.path.split("?")[0]
        if path == "/health":
            return self.say(200, {"status": "live"})
        if path == "/health/ready":
            return self.say(503 if STOPPING.is_set() else 200, {"ready": not STOPPING.is_set()})
        if path == "/version":
            return self.say(200, {"version": self.server.version})
        if not path.startswith("/api/auth"):
            return self.say(404, {"error": "no such page"})
        if random.random() < SETTINGS["errorRate"]:
            return self.say(500, {"error": "as built"})
        return self.say(200, {"user": "demo"})

    do_GET = do_POST = answer

    def say(self, status, document):
        body = (json.dumps(document) + "\n").encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-version", self.server.version)
        request_id = self.headers.get("x-request-id")
        if request_id:
            self.send_header("x-request-id", request_id)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(address, version):
    host, port = address.rsplit(":", 1)
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.version = version
    # Not a daemon: requests under way are answered before the process ends.
    server.daemon_threads = False
    Handler.timeout = 5

    def stop(*_):
        STOPPING.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever(poll_interval=0.05)
    server.server_close()


def main(arguments):
    if arguments == ["migrate"]:
        print("nothing to migrate: this stand-in has no database")
    elif len(arguments) == 2:
        serve(*arguments)
    else:
        sys.exit(__doc__)


main(sys.argv[1:])
