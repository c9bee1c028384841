"""Metrics: what data points of one group amount to, whether they are scalars or histograms, deltas or running totals.

In:  data points of OpenTelemetry's metrics data model.   Out: their sum, increase, or a quantile. Exponential
histograms are merged at the coarser scale and explicit ones at the bounds they share, both of which is exact.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from math import inf, isnan, nan

import numpy as np

BUCKETS_MAX = 1_024
"""Exponential buckets of one sign that a merged point has at most; beyond it its scale is made coarser."""
EXPONENT_MAX = 1_023.0
"""Powers of two beyond it are no doubles; bounds of buckets stop there."""


@dataclass(frozen=True, slots=True)
class Explicit:
    """Buckets with upper bounds: `counts` has one more than `bounds`, for what lies above them all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exponential:
    """Buckets (base^i, base^(i+1)] with base 2^(2^-scale), of positive and of mirrored negative values."""

    scale: int
    zero_count: int
    zero_threshold: float
    positive: dict[int, int]
    """Counts by bucket index; absent ones are 0."""
    negative: dict[int, int]


@dataclass(frozen=True, slots=True)
class Point:
    """One data point, or several merged."""

    count: int
    sum: float
    min: float | None = None
    max: float | None = None
    buckets: Explicit | Exponential | None = None
    scalar: bool = False
    """Whether it is a gauge's or sum's single value, which is `sum`."""
    delta: bool = True
    """Whether it holds what came since the point before."""
    cumulative: bool = False
    """Whether it holds all since the start of its series; a gauge is neither."""
    monotonic: bool = False
    series: str = ""
    """Whose point it is: equal for points of one metric, resource, scope and set of attributes."""
    time: int = 0
    """Microseconds since the Unix epoch."""
    start: int | None = None
    """Begin of what it covers, likewise."""


def merge(points: Sequence[Point]) -> Point | None:
    """One point for all: deltas and gauges are added up, of each cumulative series the last point counts."""
    latest = {point.series: point for point in sorted(points, key=_time) if point.cumulative}
    return _total([*latest.values(), *(point for point in points if not point.cumulative)])


def increase(points: Sequence[Point]) -> float | None:
    """How much a counter has grown: the deltas, and for each cumulative series its growth from point to point.

    After a restart, seen by a new start or a fall, a running total counts in full. A series that is not monotonic
    (a gauge, an up-down counter) may shrink. Histograms count their observations' sum.
    """
    if not points:
        return None
    return sum(point.sum for point in _increments(points))


def rate(points: Sequence[Point]) -> float | None:
    """The increase per second of the time the points cover; None when they cover none."""
    if not points:
        return None
    deltas = [point.start for point in points if point.delta and point.start is not None]
    span_us = max(point.time for point in points) - min([*deltas, *(point.time for point in points)])
    total = increase(points)
    return None if span_us <= 0 or total is None else total / (span_us / 1_000_000)


def quantile(p: float, points: Sequence[Point]) -> float | None:
    """The value that a share `p` (0-1) of the observations do not exceed; None without observations.

    Scalars are observations themselves, interpolated as percentile_cont does; inside a bucket observations are taken
    to be spread evenly. Of cumulative histograms, what came between the points counts; of a lone one, all.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {p}")
    if all(point.scalar for point in points):
        values = [point.sum for point in points if not isnan(point.sum)]
        return float(np.quantile(values, p)) if values else None
    alone = {series for series, ours in _by_series(points) if len(ours) == 1}
    seen = _increments([point for point in points if point.scalar is False and point.series not in alone])
    seen += [point for point in points if point.series in alone or point.scalar]
    pieces = [piece for point in seen for piece in _pieces(point)]
    return _inverse(p, np.array(pieces)) if pieces else None


def _time(point: Point) -> int:
    return point.time


def _by_series(points: Iterable[Point]) -> list[tuple[str, list[Point]]]:
    ordered = sorted(points, key=lambda point: (point.series, point.time))
    return [(series, list(ours)) for series, ours in groupby(ordered, key=lambda point: point.series)]


def _increments(points: Sequence[Point]) -> list[Point]:
    """What was added: deltas as they are, and the steps between the points of each other series."""
    running = [point for point in points if not point.delta]
    steps = [point for point in points if point.delta]
    for _, ours in _by_series(running):
        steps += [_step(before, after) for before, after in pairwise(ours)]
    return steps


def _step(before: Point, after: Point) -> Point:
    fell = after.count < before.count or (after.scalar and after.monotonic and after.sum < before.sum)
    restarted = None not in (after.start, before.start) and after.start != before.start
    if after.cumulative and (fell or restarted):
        return replace(after, cumulative=False, delta=True)
    return replace(
        after, count=after.count if after.scalar else after.count - before.count, sum=after.sum - before.sum,
        buckets=_difference(before.buckets, after.buckets), cumulative=False, delta=True,
    )  # fmt: skip


def _total(points: Sequence[Point]) -> Point | None:
    if not points:
        return None
    return Point(
        count=sum(point.count for point in points), sum=sum(point.sum for point in points),
        min=min((point.min for point in points if point.min is not None), default=None),
        max=max((point.max for point in points if point.max is not None), default=None),
        buckets=_sum_of([point.buckets for point in points]),
        time=max(point.time for point in points),
        start=min((point.start for point in points if point.start is not None), default=None),
    )  # fmt: skip


def _sum_of(buckets: Sequence[Explicit | Exponential | None]) -> Explicit | Exponential | None:
    """All buckets in one; None when they are of different kinds, or there are none."""
    exponential = [each for each in buckets if isinstance(each, Exponential)]
    explicit = [each for each in buckets if isinstance(each, Explicit)]
    if len(exponential) == len(buckets) and exponential:
        return _sum_of_exponential(exponential)
    if len(explicit) == len(buckets) and explicit:
        shared = set(explicit[0].bounds).intersection(*(each.bounds for each in explicit))
        bounds = tuple(sorted(shared))
        counts = np.sum([_at_bounds(each, bounds).counts for each in explicit], axis=0)
        return Explicit(bounds, tuple(int(count) for count in counts))
    return None


def _sum_of_exponential(buckets: Sequence[Exponential]) -> Exponential:
    scale = min(each.scale for each in buckets)
    spans = [
        (max(counts) - min(counts)) >> (each.scale - scale)
        for each in buckets
        for counts in (each.positive, each.negative)
        if counts
    ]
    scale -= max(0, (max(spans, default=0) // BUCKETS_MAX).bit_length())
    positive, negative = dict[int, int](), dict[int, int]()
    for each in buckets:
        for counts, total in ((each.positive, positive), (each.negative, negative)):
            for index, count in counts.items():
                coarse = index >> (each.scale - scale)
                total[coarse] = total.get(coarse, 0) + count
    zeros = sum(each.zero_count for each in buckets)
    return Exponential(scale, zeros, max(each.zero_threshold for each in buckets), positive, negative)


def _at_bounds(buckets: Explicit, bounds: tuple[float, ...]) -> Explicit:
    """The same observations with fewer bounds."""
    counts = [0] * (len(bounds) + 1)
    places = np.searchsorted(bounds, buckets.bounds) if bounds else np.zeros(len(buckets.bounds), int)
    for place, count in zip([*places, len(bounds)], buckets.counts, strict=True):
        counts[place] += count
    return Explicit(bounds, tuple(counts))


def _difference(
    before: Explicit | Exponential | None, after: Explicit | Exponential | None
) -> Explicit | Exponential | None:
    if isinstance(before, Explicit) and isinstance(after, Explicit) and before.bounds == after.bounds:
        counts = (max(b - a, 0) for a, b in zip(before.counts, after.counts, strict=True))
        return Explicit(after.bounds, tuple(counts))
    if isinstance(before, Exponential) and isinstance(after, Exponential):
        less = replace(
            before, zero_count=-before.zero_count, positive={i: -n for i, n in before.positive.items()},
            negative={i: -n for i, n in before.negative.items()},
        )  # fmt: skip
        step = _sum_of_exponential([after, less])
        return replace(
            step, zero_count=max(step.zero_count, 0), positive={i: n for i, n in step.positive.items() if n > 0},
            negative={i: n for i, n in step.negative.items() if n > 0},
        )  # fmt: skip
    return after


def _pieces(point: Point) -> list[tuple[float, float, float]]:
    """Intervals (from, to, observations); from = to for observations at one value."""
    if point.scalar:
        return [] if isnan(point.sum) else [(point.sum, point.sum, 1.0)]
    match point.buckets:
        case Explicit():
            pieces = _explicit_pieces(point, point.buckets)
        case Exponential():
            pieces = _exponential_pieces(point.buckets)
        case None:
            mean = point.sum / point.count if point.count else nan
            pieces = [] if isnan(mean) else [(mean, mean, float(point.count))]
    least, most = -inf if point.min is None else point.min, inf if point.max is None else point.max
    return [(_clip(low, least, most), _clip(high, least, most), weight) for low, high, weight in pieces]


def _explicit_pieces(point: Point, buckets: Explicit) -> list[tuple[float, float, float]]:
    bounds = buckets.bounds
    if not bounds:
        least = point.min if point.min is not None else point.sum / max(point.count, 1)
        most = point.max if point.max is not None else least
        return [(least, most, float(count)) for count in buckets.counts if count]
    lowest = point.min if point.min is not None else min(0.0, bounds[0])
    highest = point.max if point.max is not None else bounds[-1]
    edges = (min(lowest, bounds[0]), *bounds, max(highest, bounds[-1]))
    return [(*edge, float(count)) for edge, count in zip(pairwise(edges), buckets.counts, strict=True) if count]


def _exponential_pieces(buckets: Exponential) -> list[tuple[float, float, float]]:
    step = 2.0**-buckets.scale
    pieces = [(_power(i * step), _power((i + 1) * step), float(n)) for i, n in buckets.positive.items() if n]
    pieces += [(-_power((i + 1) * step), -_power(i * step), float(n)) for i, n in buckets.negative.items() if n]
    if buckets.zero_count:
        pieces.append((-buckets.zero_threshold, buckets.zero_threshold, float(buckets.zero_count)))
    return pieces


def _power(exponent: float) -> float:
    return 2.0 ** _clip(exponent, -EXPONENT_MAX, EXPONENT_MAX)


def _clip(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def _inverse(p: float, pieces: np.ndarray) -> float:
    """Where the cumulative distribution of the pieces reaches `p`."""
    low, high, weight = pieces.T
    edges = np.unique(np.concatenate([low, high]))
    flat = low == high
    jump = np.zeros(len(edges))
    np.add.at(jump, np.searchsorted(edges, low[flat]), weight[flat])
    slope = np.zeros(len(edges))
    density = weight[~flat] / (high[~flat] - low[~flat])
    np.add.at(slope, np.searchsorted(edges, low[~flat]), density)
    np.add.at(slope, np.searchsorted(edges, high[~flat]), -density)
    slope = np.cumsum(slope)[:-1]
    growth = slope * np.diff(edges)
    before = np.cumsum(jump) + np.concatenate([[0.0], np.cumsum(growth)])  # up to and with each edge
    target = p * weight.sum()
    place = int(np.searchsorted(before, target * (1 - 1e-12)))
    if place >= len(edges):
        return float(edges[-1])
    missing = (before[place] - jump[place]) - target
    if place == 0 or missing <= 0 or slope[place - 1] <= 0:
        return float(edges[place]) + 0.0  # no negative zero
    return float(edges[place] - missing / slope[place - 1])
