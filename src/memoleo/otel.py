"""OpenTelemetry: spans for the calls behind a cache, and metrics of what the cache did.

Model calls follow the semantic conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/, version 1.37, status "development"); what
they have no word for is named ``memoleo.…``. No prompt and no answer is ever recorded.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from memoleo._events import Event
from memoleo._platform.forks import RenewedLock
from memoleo.hooks import listen
from memoleo.metrics._metrics import RESERVED, Metrics, get_metrics

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError(
        'memoleo.otel needs OpenTelemetry: pip install "memoleo[otel]"', name=error.name
    ) from error

__all__ = ["Instrumented", "Spans", "instrument"]

_SCOPE = "memoleo"
_SERVED = frozenset({"hit", "stale", "shared", "stale_if_error"})
_TOLD = {"call": "miss", **{kind: kind for kind in _SERVED}}
_LOOKUPS = {"hits": "hit", "misses": "miss", "stale": "stale", "shared": "shared"}
_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}

# The boundaries that the conventions ask for.
_SECONDS = [0.01 * 2**power for power in range(14)]
_TOKENS = [4**power for power in range(14)]


class Spans:
    """A hook that records a span for each call that ran, and for each one that was answered.

    As a hook of one cache (``Cache(hooks=[Spans()])``) it sees every hit, and each then costs as
    much as a span does. `instrument` leaves the shortest way to hits alone.

    Parameters
    ----------
    tracer_provider
        where spans go; `None` for OpenTelemetry's global one
    """

    kinds = frozenset(_TOLD)

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)

    def __call__(self, event: Event) -> None:
        """Record one event. The span's parent is what is under way in the calling code."""
        if event.outcome not in _TOLD:
            return
        ended = time.time_ns()
        ran = event.outcome == "call"
        span = self._tracer.start_span(
            f"{event.operation} {event.label}" if event.operation else event.label or event.type,
            kind=SpanKind.CLIENT if event.operation else SpanKind.INTERNAL,
            start_time=ended - int(event.ms * 1e6) if ran else ended,
            attributes={**_request(event), **_cache(event)},
            record_exception=False,
            set_status_on_exception=False,
        )
        if event.error is not None and ran:
            span.record_exception(event.error)
            span.set_status(Status(StatusCode.ERROR, type(event.error).__name__))
        span.end(ended)


def _request(event: Event) -> dict[str, Any]:
    if not event.operation:
        return {}
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": event.operation,
        "gen_ai.provider.name": event.provider,
        "gen_ai.request.model": event.label,
    }
    if event.outcome == "call":
        for name, count in zip(("input", "output"), event.tokens, strict=True):
            if count:
                attributes[f"gen_ai.usage.{name}_tokens"] = count
    return attributes


def _cache(event: Event) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "memoleo.cache.outcome": _TOLD[event.outcome],
        "memoleo.cache.hit": event.outcome in _SERVED,
        "memoleo.cache.type": event.type,
    }
    if event.outcome in _SERVED:
        attributes["memoleo.cache.saved_ms"] = event.ms
    if event.error is not None:
        attributes["error.type"] = _type_of(event.error)
    return attributes


def _type_of(error: BaseException) -> str:
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


class _Usage:
    """Records how long calls of models took, and how many tokens they spent."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._durations = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )

    def __call__(self, event: Event) -> None:
        if not event.operation:
            return
        attributes = {
            "gen_ai.operation.name": event.operation,
            "gen_ai.provider.name": event.provider,
            "gen_ai.request.model": event.label,
        }
        for kind, count in zip(("input", "output"), event.tokens, strict=True):
            if count:
                self._tokens.record(count, {**attributes, "gen_ai.token.type": kind})
        if event.error is not None:
            attributes["error.type"] = _type_of(event.error)
        self._durations.record(event.ms / 1000, attributes)


class Instrumented:
    """What `instrument` returns: records until it is closed, or its block ends."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        counted: Metrics,
    ) -> None:
        self._counted = counted
        self._closed = False
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._listening = [
            listen(Spans(tracer_provider), kinds=Spans.kinds),
            listen(_Usage(meter), kinds={"call"}),
        ]
        meter.create_observable_counter(
            "memoleo.cache.lookups", [self._lookups], "{lookup}", "Lookups, by how they ended."
        )
        meter.create_observable_counter(
            "memoleo.cache.saved.time", [self._saved_time], "s", "Time that answers did not take."
        )
        meter.create_observable_counter(
            "memoleo.cache.saved.tokens", [self._saved_tokens], "{token}", "Tokens not spent."
        )
        meter.create_observable_counter(
            "memoleo.operation.calls", [self._calls], "{call}", "Calls, by how they ended."
        )
        meter.create_observable_gauge(
            "memoleo.operation.duration", [self._durations], "s", "Quantiles of durations."
        )

    def close(self) -> None:
        """Record no more. Closing twice is harmless."""
        self._closed = True
        for each in self._listening:
            each.close()

    def __enter__(self) -> Instrumented:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _types(self) -> Iterator[tuple[str, dict[str, float]]]:
        if not self._closed:
            yield from self._counted.get_stats()[RESERVED].items()

    def _operations(self) -> Iterator[tuple[str, dict[str, float]]]:
        if not self._closed:
            for name, numbers in self._counted.get_stats().items():
                if name != RESERVED:
                    yield name, numbers

    def _lookups(self, options: CallbackOptions) -> Iterable[Observation]:
        for type, counts in self._types():
            for name, outcome in _LOOKUPS.items():
                attributes = {"memoleo.cache.type": type, "memoleo.cache.outcome": outcome}
                yield Observation(counts[name], attributes)

    def _saved_time(self, options: CallbackOptions) -> Iterable[Observation]:
        for type, counts in self._types():
            yield Observation(counts["saved_ms"] / 1000, {"memoleo.cache.type": type})

    def _saved_tokens(self, options: CallbackOptions) -> Iterable[Observation]:
        for type, counts in self._types():
            yield Observation(counts["tokens_saved"], {"memoleo.cache.type": type})

    def _calls(self, options: CallbackOptions) -> Iterable[Observation]:
        for name, numbers in self._operations():
            for key, outcome in (("count", "ok"), ("errors", "error"), ("cancelled", "cancelled")):
                attributes = {"memoleo.operation.name": name, "memoleo.operation.outcome": outcome}
                yield Observation(numbers[key], attributes)

    def _durations(self, options: CallbackOptions) -> Iterable[Observation]:
        for name, numbers in self._operations():
            for key, quantile in _QUANTILES.items():
                attributes: dict[str, Any] = {"memoleo.operation.name": name, "quantile": quantile}
                yield Observation(numbers[key] / 1000, attributes)


_lock = RenewedLock()
_current: Instrumented | None = None


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    metrics: Metrics | None = None,
) -> Instrumented:
    """Record spans and metrics of every cache in this process with OpenTelemetry.

    Hits that are found in the shortest way cost nothing more: they are counted as ever, and
    OpenTelemetry asks for the counts when it collects. Every other call is a span. Instrumenting
    again takes the place of the instrumentation before.

    Parameters
    ----------
    tracer_provider, meter_provider
        where spans and metrics go; `None` for OpenTelemetry's global ones
    metrics
        whose counts are shown; `None` for `memoleo.get_metrics`

    Returns
    -------
    Instrumented
        a handle with ``close()``, and a context manager
    """
    global _current
    with _lock:
        if _current is not None:
            _current.close()
        _current = Instrumented(tracer_provider, meter_provider, metrics or get_metrics())
        return _current
