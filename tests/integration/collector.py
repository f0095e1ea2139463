"""What takes spans as a collector does: OTLP over HTTP, protobuf."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Told:
    """A span and whose it is."""

    service: str
    replica: str
    span: Span

    @property
    def attributes(self) -> dict[str, str]:
        return {a.key: a.value.string_value for a in self.span.attributes}


@dataclass
class Collector:
    """Every span that came in, and the bytes that it came in."""

    told: list[Told] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.told += [
                    Told(names["service.name"], names["service.instance.id"], span)
                    for span in scope.spans
                ]

    def of(self, enrollment: str) -> dict[str, Told]:
        """The spans of the trace in which an enrollment (its subject's beginning) was made."""
        made = [t for t in self.told if t.attributes.get("scepstream.enrollment") == enrollment]
        traces = {t.span.trace_id for t in made}
        return {t.span.name: t for t in self.told if t.span.trace_id in traces}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port for the length of a block."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found.take(body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            """Nothing: it is a test's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
