"""A server of files, for what is downloaded: one that can be slow, drop, stall, refuse for a while and lie about lengths."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Fault(StrEnum):
    """What may go wrong with an answer."""

    DROP = "drop"
    """The connection ends in the middle of the body."""
    STALL = "stall"
    """Nothing comes after the middle of the body, for ``Server.stalled`` seconds."""
    BUSY = "503"
    """The server is too busy."""
    SHORT = "short"
    """Half of the bytes, and a length that fits them."""


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes), also in ranges, and counts what was asked for; a path in ``cut`` ends after half.

    Attributes:
        asked: paths, with what follows ``?``.
        ranges: what was asked of each, None for all.
        latency: seconds before every answer.
        fault: what goes wrong with the answer to a path.
        knows_ranges: whether it does; if not, it sends whole files.
        stalled: seconds that a stall lasts.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.asked, self.ranges = {}, set(), [], []
        self.latency, self.stalled, self.knows_ranges = 0.0, 5.0, True
        self.fault: Callable[[str], Fault | None] = lambda path: None
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """Say nothing of a client that went away."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, (path, _, _) = self.server, self.path.partition("?")
        wanted = self.headers.get("Range") if server.knows_ranges else None
        server.asked.append(self.path)
        server.ranges.append(wanted)
        time.sleep(server.latency)
        content, fault = server.files.get(path), server.fault(path)
        if content is None:
            self.send_error(404, "Not Found")
            return
        if fault == Fault.BUSY:
            self.send_error(503, "Service Unavailable")
            return
        if wanted:
            first, stop = wanted.removeprefix("bytes=").split("-")
            if int(first) >= len(content):
                self.send_error(416, "Range Not Satisfiable")
                return
            content = content[int(first) : int(stop) + 1 if stop else None]
        if fault == Fault.SHORT:
            content = content[: len(content) // 2]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        broken_off = path in server.cut or fault in (Fault.DROP, Fault.STALL)
        self.wfile.write(content[: len(content) // 2] if broken_off else content)
        if fault == Fault.STALL:
            self.wfile.flush()
            time.sleep(server.stalled)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """Serve inside the block."""
    found = Server()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()
