"""Cards that know no hash, and a server as the web has them."""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pulse_framework.weights import Card

DATA = bytes(range(256)) * 1000
OTHER = DATA[::-1]
HASH = hashlib.sha256(DATA).hexdigest()
PAGE = b"\n<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>"


class Server(ThreadingHTTPServer):
    """Gives one body at every path, in as many bytes an answer as ``cuts`` says; ``/moved`` leads elsewhere."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.cuts, self.headers, self.ranges, self.asked = DATA, [], {}, True, []
        self.target = "/there"
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if self.path == "/moved":
            return self.answer(302, b"<html>moved</html>", {"Location": server.target, "Content-Type": "text/html"})
        if self.path == "/absent":
            return self.answer(404, PAGE, {"Content-Type": "text/html"})
        same = self.headers.get("If-Range") in (server.headers.get("ETag"), server.headers.get("Last-Modified"))
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            size = len(server.body)
            return self.answer(206, server.body[start:], server.headers | {"Content-Range": f"bytes {start}-{size - 1}/{size}"})
        return self.answer(200, server.body, server.headers)

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if status < 300 and self.server.cuts else body)

    def log_message(self, *args):
        pass


def make_card(*places, name="toy", **changes):
    values = dict.fromkeys(("architecture", "citation", "alignment"), "none")
    values |= {"sha256": None, "size": None, "format": "pkl", "licence": "MIT", "resolution": (8, 8)}
    return Card(name, places, **(values | changes))


def files(home):
    return sorted(path.name for path in home.rglob("*") if path.is_file())
