"""Looking into JSON text: the same as Python's json says."""

import json

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from query.functions import json_get, json_get_text

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
    found = [None if text is None else json.loads(text) for text in json_get(texts, keys).to_pylist()]
    assert found == expected
    as_text = json_get_text(texts, keys).to_pylist()
    for value, text in zip(expected, as_text, strict=True):
        assert text == value if isinstance(value, str) or value is None else json.loads(str(text)) == value


def test_what_is_not_json_has_no_members() -> None:
    texts = pa.array(["{", "", None, '{"a": 1}'], pa.string_view())
    assert json_get(texts, pa.array(["a"] * 4)).to_pylist() == [None, None, None, "1"]
