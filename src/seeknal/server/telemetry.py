"""Spans for OpenTelemetry: one for each request, in the trace that the request's `traceparent` names."""

from __future__ import annotations

import time
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from seeknal.server.http import Request

_PATIENCE = 1.5
"""How long a stopping server waits for the collector, in seconds."""


class Telemetry:
    """Sends spans in batches to OTEL_EXPORTER_OTLP_ENDPOINT; the other OTEL_* variables configure how."""

    def __init__(self) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # no OTEL_* variable names it
            resource = resource.merge(Resource({SERVICE_NAME: "seeknal"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("seeknal")
        self._propagator = TraceContextTextMapPropagator()

    def add(self, request: Request, route: str, status: int, seconds: float) -> None:
        """Add the span of an answered request, without keys and features."""
        end = time.time_ns()
        carrier = {"traceparent": request.headers.get(b"traceparent", b"").decode("latin-1")}
        span = self._tracer.start_span(
            f"{request.method} {route}",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            {
                "http.request.method": request.method,
                "http.route": route,
                "http.response.status_code": int(status),
                "url.path": request.path[:200],
                "seeknal.keys": request.keys,
            },
            start_time=end - int(seconds * 1e9),
        )
        if status >= 500:  # noqa: PLR2004 - the server's own errors
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send the remaining spans, but give up soon: without a collector, the attempts would go on for half a minute."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_PATIENCE)
