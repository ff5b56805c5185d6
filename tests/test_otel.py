"""OpenTelemetry: spans and metrics, as its SDK's own exporters see them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from memoleo import Cache, Metrics, content_cached, enable

pytest.importorskip("opentelemetry.sdk")

import ollama
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from scripted_ollama import ScriptedOllama

from memoleo.otel import Spans, instrument

SECRET = "nobody should read this"


class Seen:
    """What was exported."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.handle = instrument(
            tracer_provider=self.tracers, meter_provider=self.meters, metrics=metrics
        )

    @property
    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def seen(metrics):
    seen = Seen(metrics)
    yield seen
    seen.handle.close()
    seen.meters.shutdown()
    seen.tracers.shutdown()


@pytest.fixture
def cache(metrics):
    return Cache("memory://", metrics=metrics)


def test_spans_of_functions(cache, seen):
    """A run is a span under the caller's, with its duration and how the cache answered."""

    @content_cached("squares", cache=cache)
    def square(number):
        return number * number

    with seen.tracers.get_tracer("program").start_as_current_span("outer") as outer:
        square(3)
    span, _ = seen.spans
    assert span.name.endswith("square")
    assert span.kind is SpanKind.INTERNAL
    assert span.parent.span_id == outer.get_span_context().span_id
    assert span.end_time > span.start_time
    assert dict(span.attributes) == {
        "memoleo.cache.outcome": "miss",
        "memoleo.cache.hit": False,
        "memoleo.cache.type": "squares",
    }


def test_failures(cache, seen):
    """A run that raises is a span in error, with the exception."""

    @content_cached("t", cache=cache)
    def fail():
        raise LookupError("no")

    with pytest.raises(LookupError):
        fail()
    (span,) = seen.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "LookupError"
    assert span.events[0].attributes["exception.message"] == "no"


def test_hits_in_the_shortest_way_are_counted(cache, seen):
    """Fresh hits make no spans, and all of them are in the metrics."""
    upper = content_cached("t", cache=cache)(str.upper)
    for _ in range(5):
        upper("a")
    assert len(seen.spans) == 1
    lookups = {
        point.attributes["memoleo.cache.outcome"]: point.value
        for point in seen.points()["memoleo.cache.lookups"]
    }
    assert lookups == {"hit": 4, "miss": 1, "stale": 0, "shared": 0}


def test_as_a_hook_of_one_cache(metrics, seen):
    """A cache with the hook has a span for each hit as well."""
    seen.handle.close()
    cache = Cache("memory://", metrics=metrics, hooks=[Spans(seen.tracers)])
    upper = content_cached("t", cache=cache)(str.upper)
    upper("a"), upper("a")
    assert [span.attributes["memoleo.cache.hit"] for span in seen.spans] == [False, True]
    assert seen.spans[1].attributes["memoleo.cache.saved_ms"] > 0


def test_operations(metrics, seen):
    """Timed operations are there with their counts and quantiles."""
    for ms in (10.0, 20.0, 30.0):
        metrics.record_latency("work", ms)
    metrics.record_error("work")
    points = seen.points()
    calls = {
        point.attributes["memoleo.operation.outcome"]: point.value
        for point in points["memoleo.operation.calls"]
    }
    assert calls == {"ok": 3, "error": 1, "cancelled": 0}
    durations = {
        point.attributes["quantile"]: point.value for point in points["memoleo.operation.duration"]
    }
    assert durations[0.5] == pytest.approx(0.02, rel=0.01)


def test_models(cache, seen):
    """Calls of a model have the names of the conventions for generative AI, hits as well."""
    with ScriptedOllama() as server, enable("ollama", cache=cache):
        client = ollama.Client(host=server.url)
        for _ in range(2):
            client.chat("m", [{"role": "user", "content": SECRET}], options={"seed": 1})
        list(client.generate("m", SECRET, stream=True, options={"seed": 1}))
        client.embed("m", SECRET)
        client._client.close()
    chats = [span for span in seen.spans if span.name == "chat m:latest"]
    first = chats[0]
    assert first.kind is SpanKind.CLIENT
    assert first.attributes["gen_ai.operation.name"] == "chat"
    assert first.attributes["gen_ai.provider.name"] == "ollama"
    assert first.attributes["gen_ai.request.model"] == "m:latest"
    assert first.attributes["gen_ai.usage.output_tokens"] > 0
    assert first.attributes["memoleo.cache.hit"] is False
    names = {span.name for span in seen.spans}
    assert {"chat m:latest", "text_completion m:latest", "embeddings m:latest"} <= names
    points = seen.points()
    durations = {
        point.attributes["gen_ai.operation.name"]: point.count
        for point in points["gen_ai.client.operation.duration"]
    }
    assert durations["chat"] == 1
    kinds = {point.attributes["gen_ai.token.type"] for point in points["gen_ai.client.token.usage"]}
    assert "output" in kinds
    assert not any(
        SECRET in str(value) for span in seen.spans for value in span.attributes.values()
    )


def test_closing(cache, seen):
    """After closing nothing is recorded, and another may take its place."""
    seen.handle.close()
    seen.handle.close()
    content_cached("t", cache=cache)(str.upper)("a")
    assert seen.spans == []
    assert all(not points for points in seen.points().values())


def test_without_opentelemetry():
    """Without the library the import fails with the line that installs it."""
    code = """
import sys
sys.modules["opentelemetry"] = None
import memoleo.otel
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "memoleo[otel]"' in ran.stderr
