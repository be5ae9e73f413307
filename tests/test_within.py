"""Another namespace of a memory that is open."""

import gc

import pytest
from outside import Fake

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import GraphClosed, InvalidInput, ReadOnly

FILES = ["memory.db", "memory.json", ":memory:"]


@pytest.fixture(params=FILES)
def memory(request, tmp_path):
    where = request.param if request.param == ":memory:" else tmp_path / request.param
    with MemoryGraph(where, embedding_model=Fake()) as made:
        yield made


def test_namespaces_stay_apart(memory):
    ann, bob = memory.within("ann"), memory.within("bob")
    for who, of in ((ann, "ann"), (bob, "bob"), (memory, "nobody")):
        who.add_interaction({"id": "p", "text": f"the secret of {of}"}, session_id="s")
    for who, of in ((ann, "ann"), (bob, "bob"), (memory, "nobody")):
        assert [hit.text for hit in who.recall("the secret of ann")] == [f"the secret of {of}"]
        assert [hit.text for hit in who.similar("the secret of bob")] == [f"the secret of {of}"]
        assert [node.text for node in who.thread("s")] == [f"the secret of {of}"]
        assert who.stats().namespaces == ["ann", "bob", "default"]
    ann.forget("p")
    assert (len(ann), len(bob), len(memory)) == (0, 2, 2)


def test_it_shares_everything_else(memory):
    other = memory.within("other")
    assert (other.namespace, other.db_path, other.model) == ("other", memory.db_path, memory.model)
    assert other.vector_index is memory.vector_index
    assert other.within("default").namespace == "default"
    assert "'other'" in repr(other)


def test_closing_it_closes_nothing_else(memory):
    other = memory.within("other")
    other.add_interaction({"id": "p", "text": "hello"})
    other.close()
    other.close()
    del other
    gc.collect()
    assert memory.within("other").get("p").text == "hello"


def test_it_keeps_its_memory(tmp_path):
    other = MemoryGraph(tmp_path / "memory.db", embedding_model=Fake()).within("other")
    gc.collect()
    other.add_interaction({"id": "p", "text": "hello"})
    assert other.recall("hello").ids == ["p"]


def test_it_is_closed_with_its_memory(memory):
    other = memory.within("other")
    memory.close()
    with pytest.raises(GraphClosed):
        len(other)
    other.close()


def test_what_is_only_read_stays_so(tmp_path):
    MemoryGraph(tmp_path / "memory.db", embedding_model=Fake()).close()
    with (
        MemoryGraph(tmp_path / "memory.db", embedding_model=Fake(), read_only=True) as memory,
        pytest.raises(ReadOnly),
    ):
        memory.within("other").add_interaction("hello")


@pytest.mark.parametrize("name", ["", None, 5, "\ud800"])
def test_a_name_that_is_none(memory, name):
    with pytest.raises(InvalidInput):
        memory.within(name)
