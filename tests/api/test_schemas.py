"""The tables as HTTP clients are told of them."""

from pathlib import Path

from fastapi.testclient import TestClient

from api.app import create_app
from api.health import Health
from core.clock import SystemClock
from core.schema import VIEWS
from query.transport import QueryClient
from storage.keys import open_keys


def test_every_table_has_its_columns(tmp_path: Path) -> None:
    ledger = f"sqlite+aiosqlite:///{tmp_path / 'ledger.sqlite3'}"
    with open_keys(ledger, open_to_all=True, operator_token=None, clock=SystemClock()) as keys:
        engine = QueryClient(tmp_path / "nobody.sock")
        app = create_app(keys, engine, lambda: Health("ok", {}), otlp_http_port=4318)
        tables = TestClient(app, base_url="http://127.0.0.1:8000").get("/v1/schemas").json()["tables"]
    assert {table["name"]: list(table["schema"]) for table in tables} == {
        name: view.schema.names for name, view in VIEWS.items()
    }
    records = next(table["schema"] for table in tables if table["name"] == "records")
    types = {name: records[name]["data_type"] for name in ("start_timestamp", "tags", "attributes", "level", "day")}
    assert types == {
        "start_timestamp": "TIMESTAMP WITH TIME ZONE", "tags": "TEXT[]", "attributes": "JSON", "level": "INTEGER",
        "day": "DATE",
    }  # fmt: skip
    assert all(column["description"] for column in records.values())
