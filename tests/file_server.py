"""A server on this machine that plays the hosts of weights and structures, with the faults that such hosts have."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """Files by path, and how they are answered. What is asked is in `requests`: path, and from which byte on."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)  # path -> path or address
    breaks: dict[str, list[int]] = field(default_factory=dict)  # path -> bytes after which each answer is cut
    answers: dict[str, list[int]] = field(default_factory=dict)  # path -> status of each answer, before there is one
    types: dict[str, str] = field(default_factory=dict)  # content types that are not of a file
    ranges: bool = True  # whether it can go on in the middle
    tags: bool = True  # whether it says by what a file is known
    lengths: bool = True  # whether it says how long a file is
    second: float = 0.0  # s that an answer takes
    requests: list[tuple[str, int]] = field(default_factory=list)

    def asked(self, path: str) -> list[int]:
        """From which byte on a path was asked for, request by request."""
        return [start for asked, start in self.requests if asked == path]


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            path = self.path
            said = self.headers.get("Range", "bytes=0-")
            start = int(said.removeprefix("bytes=").removesuffix("-"))
            server.requests.append((path, start))
            if path in server.redirects:
                self.send_response(302)
                self.send_header("Location", server.redirects[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif server.answers.get(path):
                self.send_error(server.answers[path].pop(0))
            elif path not in server.files:
                self.send_error(404)
            else:
                self._file(path, start)

        def _file(self, path: str, start: int) -> None:
            content = server.files[path]
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            if not server.ranges or self.headers.get("If-Range", tag) != tag:
                start = 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Type", server.types.get(path, "application/octet-stream"))
            if server.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            if server.tags:
                self.send_header("ETag", tag)
            self.end_headers()
            time.sleep(server.second)
            cut = server.breaks.get(path)
            end = cut.pop(0) if cut else len(content)
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content[start : max(start, end)])
            self.close_connection = True

    return Handler


@contextlib.contextmanager
def running() -> Iterator[FileServer]:
    """A server until the end of the block."""
    state = FileServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
