"""The file that an export writes: the JSON of what it returns, whatever is in it, and however much."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import open_memory

from raeburnmemory import export

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES), st.integers(1, 3))
def test_it_is_encoded_as_json_does_it(data, page):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_PAGE", page)
        assert "".join(export.encoded(data)) == json.dumps(data)


@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_the_file_is_the_json_of_what_is_returned(tmp_path, name):
    with open_memory(tmp_path / name) as memory:
        memory.add_many([({"id": f"p{n}", "text": f'"thing" {n}\n'}, f"answer {n}", "a", "s") for n in range(600)])
        with open_memory(tmp_path / name, namespace="other") as other:
            other.add_interaction("ünlike", "answer")
        returned = memory.export(tmp_path / "out.json", all_namespaces=True)
    assert (tmp_path / "out.json").read_text() == json.dumps(returned)
    assert len(returned["nodes"]) == 1202
