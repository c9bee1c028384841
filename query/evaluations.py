"""Evaluations: the results of online evaluators as a table of their own, with named columns.

In:  `records`, of which a result is a log event named `gen_ai.evaluation.result` (OpenTelemetry's semantic conventions
for generative AI; pydantic-evals sends one per result and one per failed evaluator).   Out: a row for each.
"""

from datafusion import DataFrame, Expr, col, lit
from datafusion import functions as f

from core.schema import EVALUATIONS
from query import json_text

EVENT_NAME = "gen_ai.evaluation.result"
PREFIX = "gen_ai.evaluation."
VARIABLES_PREFIX = "logfire.variables."


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
    kept = [name for name in EVALUATIONS.schema.names if name != "project_id"]
    return found.select(*(made[name].alias(name) if name in made else col(name) for name in kept))


def _text(key: str, prefix: str = PREFIX) -> Expr:
    return _get("json_as_text", key, prefix)


def _get(function: str, key: str, prefix: str = PREFIX) -> Expr:
    return _GETTERS[function](col("attributes"), lit(prefix + key))
