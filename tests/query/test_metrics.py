"""Metrics in SQL: the functions over `value` say what the points say."""

from pathlib import Path

import pytest

from core.schema import METRICS
from query.session import Session, start_loop
from query.settings import QuerySettings
from query.statements import Statement, Task
from storage.snapshots import Snapshots
from tests.lakes import MOMENT, A, append

LOOP = start_loop()


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("lake")
    deltas = [
        {
            "project_id": A, "metric_name": "requests", "metric_type": "sum", "scalar_value": float(n),
            "aggregation_temporality": "delta", "is_monotonic": True, "start_timestamp": MOMENT.replace(second=n),
            "recorded_timestamp": MOMENT.replace(second=n + 1),
        }
        for n in range(5)
    ]  # fmt: skip
    totals = [
        {
            "project_id": A, "metric_name": "bytes", "metric_type": "sum", "scalar_value": float(value),
            "aggregation_temporality": "cumulative", "is_monotonic": True, "service_name": service,
            "recorded_timestamp": MOMENT.replace(second=second),
        }
        for service, second, value in (("a", 0, 100), ("b", 0, 1), ("a", 10, 130), ("b", 10, 3), ("a", 20, 20))
    ]  # fmt: skip
    histograms = [
        {
            "project_id": A, "metric_name": "duration", "metric_type": "histogram", "histogram_count": 10,
            "histogram_sum": 55.0, "histogram_min": 1.0, "histogram_max": 10.0,
            "histogram_bucket_counts": [2, 2, 2, 2, 2], "histogram_explicit_bounds": [2.0, 4.0, 6.0, 8.0],
            "aggregation_temporality": "delta",
        },
        {
            "project_id": A, "metric_name": "duration", "metric_type": "exponential_histogram", "histogram_count": 3,
            "histogram_sum": 9.0, "exp_histogram_scale": 0, "exp_histogram_positive_bucket_counts": [3],
            "exp_histogram_positive_bucket_counts_offset": 1, "aggregation_temporality": "delta",
        },
    ]  # fmt: skip
    append(lake, METRICS, *deltas, *totals, *histograms)
    return Snapshots(lake, tmp_path_factory.mktemp("run") / "snapshots").pin("metrics", A).path


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("metric_increase(value, recorded_timestamp) FROM metrics WHERE metric_name = 'requests'", 10.0),
        ("metric_rate(value, recorded_timestamp) FROM metrics WHERE metric_name = 'requests'", 2.0),
        ("metric_increase(value, recorded_timestamp) FROM metrics WHERE metric_name = 'bytes'", 30.0 + 2 + 20),
        ("metric_sum(metric_merge(value)) FROM metrics WHERE metric_name = 'bytes'", 20.0 + 3),
        ("metric_count(metric_merge(value)) FROM metrics WHERE metric_name = 'duration'", 13),
        ("metric_avg(metric_merge(value)) FROM metrics WHERE metric_name = 'duration'", 64 / 13),
        ("metric_max(metric_merge(value)) FROM metrics WHERE metric_name = 'duration'", 10.0),
        ("sum(metric_count(value)) FROM metrics WHERE metric_name = 'duration'", 13),
        ("metric_quantile(0.5, value) FROM metrics WHERE metric_type = 'histogram'", 5.0),
        ("metric_quantile(1, value) FROM metrics WHERE metric_type = 'exponential_histogram'", 4.0),
        ("metric_quantile(0.5, value) FROM metrics WHERE metric_name = 'requests'", 2.0),
        ("metric_quantile(0.5, value) FROM metrics WHERE metric_name = 'none'", None),
        ("metric_merge(value)['exp_histogram_scale'] FROM metrics WHERE metric_type = 'exponential_histogram'", 0),
    ],
)
def test_a_group_of_points_amounts_to(snapshot: Path, sql: str, expected: object) -> None:
    session = Session(Task(Statement(f"SELECT {sql}", A), {"metrics": snapshot}), QuerySettings(), snapshot.parent)
    (batch,) = [batch for batch in session.rows(LOOP, lambda: False) if batch.num_rows]
    assert batch.column(0)[0].as_py() == pytest.approx(expected)
