"""Metrics: the SQL functions over the struct `value` of a data point (core/metrics.py has the arithmetic).

`metric_avg|sum|count|min|max(value)` look at one point; `metric_merge(value)`, `metric_increase(value, time)`,
`metric_rate(value, time)` and `metric_quantile(p, value)` take a group of points together.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from math import nan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import Accumulator, AggregateUDF, Expr, ScalarUDF, col, lit, udaf, udf
from datafusion import functions as f

from core.metrics import Explicit, Exponential, Point, increase, merge, quantile, rate
from core.schema import TIMESTAMP, VALUE, VALUE_PARTS

SERIES = ("metric_name", "service_name", "otel_scope_name", "otel_resource_attributes", "attributes")


def value_column() -> Expr:
    """`value`, made of the columns of `metrics`."""
    parts = [(part.name, col(part.name).cast(part.type)) for part in VALUE_PARTS]
    series = f.md5(f.concat_ws("\n", *(f.coalesce(col(name), lit("")) for name in SERIES)))
    return f.named_struct([*parts, ("series", series.cast(pa.string()))]).alias("value")


@cache
def scalar_functions() -> list[ScalarUDF]:
    """The functions of one point."""
    return [udf(function, [VALUE], kind, "immutable", name) for name, (function, kind) in OF_ONE.items()]


@cache
def aggregate_functions() -> list[AggregateUDF]:
    """The functions of a group of points."""
    return [
        udaf(partial(Points, kind, answer), inputs, kind, [pa.large_binary()], "immutable", name)
        for name, (inputs, kind, answer) in OF_MANY.items()
    ]


def count_of(values: pa.StructArray) -> pa.Array:
    """Observations; a scalar is one."""
    scalar = pc.if_else(pc.is_valid(_scalar(values)), pa.scalar(1, pa.int64()), pa.scalar(None, pa.int64()))
    return pc.coalesce(_field(values, "histogram_count"), scalar)


def sum_of(values: pa.StructArray) -> pa.Array:
    """The observations' sum; a scalar's value."""
    return pc.coalesce(_field(values, "histogram_sum"), _scalar(values))


def average_of(values: pa.StructArray) -> pa.Array:
    """The observations' mean; NULL without any."""
    count = count_of(values)
    return pc.divide(
        sum_of(values), pc.if_else(pc.equal(count, pa.scalar(0)), pa.scalar(None, pa.int64()), count).cast(pa.float64())
    )


def least_of(values: pa.StructArray) -> pa.Array:
    """The smallest observation, when the point says; a scalar's value."""
    return pc.coalesce(_field(values, "histogram_min"), _scalar(values))


def greatest_of(values: pa.StructArray) -> pa.Array:
    """The largest observation, likewise."""
    return pc.coalesce(_field(values, "histogram_max"), _scalar(values))


OF_ONE: Mapping[str, tuple[Callable[[pa.StructArray], pa.Array], pa.DataType]] = {
    "metric_avg": (average_of, pa.float64()),
    "metric_sum": (sum_of, pa.float64()),
    "metric_count": (count_of, pa.int64()),
    "metric_min": (least_of, pa.float64()),
    "metric_max": (greatest_of, pa.float64()),
}


class Points(Accumulator):
    """The arguments of an aggregate, kept until they are asked what they amount to."""

    def __init__(self, kind: pa.DataType, answer: Callable[[pa.RecordBatch], object]) -> None:
        self._kind = kind
        self._answer = answer
        self._kept: list[pa.RecordBatch] = []

    def update(self, *values: pa.Array) -> None:
        """Keep the arguments of more rows."""
        self._kept.append(pa.RecordBatch.from_arrays(list(values), [str(n) for n in range(len(values))]))

    def merge(self, states: list[pa.Array]) -> None:
        """Keep the arguments that other accumulators kept."""
        for state in states[0].drop_null():
            with pa.ipc.open_stream(state.as_buffer()) as stream:
                self._kept += list(stream)

    def state(self) -> list[pa.Scalar]:
        """The arguments as an Arrow IPC stream."""
        sink = pa.BufferOutputStream()
        if self._kept:
            with pa.ipc.new_stream(sink, self._kept[0].schema) as stream:
                for batch in self._kept:
                    stream.write_batch(batch)
        return [pa.scalar(sink.getvalue().to_pybytes() if self._kept else None, pa.large_binary())]

    def evaluate(self) -> pa.Scalar:
        """What they amount to."""
        if not self._kept:
            return pa.scalar(None, self._kind)
        whole = pa.Table.from_batches(self._kept).combine_chunks().to_batches()
        return pa.scalar(self._answer(whole[0]) if whole else None, self._kind)


def _merge(batch: pa.RecordBatch) -> object:
    merged = merge(_points(batch.column(0)))
    return None if merged is None else _to_value(merged)


def _quantile(batch: pa.RecordBatch) -> object:
    p = batch.column(0)[0].as_py()
    return None if p is None else quantile(p, _points(batch.column(1)))


def _increase(batch: pa.RecordBatch) -> object:
    return increase(_points(batch.column(0), batch.column(1)))


def _rate(batch: pa.RecordBatch) -> object:
    return rate(_points(batch.column(0), batch.column(1)))


OF_MANY: Mapping[str, tuple[list[pa.DataType], pa.DataType, Callable[[pa.RecordBatch], object]]] = {
    "metric_merge": ([VALUE], VALUE, _merge),
    "metric_quantile": ([pa.float64(), VALUE], pa.float64(), _quantile),
    "metric_increase": ([VALUE, TIMESTAMP], pa.float64(), _increase),
    "metric_rate": ([VALUE, TIMESTAMP], pa.float64(), _rate),
}


def _field(values: pa.Array, name: str) -> pa.Array:
    return pc.struct_field(values, name)


def _scalar(values: pa.Array) -> pa.Array:
    return _field(values, "scalar_value")


def _points(values: pa.Array, times: pa.Array | None = None) -> list[Point]:
    """The data points of an array of `value`; `times` go before their own."""
    recorded = _field(values, "recorded_timestamp") if times is None else times
    rows = zip(
        values.to_pylist(), _microseconds(recorded), _microseconds(_field(values, "start_timestamp")), strict=True
    )
    return [_point(row, time, start) for row, time, start in rows if row is not None and _is_point(row)]


def _microseconds(times: pa.Array) -> Sequence[int | None]:
    return times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()


def _is_point(row: Mapping[str, Any]) -> bool:
    return row["scalar_value"] is not None or row["histogram_count"] is not None


def _point(row: Mapping[str, Any], time: int | None, start: int | None) -> Point:
    scalar = row["scalar_value"]
    is_scalar = scalar is not None
    temporality = row["aggregation_temporality"]
    total = scalar if is_scalar else row["histogram_sum"]
    return Point(
        count=1 if is_scalar else row["histogram_count"], sum=nan if total is None else total,
        min=scalar if is_scalar else row["histogram_min"], max=scalar if is_scalar else row["histogram_max"],
        buckets=None if is_scalar else _buckets(row), scalar=is_scalar, delta=temporality == "delta",
        cumulative=temporality == "cumulative", monotonic=bool(row["is_monotonic"]), series=row["series"] or "",
        time=time or 0, start=start,
    )  # fmt: skip


def _buckets(row: Mapping[str, Any]) -> Explicit | Exponential | None:
    if row["exp_histogram_scale"] is not None:
        return Exponential(
            row["exp_histogram_scale"], row["exp_histogram_zero_count"] or 0,
            row["exp_histogram_zero_threshold"] or 0.0, _by_index(row, "positive"), _by_index(row, "negative"),
        )  # fmt: skip
    counts = row["histogram_bucket_counts"]
    return Explicit(tuple(row["histogram_explicit_bounds"] or ()), tuple(counts)) if counts else None


def _by_index(row: Mapping[str, Any], sign: str) -> dict[int, int]:
    counts = row[f"exp_histogram_{sign}_bucket_counts"] or ()
    first = row[f"exp_histogram_{sign}_bucket_counts_offset"] or 0
    return {first + place: count for place, count in enumerate(counts) if count}


def _to_value(point: Point) -> dict[str, Any]:
    """A merged point as `value`: what it counts and sums, in the columns of a histogram."""
    row: dict[str, Any] = dict.fromkeys(field.name for field in VALUE)
    row |= {
        "histogram_count": point.count, "histogram_sum": point.sum, "histogram_min": point.min,
        "histogram_max": point.max, "aggregation_temporality": "delta", "start_timestamp": point.start,
        "recorded_timestamp": point.time,
    }  # fmt: skip
    match point.buckets:
        case Explicit(bounds, counts):
            row |= {"histogram_explicit_bounds": list(bounds), "histogram_bucket_counts": list(counts)}
        case Exponential(scale, zeros, threshold, positive, negative):
            row |= {
                "exp_histogram_scale": scale, "exp_histogram_zero_count": zeros,
                "exp_histogram_zero_threshold": threshold, **_counts("positive", positive),
                **_counts("negative", negative),
            }  # fmt: skip
        case None:
            pass
    return row


def _counts(sign: str, buckets: Mapping[int, int]) -> dict[str, object]:
    first = min(buckets, default=0)
    counts = np.zeros(max(buckets, default=-1) + 1 - first if buckets else 0, np.int64)
    for index, count in buckets.items():
        counts[index - first] = count
    return {
        f"exp_histogram_{sign}_bucket_counts": counts.tolist(),
        f"exp_histogram_{sign}_bucket_counts_offset": first,
    }
