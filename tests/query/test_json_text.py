"""Looking into JSON text: the same as Python's json says."""

import contextlib
import json

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query import json_text
from query.json_text import get, members_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["", "a", "b", "0", "1", "-1", "é", '"', "\\"])


def member(document: object, key: str) -> object:
    if isinstance(document, dict):
        return document.get(key)
    if isinstance(document, list) and key.lstrip("-").isdigit() and -len(document) <= int(key) < len(document):
        return document[int(key)]
    return None


@given(st.lists(st.tuples(st.one_of(JSON, st.dictionaries(KEYS, JSON, max_size=4)), KEYS), max_size=5))
def test_members_are_those_of_the_document(pairs: list[tuple[object, str]]) -> None:
    texts = pa.array([json.dumps(document) for document, _ in pairs], pa.string_view())
    keys = pa.array([key for _, key in pairs], pa.string())
    expected = [member(document, key) for document, key in pairs]
    found = [None if text is None else json.loads(text) for text in get("json_get", texts, keys).to_pylist()]
    assert found == expected
    as_text = get("json_as_text", texts, keys).to_pylist()
    for value, text in zip(expected, as_text, strict=True):
        assert text == value if isinstance(value, str) or value is None else json.loads(str(text)) == value


def test_what_is_not_json_has_no_members() -> None:
    texts = pa.array(["{", "", None, '{"a": 1}'], pa.string_view())
    assert get("json_get", texts, pa.array(["a"] * 4)).to_pylist() == [None, None, None, "1"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("json_get_str", [None, None, "2.6", "x", None, None, None]),
        ("json_get_int", [1, 2, 3, None, None, None, None]),
        ("json_get_float", [1.0, 2.4, 2.6, None, None, None, None]),
        ("json_get_bool", [None, None, None, None, True, None, None]),
        ("json_get_array", [None, None, None, None, None, ["1", '"b"'], None]),
        ("json_contains", [True, True, True, True, True, True, True]),
    ],
)
def test_members_of_another_kind_are_null(function: str, expected: list[object]) -> None:
    values: list[object] = [1, 2.4, "2.6", "x", True, [1, "b"], None]
    texts = pa.array([json.dumps({"k": value}) for value in values], pa.string_view())
    assert get(function, texts, pa.array(["k"] * len(values))).to_pylist() == expected
    nothing = pa.array(["{}"], pa.string_view())
    assert get(function, nothing, pa.array(["k"])).to_pylist() == [False if function == "json_contains" else None]


@given(st.one_of(st.integers(), st.floats(), st.text(max_size=30)))
def test_any_number_has_a_whole_one_or_none(value: object) -> None:
    text = pa.array([json.dumps({"k": value})], pa.string_view())
    found = get("json_get_int", text, pa.array(["k"])).to_pylist()[0]
    if isinstance(value, int):
        assert found == (value if -(2**63) <= value < 2**63 else None) or abs(value) >= 2**63


def test_members_are_gathered_by_prefix() -> None:
    texts = pa.array(['{"v.a": 1, "v.b": "x", "w": 2}', "[]", None], pa.string_view())
    assert members_of(texts, pa.array(["v."] * 3)).to_pylist() == ['{"a":1,"b":"x"}', None, None]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    assert json_text.SCANNER.wait() is not None


def both_ways(function: str, texts: pa.Array, key: str) -> tuple[pa.Array, pa.Array]:
    """What parsing says, and what the compiled scan says."""
    keys = pa.array([key] * len(texts))
    scan = json_text.SCANNER.wait()
    assert scan is not None
    parsed = pa.concat_arrays([get(function, texts[n : n + 1], keys[n : n + 1]) for n in range(len(texts))])
    convert, kind = json_text.GETTERS[function]
    return parsed, json_text._scanned(scan, convert, kind, texts, key)


LINES = st.text(alphabet='{}[]",:\\ \n\tabcdu0123dDfF9-+.eEntrulsé🙂', max_size=40)
NAMES = st.sampled_from(["a", "b", "", "é", "ab", '"', "\\"])


@settings(max_examples=300)
@given(
    st.lists(st.none() | LINES | st.dictionaries(NAMES, JSON, max_size=4).map(json.dumps)
             | st.dictionaries(NAMES, JSON, max_size=4).map(lambda d: json.dumps(d, ensure_ascii=False, indent=1))
             | LINES.map(lambda line: '{"a": ' + line)
             | LINES.map(lambda line: '{"a": "x", "b": ' + line + "}"), max_size=8),
    NAMES, st.sampled_from(list(json_text.GETTERS)), st.integers(0, 3),
)  # fmt: skip
def test_the_compiled_scan_says_what_parsing_says(
    texts: list[str | None], key: str, function: str, skipped: int
) -> None:
    documents = pa.array(texts, pa.string())[skipped:]
    if len(documents) and key not in {"0", "1", "-1"}:
        parsed, scanned = both_ways(function, documents, key)
        for text, right, found in zip(documents.to_pylist(), parsed.to_pylist(), scanned.to_pylist(), strict=True):
            assert same(found, right) or (text is not None and not is_plain(text)), (text, found, right)


def same(found: object, right: object) -> bool:
    """Equal, or the same JSON written otherwise."""
    if found == right or not (isinstance(found, str) and isinstance(right, str)):
        return found == right
    with contextlib.suppress(ValueError):
        return orjson.loads(found) == orjson.loads(right)
    return False


def is_plain(text: str) -> bool:
    """Whether a text is JSON, and no object in it has a name twice."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in items}) < len(items):
            raise ValueError(text)
        return dict(items)

    try:
        orjson.loads(text)
        json.loads(text, object_pairs_hook=pairs)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "text",
    ['{"a":1}', '{"a":"\\ud800"}', '{"a":"\\u00e9"}', '{"a":[1,]}',
     '{"b":' + "[" * 70 + "]" * 70 + ',"a":1}', '{"a":123456789012345678901}', '{"a":"\t"}', '{"a":.5}',
     '{"a":"' + "x" * 20 + '\\n"}', '{"a":{"b":[{},[],"\\""]},"c":null}', '{"a" :\ttrue }\n', '{"a":tru}', "{", '{"a"'],
)  # fmt: skip
def test_what_json_is_and_is_not_is_the_same_for_both(text: str) -> None:
    for function in json_text.GETTERS:
        (parsed,), (scanned,) = (each.to_pylist() for each in both_ways(function, pa.array([text]), "a"))
        assert same(scanned, parsed)


def test_big_batches_are_scanned_whatever_their_type() -> None:
    json_text.SCANNER.wait()
    texts = [json.dumps({"k": str(n), "n": n}) if n % 7 else None for n in range(1_000)]
    for kind in (pa.string(), pa.string_view()):
        found = get("json_as_text", pa.array(texts, kind), pa.array(["k"] * 1_000)).to_pylist()
        assert found == [str(n) if n % 7 else None for n in range(1_000)]
