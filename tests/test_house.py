"""The house keeps its rules: who may import what, how long things get, and what is never committed."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSES = ("agents", "api", "benchmarks", "core", "flight", "pipelines", "query", "server", "storage")
MODULES = sorted(path for house in HOUSES for path in (ROOT / house).rglob("*.py"))
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
STORY_LINES_MAX = 6
FLIGHT_ROOMS = ("benchmarks/", "flight/", "query/transport.py", "storage/feed.py")
VAGUE = re.compile(r"(^|_)(utils?|helpers?|common|misc|manager|base|impl)($|_)")
PRIVATE = re.compile(
    r"/(?:root|home/\w+|work)/|\bfiles\.pythonhosted\b|pypi\.org/simple|--(?:extra-)?index-url|artifactory|nexus",
    re.IGNORECASE,
)


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_a_module_tells_its_story_and_stays_small(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    story = ast.get_docstring(tree)
    assert story, "no docstring"
    assert len(story.splitlines()) <= STORY_LINES_MAX
    assert text.count("\n") <= FILE_LINES_MAX
    for function in functions(tree):
        assert (function.end_lineno or 0) - function.lineno < FUNCTION_LINES_MAX, function.name
    assert not VAGUE.search(path.stem)


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_flight_is_imported_in_its_own_rooms_only(path: Path) -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    if "pyarrow.flight" in imported:
        assert names(path).startswith(FLIGHT_ROOMS)


def test_tests_mirror_the_houses() -> None:
    odd = [
        names(path)
        for house in HOUSES
        for path in (ROOT / "tests" / house).rglob("test_*.py")
        if not list((ROOT / house).rglob(f"{path.stem.removeprefix('test_').removesuffix('_command')}.py"))
    ]
    assert odd == []


def test_nothing_committed_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git work tree")  # an unpacked archive has nothing committed
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name in listed.stdout.split("\0")
        if name and name != "tests/test_house.py" and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert found == []
