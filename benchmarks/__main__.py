"""Run every benchmark, print the figures and write docs/benchmarks.md: `make bench`."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks import spine

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
ENGINES = ("bytewax", "datafusion", "deltalake", "pyarrow", "protobuf", "uvicorn")


def main() -> None:
    """Measure, print, write."""
    figures = spine.run()
    machine = (
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}"
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ENGINES)
    rows = "\n".join(f"| {figure.name} | {figure.value} | {figure.bar} |" for figure in figures)
    text = f"""# Benchmarks

Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine}; {versions}. The machine is shared and noisy:
ratios and CPU seconds are steadier than wall time. The payload is `benchmarks/payload.py`, seeded; the server runs
with its default settings; CPU is the whole process tree's, without the generator, upkeep to quiescence included.

| | measured | bar |
|---|---|---|
{rows}
"""
    REPORT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
