"""A web server on this machine whose connections break as a test wants."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serves server.files (path: bytes), or server.content under any path where there are none.

    The first answers end after server.cuts bytes, and server.statuses replace answers.  server.has_ranges: whether it
    sends a part where it is asked for one, "of any version" where it does not look at If-Range.  server.hold: the bytes
    after which an answer waits for server.go_on.
    server.ranges and server.paths list what was asked for, server.sent counts the bytes of the answers.
    """

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        server.paths.append(self.path)
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self.send_error(status)
            return
        content = server.files.get(self.path.partition("?")[0]) if server.files else server.content
        if content is None:
            self.send_error(404)
            return
        start = 0
        same = server.has_ranges == "of any version" or self.headers.get("If-Range") in (None, server.etag)
        if self.headers.get("Range") and server.has_ranges and same:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._send(body[: server.cuts.pop(0)] if server.cuts else body)
        if server.after_answer:
            server.after_answer()

    def _send(self, body):
        server = self.server
        for part in [body] if server.hold is None else [body[: server.hold], body[server.hold :]]:
            try:
                self.wfile.write(part)
            except OSError:  # the client is gone
                return
            server.sent += len(part)
            if server.hold is not None:
                server.held.set()
                server.go_on.wait(30)

    def log_message(self, *_):
        pass


@contextmanager
def serve(content: bytes = b""):
    """A running server with what Handler names as attributes, and `address`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.files, server.etag, server.after_answer = content, {}, '"one"', None
    server.cuts, server.statuses, server.ranges, server.paths, server.sent = [], [], [], [], 0
    server.has_ranges = server.tells_length = True
    server.hold, server.held, server.go_on = None, threading.Event(), threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
