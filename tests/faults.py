"""A proxy in front of a server that speaks HTTP, which answers some requests as a bad network or an overloaded server would."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class Faults:
    """What a proxy does wrong.

    Args:
        method: The method of the requests that it concerns.
        path: A pattern for their paths.
        kind: "busy" (503), "forbidden" (403), "lost" (the request is carried out, and its answer is lost), "broken" (the answer ends after
            half of its body), "accepted" (a refusal because of a condition becomes a success), or a function that is called before the
            request is passed on.
        times: How many requests.
    """

    def __init__(self, method: str, path: str, kind: str | Callable[[], None], times: int = 1):
        self.method = method
        self.path = re.compile(path)
        self.kind = kind
        self.left = times


class Proxy:
    """A proxy.

    Args:
        port: The port of the server.
    """

    def __init__(self, port: int):
        self._server_port = port
        self._faults: list[Faults] = []
        self._lock = threading.Lock()
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request, in order."""
        self.faults_made = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def fail(self, method: str, path: str, kind: str | Callable[[], None], times: int = 1) -> None:
        """Treat the next requests of a kind badly; see `Faults`."""
        self._faults.append(Faults(method, path, kind, times))

    def _fault(self, method: str, path: str) -> str | Callable[[], None] | None:
        with self._lock:
            self.requests.append((method, path))
            for one in self._faults:
                if one.left and one.method == method and one.path.search(path):
                    one.left -= 1
                    self.faults_made += 1
                    return one.kind
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class in a function, for the proxy
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = proxy._fault(self.command, self.path)
                if kind in {"busy", "forbidden"}:
                    self._answer(503 if kind == "busy" else 403, BUSY)
                    return
                if callable(kind):
                    kind()
                connection = HTTPConnection("127.0.0.1", proxy._server_port)
                try:
                    connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        connection.putheader(name, value)
                    connection.endheaders(body)
                    found = connection.getresponse()
                    self._pass_on(found, found.read(), kind)
                except (OSError, HTTPException):
                    self.close_connection = True
                finally:
                    connection.close()

            def _pass_on(self, found: HTTPResponse, content: bytes, kind: object) -> None:
                if kind == "lost":
                    self.close_connection = True
                    return
                if kind == "accepted" and found.status == 412:
                    self._answer(200, b"", ETag='"1"')
                    return
                self.send_response_only(found.status)
                for name, value in found.getheaders():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                size = found.getheader("Content-Length") if self.command == "HEAD" else len(content)
                self.send_header("Content-Length", str(size or 0))
                self.end_headers()
                if kind == "broken":
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(content)

            def _answer(self, status: int, content: bytes, **headers: str) -> None:
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 - names of the base class

        return Handler
