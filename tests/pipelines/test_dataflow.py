"""The dataflow moves every portion through every step, in order, and ends when told to."""

import threading

from bytewax.testing import run_main

from core.telemetry import Chunk
from pipelines.dataflow import Portion, Steps, build


def test_every_portion_is_committed_in_order_until_the_log_ends() -> None:
    stop, committed = threading.Event(), list[tuple[int, int]]()

    def read(position: int) -> Portion | None:
        if position >= 500:
            stop.set()
            return None
        return Portion(position, position + 10, [])

    steps = Steps(
        read=read,
        skip_repeats=lambda portion: portion,
        decode=lambda portion: Chunk(portion.start, portion.end, {}),
        commit=lambda chunk: committed.append((chunk.start, chunk.end)),
    )
    run_main(build(steps, 100, stop))
    assert committed == [(start, start + 10) for start in range(100, 500, 10)]


def test_what_arrives_after_the_stop_was_asked_for_is_still_read() -> None:
    stop, committed = threading.Event(), list[int]()
    stop.set()
    steps = Steps(
        read=lambda position: Portion(position, position + 1, []) if position < 3 else None,
        skip_repeats=lambda portion: portion,
        decode=lambda portion: Chunk(portion.start, portion.end, {}),
        commit=lambda chunk: committed.append(chunk.start),
    )
    run_main(build(steps, 0, stop))
    assert committed == [0, 1, 2]
