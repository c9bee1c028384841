"""The page on SQL is true: every statement on it runs, every expression gives what it says, every function is on it."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from core.schema import METRICS, PENDING_SPANS, RECORDS, TABLES
from query.diagnostics import FUNCTIONS
from query.session import Session, start_loop
from query.settings import QuerySettings
from query.statements import Statement, Task
from query.tables import SOURCES
from storage.snapshots import Snapshots
from tests.lakes import A, append

PAGE = (Path(__file__).parents[1] / "docs" / "sql.md").read_text("utf-8")
LOOP = start_loop()
STATEMENTS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
EXPRESSIONS = re.findall(r"^\| `([^`]+)` \|[^|]*\| (?:`([^`]*)` )?\|$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    lake = tmp_path_factory.mktemp("lake")
    append(lake, RECORDS, {"project_id": A, "attributes": '{"http.route": "/"}', "http_route": "/", "level": 9})
    append(lake, PENDING_SPANS, {"project_id": A, "kind": "pending_span"})
    append(lake, METRICS, *({"project_id": A, "metric_name": name, "scalar_value": 1.5} for name in ("requests", "m")))
    made = Snapshots(lake, tmp_path_factory.mktemp("run") / "snapshots")
    return {table.name: made.pin(table.name, A).path for table in TABLES}


def rows(snapshots: dict[str, Path], sql: str) -> pa.Table:
    session = Session(Task(Statement(sql, A), snapshots), QuerySettings(), Path(snapshots["records"]).parent)
    return pa.Table.from_batches(list(session.rows(LOOP, lambda: False)), session.schema)


@pytest.mark.parametrize("sql", STATEMENTS)
def test_every_statement_runs(snapshots: dict[str, Path], sql: str) -> None:
    assert rows(snapshots, sql).num_columns


@pytest.mark.parametrize(("expression", "result"), EXPRESSIONS)
def test_every_expression_gives_what_it_says(snapshots: dict[str, Path], expression: str, result: str) -> None:
    (row,) = rows(snapshots, f"SELECT {expression}").to_pylist()
    (value,) = row.values()
    assert shown(value) == result


def shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(str, value))}]"
        case _:
            return str(value)


def test_every_function_and_table_is_on_it() -> None:
    assert len(EXPRESSIONS) > 30
    for name in (*FUNCTIONS, *SOURCES):
        assert name in PAGE, name
