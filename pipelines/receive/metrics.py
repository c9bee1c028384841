"""Metrics: every data point of every kind becomes a row of `metrics`; summaries too."""

from collections.abc import Iterable, Mapping

from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)

from core.clock import NS_PER_US, at
from core.schema import METRICS
from pipelines.receive.attributes import attributes_json, spelled, text, to_json, values_of
from pipelines.receive.rows import NANO_MAX, Place, Row, Rows, moment

_TEMPORALITY: Mapping[int, str] = {
    AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA: "delta",
    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}
DataPoint = NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint | SummaryDataPoint


def points_of(metric: Metric) -> Iterable[DataPoint]:
    """The data points of a metric."""
    kind = metric.WhichOneof("data")
    return () if kind is None else getattr(metric, kind).data_points


def add_point(rows: Rows, place: Place, origin: Row, metric: Metric, point: DataPoint) -> None:
    """The row of a data point. Raises Undecodable."""
    kind = metric.WhichOneof("data")
    assert kind is not None, "a point has a metric of some kind"
    data = getattr(metric, kind)
    values = values_of(point.attributes)
    recorded = place.began(moment("The data point's time", point.time_unix_nano))
    start = moment("The data point's start", point.start_time_unix_nano)
    row = place.row(origin)
    row |= {
        "recorded_timestamp": recorded // NS_PER_US,
        "recorded_unix_nano": recorded,
        "start_timestamp": start // NS_PER_US if start else None,
        "metric_name": metric.name,
        "metric_type": kind,
        "unit": metric.unit,
        "metric_description": metric.description or None,
        "aggregation_temporality": _TEMPORALITY.get(getattr(data, "aggregation_temporality", 0)),
        "is_monotonic": data.is_monotonic if kind == "sum" else None,
        "attributes": attributes_json(values),
        "attributes_json_schema": text(values.get("logfire.json_schema")),
    }
    exemplars = getattr(point, "exemplars", ())
    if exemplars:
        row["exemplars"] = to_json([_exemplar(exemplar) for exemplar in exemplars])
    match point:
        case NumberDataPoint():
            row |= _number(point)
        case HistogramDataPoint():
            row |= _histogram(point)
        case ExponentialHistogramDataPoint():
            row |= _exponential(point)
        case SummaryDataPoint():
            row |= _summary(point)
    rows.add(METRICS.name, row)


def _number(point: NumberDataPoint) -> Row:
    match point.WhichOneof("value"):
        case "as_int":
            return {"scalar_value": float(point.as_int), "scalar_int_value": point.as_int}
        case "as_double":
            return {"scalar_value": point.as_double}
        case _:
            return {}  # "no recorded value": the series has ended


def _histogram(point: HistogramDataPoint) -> Row:
    return {
        **_distribution(point),
        "histogram_bucket_counts": [_count(count) for count in point.bucket_counts],
        "histogram_explicit_bounds": list(point.explicit_bounds),
    }


def _exponential(point: ExponentialHistogramDataPoint) -> Row:
    return {
        **_distribution(point),
        "exp_histogram_scale": point.scale,
        "exp_histogram_zero_count": _count(point.zero_count),
        "exp_histogram_zero_threshold": point.zero_threshold,
        "exp_histogram_positive_bucket_counts": [_count(count) for count in point.positive.bucket_counts],
        "exp_histogram_positive_bucket_counts_offset": point.positive.offset,
        "exp_histogram_negative_bucket_counts": [_count(count) for count in point.negative.bucket_counts],
        "exp_histogram_negative_bucket_counts_offset": point.negative.offset,
    }


def _distribution(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> Row:
    return {
        "histogram_count": _count(point.count),
        "histogram_sum": point.sum if point.HasField("sum") else None,
        "histogram_min": point.min if point.HasField("min") else None,
        "histogram_max": point.max if point.HasField("max") else None,
    }


def _summary(point: SummaryDataPoint) -> Row:
    return {
        "histogram_count": _count(point.count),
        "histogram_sum": point.sum,
        "summary_quantiles": [value.quantile for value in point.quantile_values],
        "summary_values": [value.value for value in point.quantile_values],
    }


def _count(count: int) -> int:
    """A count; one of more than 63 bits can only be nonsense and is kept as the greatest that fits."""
    return min(count, NANO_MAX)


def _exemplar(exemplar: Exemplar) -> Row:
    value = exemplar.WhichOneof("value")
    return {
        "timestamp": at(exemplar.time_unix_nano).isoformat().replace("+00:00", "Z"),
        "value": None if value is None else exemplar.as_int if value == "as_int" else spelled(exemplar.as_double),
        "trace_id": exemplar.trace_id.hex(),
        "span_id": exemplar.span_id.hex(),
        "attributes": values_of(exemplar.filtered_attributes),
    }
