"""The open tables: every column with its Arrow type, whether it may be null, and where it comes from.

These definitions make the Delta tables, the SQL schema and the documentation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", "UTC")
TEXT = pa.string()
TEXTS = pa.list_(pa.string())
INT64S = pa.list_(pa.int64())
FLOATS = pa.list_(pa.float64())

PARTITION_COLUMNS = ("project_id", "day")
STATISTICS_COLUMNS = (
    "start_timestamp", "end_timestamp", "trace_id", "service_name", "level", "kind", "_epoch",
)  # fmt: skip


class Column(NamedTuple):
    """One column of a table."""

    name: str
    type: pa.DataType
    nullable: bool
    description: str
    attribute: tuple[str, ...] = ()
    """Span or log attributes this column is promoted from; the first one present wins."""


def _required(name: str, kind: pa.DataType, description: str) -> Column:
    return Column(name, kind, False, description)


def _optional(name: str, kind: pa.DataType, description: str, *attribute: str) -> Column:
    return Column(name, kind, True, description, attribute)


_PLACE = (
    _required("project_id", TEXT, "The project's UUID; partition column."),
    _required("day", pa.date32(), "UTC day of receipt; partition column."),
    _required("created_at", TIMESTAMP, "Time of receipt."),
)

_ORIGIN = (
    _optional("otel_scope_name", TEXT, "Instrumentation scope name."),
    _optional("otel_scope_version", TEXT, "Instrumentation scope version."),
    _optional("otel_scope_attributes", TEXT, "Instrumentation scope attributes, JSON object."),
    _optional("otel_resource_attributes", TEXT, "Resource attributes, JSON object."),
    _required("service_name", TEXT, "Resource `service.name`; `unknown_service` when absent."),
    _optional("service_namespace", TEXT, "Resource `service.namespace`."),
    _optional("service_version", TEXT, "Resource `service.version`."),
    _optional("service_instance_id", TEXT, "Resource `service.instance.id`."),
    _optional("process_pid", pa.int64(), "Resource `process.pid`."),
    _optional(
        "deployment_environment", TEXT,
        "Resource `deployment.environment.name`, else `deployment.environment`.",
    ),
    _optional("telemetry_sdk_name", TEXT, "Resource `telemetry.sdk.name`."),
    _optional("telemetry_sdk_language", TEXT, "Resource `telemetry.sdk.language`."),
    _optional("telemetry_sdk_version", TEXT, "Resource `telemetry.sdk.version`."),
)  # fmt: skip

_EPOCH = (_required("_epoch", pa.int64(), "Number of the commit that wrote the row, counted over all tables."),)

RECORD_COLUMNS = (
    *_PLACE,
    _required("start_timestamp", TIMESTAMP, "Span start; a log's time, else its observed time, else receipt."),
    _required("end_timestamp", TIMESTAMP, "Span end; the start for logs and span events."),
    _required("start_unix_nano", pa.int64(), "start_timestamp in nanoseconds since the Unix epoch."),
    _required("end_unix_nano", pa.int64(), "end_timestamp in nanoseconds since the Unix epoch."),
    _optional("duration", pa.float64(), "Seconds; null for logs, span events and pending spans."),
    _required("trace_id", TEXT, "32 hex digits; empty for a log outside any trace."),
    _required("span_id", TEXT, "16 hex digits; logs and span events get one made from their log position."),
    _optional("parent_span_id", TEXT, "16 hex digits; null at the root."),
    _required("kind", TEXT, "`span`, `log`, `span_event`, `pending_span` or `annotation`."),
    _required("level", pa.int32(), "OpenTelemetry severity number, 1-24; 9 (info) when unset, 17 on an error status."),
    _required("span_name", TEXT, "Span name; a log's event name or body."),
    _required("message", TEXT, "Attribute `logfire.msg`, else the span name or log body."),
    _optional("is_exception", pa.bool_(), "True when the record carries an exception."),
    _optional("exception_type", TEXT, "`exception.type` of the first exception event."),
    _optional("exception_message", TEXT, "`exception.message` of the first exception event."),
    _optional("exception_stacktrace", TEXT, "`exception.stacktrace` of the first exception event."),
    _optional("tags", TEXTS, "Attribute `logfire.tags`; empty when there are none."),
    _optional("attributes", TEXT, "Attributes, JSON object, without those that became columns of their own."),
    _optional("attributes_json_schema", TEXT, "Attribute `logfire.json_schema`."),
    _optional("otel_events", TEXT, "Span events, JSON array."),
    _optional("otel_links", TEXT, "Span links, JSON array."),
    _optional("otel_status_code", TEXT, "`UNSET`, `OK` or `ERROR`; null for logs."),
    _optional("otel_status_message", TEXT, "Status description."),
    *_ORIGIN,
    _optional(
        "http_response_status_code", pa.int64(), "HTTP response status.",
        "http.response.status_code", "http.status_code",
    ),
    _optional("http_method", TEXT, "HTTP request method.", "http.method", "http.request.method"),
    _optional("http_route", TEXT, "Route template.", "http.route"),
    _optional("url_path", TEXT, "URL path.", "url.path"),
    _optional("url_query", TEXT, "URL query.", "url.query"),
    _optional("url_full", TEXT, "Whole URL.", "url.full", "http.url"),
    _optional("log_body", TEXT, "A log's body: a string as it is, anything else as JSON."),
    _optional("gen_ai_operation_name", TEXT, "Generative AI operation.", "gen_ai.operation.name"),
    _optional("gen_ai_provider_name", TEXT, "Generative AI provider.", "gen_ai.provider.name", "gen_ai.system"),
    _optional("gen_ai_request_model", TEXT, "Model asked for.", "gen_ai.request.model"),
    _optional("gen_ai_response_model", TEXT, "Model that answered.", "gen_ai.response.model"),
    _optional("gen_ai_response_id", TEXT, "The provider's id of the response.", "gen_ai.response.id"),
    _optional("gen_ai_response_finish_reasons", TEXTS, "Why generation ended.", "gen_ai.response.finish_reasons"),
    _optional("gen_ai_agent_name", TEXT, "Agent.", "gen_ai.agent.name"),
    _optional("gen_ai_conversation_id", TEXT, "Conversation.", "gen_ai.conversation.id"),
    _optional("gen_ai_input_tokens", pa.int64(), "Input tokens.", "gen_ai.usage.input_tokens"),
    _optional("gen_ai_output_tokens", pa.int64(), "Output tokens.", "gen_ai.usage.output_tokens"),
    _optional(
        "gen_ai_cached_tokens", pa.int64(), "Input tokens read from a cache.",
        "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.details.cache_read_tokens",
    ),
    _optional("user_id", TEXT, "User.", "user.id", "enduser.id"),
    _optional("session_id", TEXT, "Session.", "session.id"),
    _optional("cost_reported", pa.float64(), "US dollars the sender computed.", "operation.cost"),
    _optional("cost_computed", pa.float64(), "US dollars computed on arrival; not computed yet."),
    _optional("counted", pa.bool_(), "Whether the row counts in spend; not decided yet."),
    *_EPOCH,
)  # fmt: skip

METRIC_COLUMNS = (
    *_PLACE,
    _required("recorded_timestamp", TIMESTAMP, "Time of the data point; receipt when absent."),
    _optional("start_timestamp", TIMESTAMP, "Start of the data point's interval."),
    _required("recorded_unix_nano", pa.int64(), "recorded_timestamp in nanoseconds since the Unix epoch."),
    _required("metric_name", TEXT, "Metric name."),
    _required("metric_type", TEXT, "`gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`."),
    _required("unit", TEXT, "UCUM unit; empty when absent."),
    _optional("metric_description", TEXT, "Metric description."),
    _optional("aggregation_temporality", TEXT, "`delta` or `cumulative`."),
    _optional("is_monotonic", pa.bool_(), "Whether a sum only grows."),
    _optional("scalar_value", pa.float64(), "Value of a gauge or sum."),
    _optional("scalar_int_value", pa.int64(), "The same as an exact integer, when it was sent as one."),
    _optional("histogram_count", pa.int64(), "Observations of a histogram or summary."),
    _optional("histogram_sum", pa.float64(), "Sum of the observations."),
    _optional("histogram_min", pa.float64(), "Smallest observation."),
    _optional("histogram_max", pa.float64(), "Largest observation."),
    _optional("histogram_bucket_counts", INT64S, "Explicit histogram: observations per bucket."),
    _optional("histogram_explicit_bounds", FLOATS, "Explicit histogram: upper bounds of all buckets but the last."),
    _optional("exp_histogram_scale", pa.int32(), "Exponential histogram: scale; base 2^(2^-scale)."),
    _optional("exp_histogram_zero_count", pa.int64(), "Exponential histogram: observations at zero."),
    _optional("exp_histogram_zero_threshold", pa.float64(), "Exponential histogram: width of the zero bucket."),
    _optional("exp_histogram_positive_bucket_counts", INT64S, "Exponential histogram: positive buckets."),
    _optional("exp_histogram_positive_bucket_counts_offset", pa.int32(), "Index of the first positive bucket."),
    _optional("exp_histogram_negative_bucket_counts", INT64S, "Exponential histogram: negative buckets."),
    _optional("exp_histogram_negative_bucket_counts_offset", pa.int32(), "Index of the first negative bucket."),
    _optional("summary_quantiles", FLOATS, "Summary: quantiles, 0-1."),
    _optional("summary_values", FLOATS, "Summary: value at each quantile."),
    _optional("exemplars", TEXT, "Exemplars, JSON array."),
    _optional("attributes", TEXT, "Data point attributes, JSON object."),
    _optional("attributes_json_schema", TEXT, "Attribute `logfire.json_schema`."),
    *_ORIGIN,
    *_EPOCH,
)  # fmt: skip

DEAD_LETTER_COLUMNS = (
    *_PLACE,
    _required("signal", TEXT, "`traces`, `logs` or `metrics`."),
    _required("encoding", TEXT, "`protobuf` or `json`."),
    _required("reason", TEXT, "Why the record or request could not be decoded."),
    _required("log_position", pa.int64(), "Byte offset of the request in the log."),
    _optional("record_index", pa.int32(), "Number of the record in the request; null for the whole request."),
    _optional("service_name", TEXT, "Resource `service.name` when it could be read."),
    _required("content", pa.binary(), "The record or request as it was received."),
    *_EPOCH,
)  # fmt: skip


EVALUATION_COLUMNS = (
    _required("start_timestamp", TIMESTAMP, "Time of the result."),
    _required("created_at", TIMESTAMP, "Time of receipt."),
    _required("project_id", TEXT, "The project's UUID."),
    _required("service_name", TEXT, "Resource `service.name`."),
    _optional("deployment_environment", TEXT, "Resource `deployment.environment.name`."),
    _required("trace_id", TEXT, "Trace of the call that was evaluated."),
    _optional("span_id", TEXT, "Span of the call that was evaluated."),
    _optional("target", TEXT, "What was evaluated: an agent's or a function's name."),
    _optional("name", TEXT, "Name of the result; of the evaluator when it failed."),
    _optional("version", TEXT, "Version of the evaluator; null when it has none."),
    _required(
        "kind", TEXT,
        "`assertion` (passed or not), `score` (a number), `label` (a text) or `error` (the evaluator failed).",
    ),
    _optional("value", pa.float64(), "The number; 1 and 0 for an assertion."),
    _optional("label", TEXT, "The text; `pass` or `fail` for an assertion."),
    _optional("passed", pa.bool_(), "Whether an assertion passed; null for other kinds."),
    _optional("explanation", TEXT, "The evaluator's reason; for an error its message."),
    _optional("error_type", TEXT, "Type of the exception, for an error."),
    _optional("evaluator_source", TEXT, "The evaluator with its arguments, JSON."),
    _optional("agent_name", TEXT, "Agent whose run it was."),
    _optional("conversation_id", TEXT, "Conversation it was in."),
    _optional(
        "variables", TEXT,
        "Managed variables of the call, JSON object: `name` is the label served, `name.version` its version.",
    ),
    _optional("attributes", TEXT, "All attributes, JSON object."),
)  # fmt: skip

VALUE_PARTS = tuple(
    column for column in METRIC_COLUMNS
    if column.name.startswith(("scalar_", "histogram_", "exp_histogram_", "summary_"))
    or column.name in {"aggregation_temporality", "is_monotonic", "start_timestamp", "recorded_timestamp"}
)  # fmt: skip
"""Columns of `metrics` that `value` holds under their own names."""
VALUE = pa.struct([*((column.name, column.type) for column in VALUE_PARTS), ("series", TEXT)])
"""The type of `value`: a whole data point, so that one argument names it. `series` is an md5 of what identifies it."""


@dataclass(frozen=True, slots=True)
class Table:
    """One Delta table of the lake."""

    name: str
    description: str
    columns: tuple[Column, ...]
    time_column: str
    """The column a query's time bounds act on."""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the Delta table, in column order."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    @property
    def chunk_schema(self) -> pa.Schema:
        """The schema of a Chunk's batch: the table's without `_epoch`, which only a commit knows."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns if c.name != "_epoch"])

    @property
    def statistics_columns(self) -> tuple[str, ...]:
        """The columns whose least and greatest values Delta keeps per file."""
        names = {c.name for c in self.columns}
        wanted = (*STATISTICS_COLUMNS, "recorded_timestamp", "metric_name", "created_at")
        return tuple(name for name in wanted if name in names)


RECORDS = Table("records", "Final spans, logs, span events and annotations.", RECORD_COLUMNS, "start_timestamp")
PENDING_SPANS = Table(
    "pending_spans", "Spans that were started; the final span, when it comes, is in records.",
    RECORD_COLUMNS, "start_timestamp",
)  # fmt: skip
METRICS = Table("metrics", "Metric data points.", METRIC_COLUMNS, "recorded_timestamp")
DEAD_LETTERS = Table("dead_letters", "What was accepted but could not be decoded.", DEAD_LETTER_COLUMNS, "created_at")

TABLES = (RECORDS, PENDING_SPANS, METRICS, DEAD_LETTERS)
"""Every table, the leader of an epoch first."""

_RECORDS_ALL = Table(
    "records_all", "Final records together with the spans that have started.", RECORD_COLUMNS, "start_timestamp"
)
_VALUE_AT = next(place for place, column in enumerate(METRIC_COLUMNS) if column.name == "scalar_value")
_VALUE_COLUMN = _optional("value", VALUE, "The whole data point, which the metric functions take.")
_METRICS = Table(
    "metrics", METRICS.description,
    (*METRIC_COLUMNS[:_VALUE_AT], _VALUE_COLUMN, *METRIC_COLUMNS[_VALUE_AT:]),
    METRICS.time_column,
)  # fmt: skip
EVALUATIONS = Table(
    "evaluations", "Results of online evaluators, read from records.", EVALUATION_COLUMNS, "start_timestamp"
)
VIEWS = {table.name: table for table in (RECORDS, _RECORDS_ALL, _METRICS, EVALUATIONS)}
"""The tables of SQL, with the columns clients see."""

PROMOTED = {c.attribute: c for c in RECORD_COLUMNS if c.attribute}
"""The record columns that are promoted from attributes, by the attributes they come from."""
