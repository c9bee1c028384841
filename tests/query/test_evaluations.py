"""Evaluations: each kind of result reads as what it is."""

import json

import pyarrow as pa
import pytest

from core.schema import RECORDS
from query.session import Session, start_loop
from query.settings import QuerySettings
from query.statements import Statement, Task
from storage.snapshots import Snapshots
from tests.lakes import A, append

LOOP = start_loop()
PREFIX = "gen_ai.evaluation."
RESULTS: dict[str, dict[str, object]] = {
    "passed": {PREFIX + "score.value": 1.0, PREFIX + "score.label": "pass", PREFIX + "explanation": "polite"},
    "failed": {PREFIX + "score.value": 0.0, PREFIX + "score.label": "fail"},
    "score": {PREFIX + "score.value": 0.75},
    "label": {PREFIX + "score.label": "formal"},
    "a label that says pass": {PREFIX + "score.label": "pass"},
    "error": {"error.type": "ValueError", PREFIX + "explanation": "broken", PREFIX + "score.value": 1},
}


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    lake = tmp_path_factory.mktemp("lake")
    common = {
        PREFIX + "target": "answer", PREFIX + "evaluator.version": "2", "logfire.variables.prompt": "prod",
        "logfire.variables.prompt.version": "7",
    }  # fmt: skip
    results = [
        {
            "project_id": A, "kind": "log", "span_name": "gen_ai.evaluation.result", "parent_span_id": "ab" * 8,
            "attributes": json.dumps(common | {PREFIX + "name": name} | attributes),
        }
        for name, attributes in RESULTS.items()
    ]  # fmt: skip
    append(lake, RECORDS, *results, {"project_id": A, "kind": "log", "span_name": "other"})
    snapshot = Snapshots(lake, tmp_path_factory.mktemp("run") / "snapshots").pin("records", A)
    statement = Statement("SELECT * FROM evaluations", A)
    session = Session(Task(statement, {"records": snapshot.path}), QuerySettings(), lake)
    return pa.Table.from_batches(list(session.rows(LOOP, lambda: False)), session.schema)


def test_each_kind_is_told_from_the_others(evaluations: pa.Table) -> None:
    found = {row["name"]: (row["kind"], row["value"], row["label"], row["passed"]) for row in evaluations.to_pylist()}
    assert found == {
        "passed": ("assertion", 1.0, "pass", True),
        "failed": ("assertion", 0.0, "fail", False),
        "score": ("score", 0.75, None, None),
        "label": ("label", None, "formal", None),
        "a label that says pass": ("label", None, "pass", None),
        "error": ("error", 1.0, None, None),
    }


def test_a_result_names_the_call_it_is_about(evaluations: pa.Table) -> None:
    row = next(row for row in evaluations.to_pylist() if row["name"] == "passed")
    assert (row["target"], row["version"], row["span_id"]) == ("answer", "2", "ab" * 8)
    assert json.loads(row["variables"]) == {"prompt": "prod", "prompt.version": "7"}
    assert row["explanation"] == "polite"
    assert evaluations.num_rows == len(RESULTS)
