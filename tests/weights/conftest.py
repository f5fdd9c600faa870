"""An empty cache, and a server that has the toy's file."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.weights.toy import DATA


@pytest.fixture
def home(tmp_path, monkeypatch, request):
    """An empty cache, unless the test is about real weights."""
    if not request.node.get_closest_marker("weights"):
        monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("PULSE_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home"


class Handler(BaseHTTPRequestHandler):
    """Answers with the next reply listed for the path; the last one is repeated."""

    def do_GET(self):
        self.server.asked.append(self.path)
        replies = self.server.replies.get(self.path, [(404, b"", 0)])
        status, body, missing = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - missing])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.replies = {
            "/good": [(200, DATA, 0)],
            "/short": [(200, DATA, 100)],
            "/other": [(200, DATA[::-1], 0)],
            "/flaky": [(200, DATA, 100), (200, DATA, 0)],
        }
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
