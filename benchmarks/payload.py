"""Seeded OTLP requests that look like those of real services: the same seed gives the same bytes.

Spans are 1-2 KB with a dozen attributes and more; 35 % are model calls with their messages, 6 % carry an exception.
"""

import json
from collections.abc import MutableSequence
from random import Random

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

AT_NS = 1_795_000_000_000_000_000
"""When the telemetry happened, unless told otherwise: a day in November 2026."""
GEN_AI_SHARE = 0.35
EXCEPTION_SHARE = 0.06
SERVICES = ("checkout", "catalog", "assistant", "gateway")
ROUTES = ("/", "/items/{id}", "/cart", "/checkout", "/search", "/chat")
MODELS = (("openai", "gpt-5-mini"), ("anthropic", "claude-sonnet-5"), ("google", "gemini-3-flash"))
WORDS = (
    "order", "payment", "user", "café", "stock", "price", "item", "reply", "answer", "注文", "search", "total",
    "delivery", "token", "retry", "cart",
)  # fmt: skip

Value = str | int | float | bool | list[str]


def trace_request(seed: int, spans: int, *, at_ns: int = AT_NS) -> bytes:
    """An ExportTraceServiceRequest of one service."""
    random = Random(seed)
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.CopyFrom(_resource(random))
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = "opentelemetry.instrumentation.fastapi", "0.66b0"
    trace_id, parent_id = random.randbytes(16), b""
    for index in range(spans):
        if index % 8 == 0:
            trace_id, parent_id = random.randbytes(16), b""
        span = scope.spans.add(trace_id=trace_id, span_id=random.randbytes(8), parent_span_id=parent_id)
        parent_id = span.span_id
        span.start_time_unix_nano = at_ns + random.randrange(60_000_000_000)
        span.end_time_unix_nano = span.start_time_unix_nano + int(random.expovariate(1 / 80_000_000))
        (_model_call if random.random() < GEN_AI_SHARE else _web_request)(random, span)
        if random.random() < EXCEPTION_SHARE:
            _fail(random, span)
    return request.SerializeToString()


def log_request(seed: int, records: int, *, at_ns: int = AT_NS) -> bytes:
    """An ExportLogsServiceRequest of one service."""
    random = Random(seed)
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.CopyFrom(_resource(random))
    scope = group.scope_logs.add()
    scope.scope.name = "app.log"
    for _ in range(records):
        record = scope.log_records.add(time_unix_nano=at_ns + random.randrange(60_000_000_000))
        record.severity_number = SeverityNumber.ValueType(random.choice((5, 9, 9, 9, 13, 17)))
        record.body.string_value = _sentence(random, 10)
        record.trace_id, record.span_id = random.randbytes(16), random.randbytes(8)
        _set(record.attributes, {"code.filepath": "app/orders.py", "code.lineno": random.randrange(400)})
    return request.SerializeToString()


def metric_request(seed: int, points: int, *, at_ns: int = AT_NS) -> bytes:
    """An ExportMetricsServiceRequest of one service: half counters, half histograms."""
    random = Random(seed)
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.CopyFrom(_resource(random))
    scope = group.scope_metrics.add()
    scope.scope.name = "app.metrics"
    requests = scope.metrics.add(name="http.server.requests", unit="{request}")
    requests.sum.is_monotonic = True
    requests.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    durations = scope.metrics.add(name="http.server.request.duration", unit="s")
    durations.histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    for index in range(points):
        attributes: dict[str, Value] = {"http.route": random.choice(ROUTES)}
        if index % 2:
            counter = requests.sum.data_points.add(time_unix_nano=at_ns, as_int=random.randrange(10_000))
            _set(counter.attributes, attributes)
        else:
            histogram = durations.histogram.data_points.add(time_unix_nano=at_ns)
            histogram.bucket_counts.extend(random.randrange(50) for _ in range(6))
            histogram.explicit_bounds.extend((0.01, 0.05, 0.1, 0.5, 1.0))
            histogram.count, histogram.sum = sum(histogram.bucket_counts), random.random() * 50
            _set(histogram.attributes, attributes)
    return request.SerializeToString()


def _resource(random: Random) -> Resource:
    resource = Resource()
    _set(resource.attributes, {
        "service.name": random.choice(SERVICES), "service.version": "1.4.2", "service.instance.id": "a1b2c3",
        "deployment.environment.name": "production", "process.pid": 4711, "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "python", "telemetry.sdk.version": "1.45.2", "host.name": "web-1",
    })  # fmt: skip
    return resource


def _web_request(random: Random, span: Span) -> None:
    route = random.choice(ROUTES)
    span.name, span.kind = f"GET {route}", Span.SPAN_KIND_SERVER
    _set(span.attributes, {
        "http.request.method": "GET", "http.route": route,
        "url.path": route.replace("{id}", str(random.randrange(999))),
        "url.query": f"q={random.choice(WORDS)}", "http.response.status_code": random.choice((200, 200, 200, 404, 500)),
        "network.protocol.version": "1.1", "server.address": "shop.example.org", "server.port": 443,
        "client.address": f"203.0.113.{random.randrange(255)}",
        "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64)",
        "user.id": f"user-{random.randrange(5_000)}", "session.id": random.randbytes(8).hex(),
        "app.tenant": f"tenant_{random.randrange(200)}", "app.flags": ["beta", "eu"],
        "app.retries": random.randrange(3),
        "app.note": _sentence(random, 60),
    })  # fmt: skip


def _model_call(random: Random, span: Span) -> None:
    provider, model = random.choice(MODELS)
    span.name, span.kind = f"chat {model}", Span.SPAN_KIND_CLIENT
    question, answer = _sentence(random, 60), _sentence(random, 90)
    _set(span.attributes, {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": model,
        "gen_ai.response.model": f"{model}-2026-10-01", "gen_ai.response.id": random.randbytes(12).hex(),
        "gen_ai.response.finish_reasons": ["stop"], "gen_ai.usage.input_tokens": random.randrange(100, 4_000),
        "gen_ai.usage.output_tokens": random.randrange(10, 900), "gen_ai.agent.name": "support",
        "gen_ai.conversation.id": random.randbytes(8).hex(), "operation.cost": round(random.random() / 50, 6),
        "server.address": f"api.{provider}.example", "gen_ai.request.temperature": 0.2,
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": question}]}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": answer}]}]),
    })  # fmt: skip


def _fail(random: Random, span: Span) -> None:
    kind, message = random.choice(("ValueError", "TimeoutError", "KeyError")), _sentence(random, 6)
    span.status.code, span.status.message = Status.STATUS_CODE_ERROR, f"{kind}: {message}"
    event = span.events.add(name="exception", time_unix_nano=span.end_time_unix_nano)
    lines = "".join(f'  File "app/{random.choice(WORDS)}.py", line {n}, in run\n    step()\n' for n in range(10, 22))
    _set(event.attributes, {
        "exception.type": kind, "exception.message": message,
        "exception.stacktrace": f"Traceback (most recent call last):\n{lines}{kind}: {message}",
    })  # fmt: skip


def _sentence(random: Random, words: int) -> str:
    return " ".join(random.choices(WORDS, k=words))


def _set(attributes: MutableSequence[KeyValue], values: dict[str, Value]) -> None:
    attributes.extend(KeyValue(key=key, value=_any(value)) for key, value in values.items())


def _any(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case list():
            made = AnyValue()
            made.array_value.values.extend(map(_any, value))
            return made
