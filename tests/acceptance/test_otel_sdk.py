"""The OpenTelemetry SDK over gRPC and HTTP: the same rows, by SQL and in the Delta tables themselves."""

import gzip
import json
import urllib.request
import uuid
from collections.abc import Callable

import polars as pl
import pytest
from deltalake import DeltaTable
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import Status, StatusCode

from benchmarks.payload import trace_request
from tests.acceptance.servers import Server

pytestmark = pytest.mark.xdist_group("server")

EXPORTERS: dict[str, Callable[[Server], SpanExporter]] = {
    "grpc": lambda server: GrpcSpanExporter(endpoint=f"http://{server.otlp_grpc}", insecure=True),
    "http": lambda server: HttpSpanExporter(endpoint=f"{server.otlp_http}/v1/traces"),
    "http gzip on the main port": lambda server: HttpSpanExporter(
        endpoint=f"{server.url}/v1/traces", compression=Compression.Gzip, headers={"Authorization": "Bearer anything"}
    ),
}


def send(server: Server, exporter: SpanExporter) -> str:
    service = f"otel-{uuid.uuid4().hex[:8]}"
    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.version": "9"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("scope", "0.1")
    with tracer.start_as_current_span("GET /items", attributes={"http.request.method": "GET", "big": 2**62}) as span:
        span.add_event("cache miss", {"key": "k"})
        with tracer.start_as_current_span("query", attributes={"floats": [1.0, 2.5]}) as inner:
            inner.set_status(Status(StatusCode.ERROR, "down"))
    provider.shutdown()
    return service


@pytest.mark.parametrize("way", EXPORTERS)
def test_spans_arrive_with_types_and_events(server: Server, way: str) -> None:
    service = send(server, EXPORTERS[way](server))
    rows = server.wait_for_rows(f"SELECT * FROM records WHERE service_name = '{service}'", 3).to_pylist()
    by_name = {row["span_name"]: row for row in rows}
    root, inner, event = by_name["GET /items"], by_name["query"], by_name["cache miss"]
    assert (root["http_method"], root["kind"], root["message"]) == ("GET", "span", "GET /items")
    assert json.loads(root["attributes"])["big"] == 2**62
    assert json.loads(inner["attributes"])["floats"] == [1.0, 2.5]
    assert (inner["level"], inner["otel_status_code"], inner["otel_status_message"]) == (17, "ERROR", "down")
    assert inner["parent_span_id"] == root["span_id"]
    assert (event["kind"], event["parent_span_id"]) == ("span_event", root["span_id"])
    assert root["duration"] == pytest.approx((root["end_unix_nano"] - root["start_unix_nano"]) / 1e9)


def test_sql_polars_and_delta_show_the_same_rows(server: Server) -> None:
    service = send(server, EXPORTERS["http"](server))
    columns = ["span_name", "span_id", "start_timestamp", "duration", "attributes", "tags"]
    sql = f"SELECT {', '.join(columns)} FROM records WHERE service_name = '{service}' ORDER BY span_id"
    by_adbc = server.wait_for_rows(sql, 3)
    lake = server.data / "lake" / "records"
    by_polars = (
        pl.scan_delta(str(lake)).filter(pl.col("service_name") == service).select(columns).sort("span_id").collect()
    )
    by_delta = DeltaTable(lake).to_pyarrow_table(filters=[("service_name", "=", service)], columns=columns)
    assert by_polars.to_dicts() == by_adbc.to_pylist()
    assert sorted(by_delta.to_pylist(), key=lambda row: row["span_id"]) == by_adbc.to_pylist()


def test_metrics_over_grpc(server: Server) -> None:
    service = f"otel-{uuid.uuid4().hex[:8]}"
    exporter = GrpcMetricExporter(endpoint=f"http://{server.otlp_grpc}", insecure=True)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
    provider = MeterProvider([reader], resource=Resource.create({"service.name": service}))
    histogram = provider.get_meter("m").create_histogram("size", unit="By")
    histogram.record(10)
    histogram.record(700)
    provider.shutdown()
    [row] = server.wait_for_rows(f"SELECT * FROM metrics WHERE service_name = '{service}'", 1).to_pylist()
    assert (row["metric_type"], row["histogram_count"], row["histogram_sum"]) == ("histogram", 2, 710.0)
    assert len(row["histogram_bucket_counts"]) == len(row["histogram_explicit_bounds"]) + 1


def test_the_same_bytes_sent_twice_are_stored_once(server: Server) -> None:
    body = trace_request(424242, 7)
    service_rows = "SELECT trace_id FROM records WHERE kind = 'span'"
    before = server.query(service_rows).num_rows
    for level in (None, 1, 9):
        encoding = {} if level is None else {"Content-Encoding": "gzip"}
        request = urllib.request.Request(
            f"{server.otlp_http}/v1/traces",
            data=body if level is None else gzip.compress(body, level),
            headers={"Content-Type": "application/x-protobuf"} | encoding,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
    later = send(server, EXPORTERS["http"](server))
    server.wait_for_rows(f"SELECT 1 FROM records WHERE service_name = '{later}'", 3)
    assert server.query(service_rows).num_rows == before + 7 + 2
