"""Queries over Flight SQL through ADBC beside DuckDB in-process, on the very same files, in one run.

Five million spans of a week in the layout upkeep leaves. No result is cached; results are checked to be the same. Also:
a million rows beside a plain pyarrow Flight server, small statements from several clients, and growth with commits.
"""

import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import pyarrow as pa
import pyarrow.flight as pf

from benchmarks.spine import Figure
from core.clock import SystemClock
from core.projects import DEFAULT_PROJECT_ID
from core.schema import RECORDS
from flight.messages import CommandStatementQuery, wrap
from storage.compaction import data_files, merge
from storage.lake import Lake
from tests.lakes import rows

SPANS = 5_000_000
DAYS = 7
FIRST_DAY = date(2026, 11, 9)
WARM_RUNS = 3
CLIENTS = (1, 8, 32)
SMALL_STATEMENTS = 400
COMMITS = (100, 1_000, 3_000)
RESULT_ROWS = 1_000_000
APPROXIMATE = 0.03
"""How far two engines' approximate quantiles may lie apart."""

GENERATE = """
SELECT '{project}' AS project_id, DATE '{day}' AS day, ts AS created_at, ts AS start_timestamp,
    ts + to_microseconds((d * 1e6)::BIGINT) AS end_timestamp, epoch_ns(ts) AS start_unix_nano,
    epoch_ns(ts) + (d * 1e9)::BIGINT AS end_unix_nano, d AS duration, md5((i // 8)::VARCHAR || '{day}') AS trace_id,
    left(md5(i::VARCHAR || 's{day}'), 16) AS span_id,
    CASE WHEN i % 8 > 0 THEN left(md5((i - 1)::VARCHAR || 's{day}'), 16) END AS parent_span_id,
    CASE WHEN i % 40 = 39 THEN 'log' ELSE 'span' END AS kind,
    CASE WHEN r < 0.02 THEN 17 WHEN r < 0.05 THEN 13 ELSE 9 END::INTEGER AS level,
    CASE WHEN i % 40 = 39 THEN 'gen_ai.evaluation.result' ELSE 'GET ' || route END AS span_name,
    'request ' || i || ' of ' || route || CASE WHEN r < 0.01 THEN ' timed out' ELSE ' served' END AS message,
    r < 0.02 AS is_exception, ['tag' || (i % 5)] AS tags,
    '{{"app.tenant":"tenant_' || (hash(i) % 200) || '","app.region":"' || ['eu','us','ap'][1 + i % 3] ||
    '","gen_ai.request.model":"' || model || '","http.route":"' || route || '","user.agent":"Mozilla/5.0 (X11; Linux '
    || (hash(i) % 1000) || ')","db.statement":"SELECT * FROM items WHERE id = ' || i || '","retry":' || (i % 4) ||
    ',"cache":' || (i % 2 = 0) || ',"peer":{{"name":"p' || (i % 9) || '","port":5432}},"ratio":' || round(r, 4) || '}}'
    AS attributes, ['checkout','catalog','assistant','gateway'][1 + i % 4] AS service_name, route AS http_route,
    CASE WHEN i % 3 = 0 THEN model END AS gen_ai_request_model, CASE WHEN i % 3 = 0 THEN r / 100 END AS cost_reported,
    'user_' || (hash(i * 7) % 50000) AS user_id, {number}::BIGINT AS _epoch
FROM (SELECT i, (i * 37 % 97) / 97.0 AS r, -ln(1 - (hash(i) % 9999) / 10000.0) * 0.08 AS d,
    TIMESTAMPTZ '{day} 00:00:00+00' + to_microseconds((i * 86400000000 // {count})::BIGINT) AS ts,
    ['/','/items','/cart','/checkout','/search','/chat'][1 + (hash(i) % 6)::INT] AS route,
    ['gpt-5-mini','claude-sonnet-5','gemini-3-flash'][1 + (hash(i) % 3)::INT] AS model FROM range({count}) t(i))
"""


@dataclass(frozen=True, slots=True)
class Query:
    """One question in two dialects."""

    name: str
    ours: str
    duck: str
    approximate: bool = False

    @classmethod
    def same(cls, name: str, sql: str) -> "Query":
        """A question both understand in the same words."""
        return cls(name, sql, sql)


HOUR = "start_timestamp >= '2026-11-12 10:00:00+00' AND start_timestamp < '2026-11-12 11:00:00+00'"
DAY = "start_timestamp >= '2026-11-12 00:00:00+00' AND start_timestamp < '2026-11-13 00:00:00+00'"
ROUTES = "SELECT http_route, {p95} AS p95, count(*) AS n FROM records GROUP BY 1 ORDER BY 1"
TEN = (
    Query.same(
        "newest 100 of an hour",
        f"SELECT start_timestamp, service_name, span_name, message, duration, attributes FROM records WHERE {HOUR}"
        " ORDER BY start_timestamp DESC, span_id LIMIT 100",
    ),
    Query(
        "p95 by route",
        ROUTES.format(p95="approx_percentile_cont(duration, 0.95)"),
        ROUTES.format(p95="approx_quantile(duration, 0.95)"),
        approximate=True,
    ),
    Query.same(
        "minutes of a day",
        "SELECT time_bucket(INTERVAL '1 minute', start_timestamp) AS m, count(*) AS n, avg(duration) AS d"
        f" FROM records WHERE {DAY} GROUP BY 1 ORDER BY 1",
    ),
    Query.same(
        "error rate by service",
        "SELECT service_name, count(*) AS n, avg(CASE WHEN level >= 17 THEN 1.0 ELSE 0.0 END) AS e"
        " FROM records GROUP BY 1 ORDER BY 1",
    ),
    Query.same(
        "trace",
        "SELECT span_id, parent_span_id, span_name, start_timestamp, duration, attributes FROM records"
        " WHERE trace_id = md5('12345' || '2026-11-12') ORDER BY start_timestamp, span_id",
    ),
    Query.same(
        "top models by cost",
        "SELECT gen_ai_request_model AS m, sum(cost_reported) AS c, count(*) AS n FROM records"
        " WHERE gen_ai_request_model IS NOT NULL GROUP BY 1 ORDER BY 1",
    ),
    Query.same(
        "join with evaluations",
        "SELECT r.service_name AS s, count(*) AS n, avg(r.duration) AS d FROM records e JOIN records r"
        " ON e.parent_span_id = r.span_id WHERE e.span_name = 'gen_ai.evaluation.result' AND r.kind = 'span'"
        " GROUP BY 1 ORDER BY 1",
    ),
    Query.same("LIKE on messages", "SELECT count(*) AS n FROM records WHERE message LIKE '%timed out%'"),
    Query.same(
        "LIKE on attributes of a day",
        f"SELECT count(*) AS n FROM records WHERE {DAY} AND attributes LIKE '%tenant_77\"%'",
    ),
    Query.same("distinct users", "SELECT count(DISTINCT user_id) AS n FROM records"),
)
JSON = (
    Query.same("filter by the last", "SELECT count(*) AS n FROM records WHERE attributes->>'ratio' = '0.5'"),
    Query.same(
        "filter by the first", "SELECT count(*) AS n FROM records WHERE attributes->>'app.tenant' = 'tenant_77'"
    ),
    Query.same(
        "group by the second", "SELECT attributes->>'app.region' AS r, count(*) AS n FROM records GROUP BY 1 ORDER BY 1"
    ),
)


def make_lake(directory: Path) -> Lake:
    """The week's spans, merged as upkeep merges them."""
    lake, duck = Lake(directory), duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'")
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(number)
        sql = GENERATE.format(project=DEFAULT_PROJECT_ID, day=day, count=SPANS // DAYS, number=number)
        made = duck.sql(sql).to_arrow_table()
        names = set(made.schema.names)
        columns = [
            made[field.name].cast(field.type) if field.name in names else pa.nulls(len(made), field.type)
            for field in RECORDS.schema
        ]
        lake["records"].append(pa.table(columns, schema=RECORDS.schema), {})
        files = [file for file in data_files(lake["records"]) if file.day == day]
        merge(lake["records"], files, SystemClock())
    return lake


@contextmanager
def serve_table(table: pa.Table) -> Generator[str]:
    """The address of a plain pyarrow Flight server, in a process of its own, that sends a table's batches."""
    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        with pa.ipc.new_file(file.name, table.schema) as writer:
            writer.write_table(table)
        with served(Path(file.name)) as address:
            yield address


@contextmanager
def served(lake: Path) -> Generator[str]:
    """The address of a Flight SQL server on a lake, in processes of its own; or of a plain one with a file's rows."""
    command = [sys.executable, "-m", "benchmarks.serve_lake", str(lake)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"grpc://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(60)


def timed(run: Callable[[], pa.Table]) -> tuple[float, float, pa.Table]:
    """Seconds of the first run, of the best of those after it, and the result."""
    took = list[float]()
    table = pa.table({})
    for _ in range(1 + WARM_RUNS):
        began = time.perf_counter()
        table = run()
        took.append(time.perf_counter() - began)
    return took[0], min(took[1:]), table


def check_equal(query: Query, ours: pa.Table, theirs: pa.Table) -> None:
    """Fail unless two results say the same."""
    assert ours.num_rows == theirs.num_rows, query.name
    for left, right in zip(ours.to_pylist(), theirs.to_pylist(), strict=True):
        for a, b in zip(left.values(), right.values(), strict=True):
            near = APPROXIMATE if query.approximate else 1e-6
            same = math.isclose(float(a), float(b), rel_tol=near) if isinstance(a, float) else a == b
            assert same, (query.name, a, b)


def compare(address: str, files: list[str], queries: tuple[Query, ...]) -> Generator[tuple[Query, float, float, float]]:
    """Each query with our first and best time and DuckDB's best, seconds."""
    duck = duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'")
    duck.execute("SET threads = 2")
    listed = ", ".join(f"'{file}'" for file in files)
    duck.execute(f"CREATE VIEW records AS SELECT * FROM read_parquet([{listed}])")
    with flightsql.connect(address, autocommit=True) as connection, connection.cursor() as cursor:

        def ask(sql: str) -> pa.Table:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

        for query in queries:
            first, ours, ours_table = timed(lambda sql=query.ours: ask(sql))
            _, theirs, their_table = timed(lambda sql=query.duck: duck.sql(sql).to_arrow_table())
            check_equal(query, ours_table, their_table)
            yield query, first, ours, theirs


def million_rows(address: str) -> tuple[float, float]:
    """Seconds for a million rows by pyarrow's client: ours, and of a plain server with the same batches in memory."""
    sql = (
        "SELECT start_timestamp, trace_id, span_id, service_name, span_name, duration, level FROM records"
        f" LIMIT {RESULT_ROWS}"
    )
    descriptor = pf.FlightDescriptor.for_command(wrap(CommandStatementQuery(sql)))
    with pf.FlightClient(address) as client:

        def ask() -> pa.Table:
            return client.do_get(client.get_flight_info(descriptor).endpoints[0].ticket).read_all()

        _, ours, table = timed(ask)
    with serve_table(table) as plain_address, pf.FlightClient(plain_address) as client:
        _, plain, _ = timed(lambda: client.do_get(pf.Ticket(b"")).read_all())
    return ours, plain


def small_statements(address: str, clients: int) -> tuple[float, float]:
    """Milliseconds of `SELECT 1`, p50 and p99, from so many clients at once."""
    took = list[float]()

    def ask() -> None:
        with flightsql.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
            for _ in range(SMALL_STATEMENTS // clients):
                began = time.perf_counter()
                cursor.execute("SELECT 1")
                cursor.fetchall()
                took.append((time.perf_counter() - began) * 1_000)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


def growth() -> list[Figure]:
    """A small statement's cost as commits are added that nobody merges."""
    figures = list[Figure]()
    with tempfile.TemporaryDirectory(prefix="tailrace-") as name:
        directory = Path(name) / "lake"
        lake, made = Lake(directory), 0
        row = rows(RECORDS, {"project_id": DEFAULT_PROJECT_ID, "day": datetime.now(UTC).date()})
        for commits in COMMITS:
            began = time.perf_counter()
            for _ in range(commits - made):
                lake["records"].append(row, {})
                if lake["records"].version % 100 == 99:
                    lake["records"].delta.create_checkpoint()
                    lake["records"].reload()
            commit_ms = (time.perf_counter() - began) * 1_000 / (commits - made)
            made = commits
            with served(directory) as address, flightsql.connect(address, autocommit=True) as connection:

                def count(connection: flightsql.Connection = connection) -> pa.Table:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT count(*) FROM records")
                        return cursor.fetch_arrow_table()

                first, warm, table = timed(count)
            assert table.column(0)[0].as_py() == commits
            value = (
                f"count of all rows {warm * 1_000:.0f} ms (first {first * 1_000:.0f} ms); a commit {commit_ms:.0f} ms"
            )
            figures.append(Figure(f"{commits:,} commits, none merged", value))
    return figures


def run() -> list[Figure]:
    """Measure everything."""
    figures = list[Figure]()
    with tempfile.TemporaryDirectory(prefix="tailrace-") as name:
        directory = Path(name) / "lake"
        lake = make_lake(directory)
        files = [str(directory / "records" / file.path) for file in data_files(lake["records"])]
        with served(directory) as address:
            ratios = dict[str, float]()
            for query, first, ours, theirs in compare(address, files, TEN):
                ratios[query.name] = ours / theirs
                times = f"{ours * 1_000:.0f} ms (first {first * 1_000:.0f}), DuckDB {theirs * 1_000:.0f} ms"
                bar = "≤ 2x" if query.name == "trace" else "≤ 4x"
                figures.append(Figure(query.name, f"{times}: {ours / theirs:.2f}x", bar))
            mean = statistics.geometric_mean(ratios.values())
            figures.append(Figure("geometric mean of the ten", f"{mean:.2f}x", "≤ 1.5x"))
            for query, first, ours, theirs in compare(address, files, JSON):
                times = f"{ours * 1_000:.0f} ms (first {first * 1_000:.0f}), DuckDB {theirs * 1_000:.0f} ms"
                about = f"{query.name} of ten attributes without columns"
                figures.append(Figure(about, f"{times}: {ours / theirs:.2f}x", "≤ 2x"))
            ours, plain = million_rows(address)
            value = f"{1 / ours:.1f} M rows/s, plain Flight {1 / plain:.1f} M rows/s: {plain / ours:.2f}x"
            figures.append(Figure("a million rows", value, "≥ 0.35x"))
            for clients in CLIENTS:
                p50, p99 = small_statements(address, clients)
                figures.append(Figure(f"SELECT 1, {clients} clients", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"))
    return [*figures, *growth()]


if __name__ == "__main__":
    for figure in run():
        print(f"{figure.name:45} {figure.value}  {figure.bar}")
