"""Run every benchmark, print the figures and write docs/benchmarks.md: `make bench`."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks import queries, spine

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
ENGINES = ("bytewax", "datafusion", "deltalake", "pyarrow", "protobuf", "uvicorn")


def main() -> None:
    """Measure, print, write."""
    machine = (
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}"
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ENGINES)
    text = f"""# Benchmarks

Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine}; {versions}. The machine is shared and noisy:
ratios and CPU seconds are steadier than wall time.

## The spine

The payload is `benchmarks/payload.py`, seeded; the server runs with its default settings; CPU is the whole process
tree's, without the generator, upkeep to quiescence included. What a process has used is not counted once it has ended:
a query worker that was started afresh in between shows as less than nothing.

{table(spine.run())}
## Queries

{queries.SPANS:,} spans of {queries.DAYS} days (`benchmarks/queries.py`), asked over Flight SQL by ADBC, beside DuckDB
{version("duckdb")} in-process on the same files with two threads; the best of {queries.WARM_RUNS} runs after the first,
results checked to be the same. A million rows come by pyarrow's client from both.

{table(queries.run())}"""
    REPORT.write_text(text)
    print(text)


def table(figures: list[spine.Figure]) -> str:
    """Figures as a Markdown table."""
    rows = "\n".join(f"| {figure.name} | {figure.value} | {figure.bar} |" for figure in figures)
    return f"| | measured | bar |\n|---|---|---|\n{rows}\n"


if __name__ == "__main__":
    main()
