"""The SQL functions that DataFusion lacks, made known to a session: JSON text, levels, metrics.

Each is a table of names in the module that owns the noun; this is where they meet.
"""

import pyarrow as pa
from datafusion import SessionContext, udf

from core.levels import level_name, level_number
from query import json_text, metrics


def register(context: SessionContext) -> None:
    """Make the functions known to a session."""
    for function in (*json_text.functions(), *metrics.scalar_functions(), LEVEL_NUM, LEVEL_NAME):
        context.register_udf(function)
    for aggregate in metrics.aggregate_functions():
        context.register_udaf(aggregate)


def _level_num(names: pa.Array) -> pa.Array:
    known = {name: level_number(name) for name in names.unique().to_pylist() if name is not None}
    return pa.array([known.get(name) for name in names.to_pylist()], pa.int32())


def _level_name(numbers: pa.Array) -> pa.Array:
    known = {number: level_name(number) for number in numbers.unique().to_pylist() if number is not None}
    return pa.array([known.get(number) for number in numbers.to_pylist()], pa.string())


LEVEL_NUM = udf(_level_num, [pa.string()], pa.int32(), "immutable", "level_num")
"""The severity number of a level's name."""
LEVEL_NAME = udf(_level_name, [pa.int64()], pa.string(), "immutable", "level_name")
"""The name of a severity number."""
