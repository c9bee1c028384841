"""The documents that are made from the code: `docs/settings.md` and `docs/tables.md`.

`python -m docs.render` writes them; a test checks that they are up to date.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from core.schema import EVALUATIONS, TABLES, VALUE, Table
from server.settings import Settings

DOCS = Path(__file__).parent


def settings_text() -> str:
    """Every setting with its variable, default and meaning."""
    lines = [
        "# Settings",
        "",
        "Made from the code by `python -m docs.render`. A setting is given on the command line of `tailrace serve`",
        "(the first six), as an environment variable, or in `tailrace.toml` in the working directory (or the file",
        "that `TAILRACE_CONFIG` names), where `TAILRACE_QUERY__WORKERS` is `workers` in the table `[query]`. The",
        "first of these that is given counts. Names end in their unit.",
        "",
        "| variable | default | |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in _settings()]
    return "\n".join(lines) + "\n"


def tables_text() -> str:
    """Every column of every table."""
    lines = [
        "# Tables",
        "",
        "Made from the code by `python -m docs.render`. In [SQL](sql.md) there are `records`, `records_all` (records",
        "and pending_spans together), `metrics` and `evaluations`; the lake holds all but the last, which is read from",
        "`records`. Times are in UTC, microseconds; `…_unix_nano` are exact.",
        "",
        "In SQL `metrics` has one column more: `value`, a struct of "
        + ", ".join(f"`{field.name}`" for field in VALUE)
        + ".",
    ]
    for table in (*TABLES, EVALUATIONS):
        lines += ["", f"## {table.name}", "", table.description, ""]
        if table.name == "pending_spans":
            lines.append("The columns are those of `records`.")
            continue
        lines += ["| column | type | null | |", "|---|---|---|---|"]
        lines += [f"| {row} |" for row in _columns(table)]
    return "\n".join(lines) + "\n"


def _columns(table: Table) -> Iterator[str]:
    for column in table.columns:
        source = f" From {', else '.join(f'`{name}`' for name in column.attribute)}." if column.attribute else ""
        null = "yes" if column.nullable else ""
        yield f"`{column.name}` | {column.type} | {null} | {column.description}{source}"


def _settings() -> Iterator[tuple[str, str, str]]:
    said = _docstrings(Settings)
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        if is_dataclass(default):
            yield from _leaf(f"TAILRACE_{name.upper()}__", type(default))
        elif name != "failpoints":  # for tests alone
            yield f"TAILRACE_{name.upper()}", _shown(default), said[name]


def _leaf(prefix: str, kind: Any) -> Iterator[tuple[str, str, str]]:
    said = _docstrings(kind)
    for field in fields(kind):
        assert field.default is not MISSING
        if is_dataclass(field.default):
            yield from _leaf(f"{prefix}{field.name.upper()}__", type(field.default))
            continue
        yield f"{prefix}{field.name.upper()}", _shown(field.default), said.get(field.name, "")


def _docstrings(kind: type) -> dict[str, str]:
    """The string literals that follow the fields of a class, by field."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(made, ast.ClassDef)
    said: dict[str, str] = {}
    for node, following in zip(made.body, made.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(following, ast.Expr):
            said[node.target.id] = " ".join(str(ast.literal_eval(following.value)).split())
    return said


def _shown(value: object) -> str:
    match value:
        case None | "" | ():
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case int() if value >= 1 << 20 and value % (1 << 20) == 0:
            return f"`{value}` ({value >> 20:,} MiB)"
        case _:
            return f"`{value}`"


def main() -> None:
    """Write them."""
    (DOCS / "settings.md").write_text(settings_text())
    (DOCS / "tables.md").write_text(tables_text())


if __name__ == "__main__":
    main()
