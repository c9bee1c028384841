"""The clients people have: each sees the same rows with the same values."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import logfire.db_api
import pandas as pd
import polars as pl
import pytest
import requests
from deltalake import DeltaTable
from logfire.query_client import AsyncLogfireQueryClient, QueryExecutionError

from tests.acceptance.servers import Server
from tests.acceptance.test_crashes import spans_body

pytestmark = [pytest.mark.xdist_group("server"), pytest.mark.filterwarnings("ignore")]  # clients' own warnings
SINCE = datetime(2020, 1, 1, tzinfo=UTC)
IDS = [f"{number:016x}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def name(server: Server) -> str:
    """A span name that five spans have."""
    name = f"client-{uuid.uuid4().hex[:8]}"
    headers = {"content-type": "application/json", "authorization": "local"}
    body = spans_body(IDS, name=name)
    assert requests.post(f"{server.url}/v1/traces", data=body, headers=headers, timeout=20).status_code == 200
    server.wait_for_rows(f"SELECT 1 FROM records WHERE span_name = '{name}'", len(IDS))
    return name


def adbc(server: Server, sql: str) -> list[str]:
    return list(map(str, server.query(sql).column(0).to_pylist()))


def pandas_over_adbc(server: Server, sql: str) -> list[str]:
    with flightsql.connect(server.flight, autocommit=True) as connection:
        return pd.read_sql(sql, connection)["span_id"].tolist()  # pyright: ignore[reportArgumentType]  # any DB-API connection will do


def polars_over_adbc(server: Server, sql: str) -> list[str]:
    with flightsql.connect(server.flight, autocommit=True) as connection:
        return pl.read_database(sql, connection)["span_id"].to_list()


def polars_by_uri(server: Server, sql: str) -> list[str]:
    uri = server.flight.replace("grpc://", "flightsql://") + "?transport=tcp"
    return pl.read_database_uri(sql, uri, engine="adbc")["span_id"].to_list()


def pandas_over_logfires_db_api(server: Server, sql: str) -> list[str]:
    with logfire.db_api.connect(read_token="local", base_url=server.url) as connection:
        return pd.read_sql(sql, connection)["span_id"].tolist()  # pyright: ignore[reportArgumentType]  # any DB-API connection will do


def logfires_async_client(server: Server, sql: str) -> list[str]:
    async def ask() -> list[list[str]]:
        async with AsyncLogfireQueryClient("local", base_url=server.url) as client:
            rows = await client.query_json_rows(sql, min_timestamp=SINCE)
            arrow = await client.query_arrow(sql, min_timestamp=SINCE)
            text = await client.query_csv(sql, min_timestamp=SINCE)
            return [
                [row["span_id"] for row in rows["rows"]],
                list(map(str, arrow.column(0).to_pylist())),
                text.splitlines()[1:],
            ]

    first, *others = asyncio.run(ask())
    assert all(other == first for other in others)
    return first


CLIENTS = (
    adbc, pandas_over_adbc, polars_over_adbc, polars_by_uri, pandas_over_logfires_db_api, logfires_async_client,
)  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_of_the_server_sees_the_rows(
    server: Server, name: str, client: Callable[[Server, str], list[str]]
) -> None:
    assert client(server, f"SELECT span_id FROM records WHERE span_name = '{name}' ORDER BY 1") == IDS


def test_readers_of_the_files_see_the_rows(server: Server, name: str) -> None:
    path = server.data / "lake" / "records"
    records = DeltaTable(path).to_pyarrow_dataset()  # named in the SQL below
    assert records.count_rows() >= len(IDS)
    found = duckdb.execute(f"SELECT span_id FROM records WHERE span_name = '{name}' ORDER BY 1").fetchall()
    assert [row[0] for row in found] == IDS
    scanned = pl.scan_delta(path).filter(pl.col("span_name") == name).select("span_id").sort("span_id").collect()
    assert scanned["span_id"].to_list() == IDS
    frame = DeltaTable(path).to_pandas(columns=["span_id"], filters=[("span_name", "=", name)])
    assert sorted(frame["span_id"]) == IDS


def test_a_bad_statement_is_logfires_own_error(server: Server) -> None:
    async def ask() -> None:
        async with AsyncLogfireQueryClient("local", base_url=server.url) as client:
            assert await client.info() == {"organization_name": "local", "project_name": "default"}
            with pytest.raises(QueryExecutionError, match="did you mean message"):
                await client.query_json_rows("SELECT mesage FROM records", min_timestamp=SINCE)

    asyncio.run(ask())
