"""Metrics: quantiles and sums against what numpy says of the observations themselves."""

from itertools import accumulate
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.metrics import BUCKETS_MAX, Explicit, Exponential, Point, increase, merge, quantile, rate

OBSERVED = st.lists(st.floats(0.001, 10_000), min_size=1, max_size=200)
SHARES = st.floats(0, 1)
BOUNDS = (1.0, 10.0, 100.0, 1000.0)


def scalar(value: float, **given: object) -> Point:
    return Point(1, value, scalar=True, **given)  # pyright: ignore[reportArgumentType]  # fields of a point


def exponential(values: list[float], scale: int) -> Point:
    counts: dict[int, int] = {}
    for value in values:
        index = ceil(log2(value) * 2.0**scale) - 1
        counts[index] = counts.get(index, 0) + 1
    return Point(len(values), sum(values), min(values), max(values), Exponential(scale, 0, 0.0, counts, {}))


def explicit(values: list[float], bounds: tuple[float, ...] = BOUNDS) -> Point:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[int(np.searchsorted(bounds, value))] += 1
    return Point(len(values), sum(values), min(values), max(values), Explicit(bounds, tuple(counts)))


def ranked(values: list[float], p: float) -> float:
    """The least value that a share `p` does not exceed."""
    return sorted(values)[max(ceil(p * len(values) - 1e-9) - 1, 0)]


@given(OBSERVED, SHARES)
def test_the_quantile_of_scalars_is_exact(values: list[float], p: float) -> None:
    assert quantile(p, [scalar(value) for value in values]) == pytest.approx(np.quantile(values, p))


@given(OBSERVED, SHARES, st.integers(3, 6), st.integers(3, 6))
def test_the_quantile_of_exponential_histograms_is_within_a_bucket(
    values: list[float], p: float, scale: int, other: int
) -> None:
    half = len(values) // 2
    points = [exponential(part, s) for part, s in ((values[:half], scale), (values[half:], other)) if part]
    error = 2.0 ** (2.0 ** -min(scale, other))
    found = quantile(p, points)
    assert found is not None
    assert ranked(values, p) / error * (1 - 1e-9) <= found <= ranked(values, p) * error * (1 + 1e-9)


@given(OBSERVED, SHARES)
def test_the_quantile_of_explicit_histograms_is_in_the_right_bucket(values: list[float], p: float) -> None:
    found, exact = quantile(p, [explicit(values)]), ranked(values, p)
    assert found is not None
    edges = (0.0, *BOUNDS, float("inf"))
    place = int(np.searchsorted(BOUNDS, exact))
    assert edges[place] <= found * (1 + 1e-9)
    assert found <= edges[place + 1] * (1 + 1e-9)


@given(OBSERVED, OBSERVED, st.integers(-2, 5), st.integers(-2, 5))
def test_merged_exponential_histograms_count_the_same(a: list[float], b: list[float], s: int, t: int) -> None:
    merged = merge([exponential(a, s), exponential(b, t)])
    assert merged is not None
    assert merged.buckets == exponential(a + b, min(s, t)).buckets
    assert (merged.count, merged.min, merged.max) == (len(a + b), min(a + b), max(a + b))


def test_merged_explicit_histograms_keep_the_bounds_they_share() -> None:
    merged = merge([explicit([0.5, 5, 50], (1.0, 10.0)), explicit([0.5, 70], (10.0, 60.0))])
    assert merged is not None
    assert merged.buckets == Explicit((10.0,), (3, 2))


def test_histograms_of_two_kinds_keep_their_sums() -> None:
    merged = merge([explicit([1.0]), exponential([2.0], 3)])
    assert merged is not None
    assert (merged.count, merged.sum, merged.buckets) == (2, 3.0, None)


@pytest.mark.parametrize("indexes", [(-(2**31), 2**31), (0, 10 * BUCKETS_MAX)])
def test_buckets_far_apart_are_made_coarse(indexes: tuple[int, int]) -> None:
    buckets = Exponential(20, 0, 0.0, dict.fromkeys(indexes, 1), {})
    merged = merge([Point(2, 1.0, buckets=buckets)])
    assert merged is not None
    assert isinstance(merged.buckets, Exponential)
    assert max(merged.buckets.positive) - min(merged.buckets.positive) <= BUCKETS_MAX
    assert quantile(0.5, [Point(2, 1.0, buckets=buckets)]) is not None


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=30))
def test_the_increase_of_a_running_total_is_that_of_its_deltas(deltas: list[float]) -> None:
    totals = list(accumulate(deltas))
    running = [
        scalar(total, delta=False, cumulative=True, monotonic=True, time=n * 1_000_000)
        for n, total in enumerate(totals)
    ]
    assert increase(running) == pytest.approx(sum(deltas[1:]))
    assert rate(running) == pytest.approx(sum(deltas[1:]) / (len(deltas) - 1))
    merged = merge(running)
    assert merged is not None
    assert merged.sum == totals[-1]


def test_a_restart_is_seen_and_counts_in_full() -> None:
    totals = [5, 8, 2, 3]
    points = [
        scalar(total, delta=False, cumulative=True, monotonic=True, time=n, series="a")
        for n, total in enumerate(totals)
    ]
    assert increase(points) == 3 + 2 + 1


def test_series_are_kept_apart() -> None:
    points = [
        scalar(value, delta=False, cumulative=True, monotonic=True, time=time, series=series)
        for series, time, value in (("a", 0, 100), ("b", 1, 3), ("a", 2, 110), ("b", 3, 4))
    ]
    assert increase(points) == 11


def test_a_gauge_may_shrink() -> None:
    assert increase([scalar(value, delta=False, time=n) for n, value in enumerate((5, 9, 3))]) == -2


def test_a_rate_needs_time() -> None:
    assert rate([scalar(6, start=1_000_000, time=4_000_000, monotonic=True)]) == 2
    assert rate([scalar(6, time=4_000_000)]) is None
    assert (increase([]), rate([]), merge([]), quantile(0.5, [])) == (None, None, None, None)


def test_cumulative_histograms_count_what_came_between() -> None:
    first, last = explicit([5.0] * 10), explicit([5.0] * 10 + [500.0] * 10)
    points = [
        Point(p.count, p.sum, buckets=p.buckets, delta=False, cumulative=True, time=n)
        for n, p in enumerate((first, last))
    ]
    found = quantile(0.5, points)
    assert found is not None
    assert found >= 100
    assert (quantile(0.5, points[:1]) or 0) <= 10


def test_a_quantile_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile(1.5, [scalar(1)])
