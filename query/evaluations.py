"""Evaluations: the results of online evaluators as a table of their own, with named columns.

In:  `records`, of which a result is a log event named `gen_ai.evaluation.result` (OpenTelemetry's semantic conventions
for generative AI; pydantic-evals sends one per result and one per failed evaluator).   Out: a row for each.
"""

import pyarrow as pa
from datafusion import DataFrame, Expr, col, lit
from datafusion import functions as f

from core.schema import TIMESTAMP
from query import json_text

EVENT_NAME = "gen_ai.evaluation.result"
PREFIX = "gen_ai.evaluation."
VARIABLES_PREFIX = "logfire.variables."

DESCRIPTIONS = {
    "start_timestamp": "Time of the result.",
    "created_at": "Time of receipt.",
    "project_id": "The project's UUID.",
    "service_name": "Resource `service.name`.",
    "deployment_environment": "Resource `deployment.environment.name`.",
    "trace_id": "Trace of the call that was evaluated.",
    "span_id": "Span of the call that was evaluated.",
    "target": "What was evaluated: an agent's or a function's name.",
    "name": "Name of the result; of the evaluator when it failed.",
    "version": "Version of the evaluator; null when it has none.",
    "kind": "`assertion` (passed or not), `score` (a number), `label` (a text) or `error` (the evaluator failed).",
    "value": "The number; 1 and 0 for an assertion.",
    "label": "The text; `pass` or `fail` for an assertion.",
    "passed": "Whether an assertion passed; null for other kinds.",
    "explanation": "The evaluator's reason; for an error its message.",
    "error_type": "Type of the exception, for an error.",
    "evaluator_source": "The evaluator with its arguments, JSON.",
    "agent_name": "Agent whose run it was.",
    "conversation_id": "Conversation it was in.",
    "variables": "Managed variables of the call, JSON object: `name` is the label served, `name.version` its version.",
    "attributes": "All attributes, JSON object.",
}
_TYPES = {"start_timestamp": TIMESTAMP, "created_at": TIMESTAMP, "value": pa.float64(), "passed": pa.bool_()}
_REQUIRED = frozenset({"start_timestamp", "created_at", "project_id", "service_name", "trace_id", "kind"})
SCHEMA = pa.schema([pa.field(name, _TYPES.get(name, pa.string()), name not in _REQUIRED) for name in DESCRIPTIONS])
"""The columns clients see."""

_GETTERS = {function.name: function for function in json_text.functions()}


def of_records(records: DataFrame) -> DataFrame:
    """The evaluations among the records."""
    found = records.filter((col("kind") == lit("log")) & (col("span_name") == lit(EVENT_NAME)))
    value, label, error = _get("json_get_float", "score.value"), _text("score.label"), _text("error.type", "")
    is_assertion = value.is_not_null() & f.in_list(label, [lit("pass"), lit("fail")])
    kind = (
        f.when(error.is_not_null(), lit("error")).when(is_assertion, lit("assertion"))
        .when(value.is_not_null(), lit("score")).otherwise(lit("label"))
    )  # fmt: skip
    made = {
        "span_id": col("parent_span_id"),
        "target": _text("target"),
        "name": _text("name"),
        "version": _text("evaluator.version"),
        "kind": kind,
        "value": value,
        "label": label,
        "passed": f.when(error.is_null() & is_assertion, label == lit("pass")).end(),
        "explanation": _text("explanation"),
        "error_type": error,
        "evaluator_source": _text("evaluator.source"),
        "agent_name": col("gen_ai_agent_name"),
        "conversation_id": col("gen_ai_conversation_id"),
        "variables": _GETTERS["json_members"](col("attributes"), lit(VARIABLES_PREFIX)),
    }
    return found.select(
        *(made[name].alias(name) if name in made else col(name) for name in DESCRIPTIONS if name != "project_id")
    )


def _text(key: str, prefix: str = PREFIX) -> Expr:
    return _get("json_as_text", key, prefix)


def _get(function: str, key: str, prefix: str = PREFIX) -> Expr:
    return _GETTERS[function](col("attributes"), lit(prefix + key))
