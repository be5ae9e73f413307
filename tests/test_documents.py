"""Documents and fragments as nodes: what a write keeps, moves and takes along, in each store."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outside import Fake, unit

from raeburnmemory.documents import Fragment
from raeburnmemory.embed import PROBE
from raeburnmemory.errors import InvalidInput
from raeburnmemory.hits import Place
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Link, Node, collected_id

every_place = pytest.mark.parametrize("place", ["m.json", "m.db", ":memory:"])


def opened(tmp_path, place, **options):
    return MemoryGraph(
        place if place == ":memory:" else tmp_path / place, options.pop("model", None) or Fake(), **options
    )


def fragments(*texts, gap=2):
    """Return texts one below the other, with their places."""
    found, start = [], 0
    for number, text in enumerate(texts):
        found.append(Fragment(text, start, start + len(text), (number * 2 + 1, number * 2 + 1)))
        start += len(text) + gap
    return found


class Counting(Fake):
    def __init__(self):
        super().__init__()
        self.texts = []

    def embed(self, texts):
        self.texts += [text for text in texts if text != PROBE]
        return super().embed(texts)


@every_place
def test_a_document_is_a_node_and_so_is_each_fragment(tmp_path, place):
    with opened(tmp_path, place) as memory:
        documents = memory._documents("c")
        written = documents.write("u", {"name": "n", "x": [1]}, fragments("red wine", "white wine"))
        assert (written.added, written.kept, written.removed, written.changed, written.existed) == (
            2,
            0,
            0,
            True,
            False,
        )
        document = memory.get(written.id)
        assert (document.kind, document.text) == ("document", None)
        assert document.attributes["uri"] == "u"
        assert document.attributes["fragments"] == 2
        links = memory.links(written.id, "part_of", "in")
        assert [dict(link.data) for link in links] == [
            {"start": 0, "end": 8, "order": 0, "lines": [1, 1]}, {"start": 10, "end": 20, "order": 1, "lines": [3, 3]}
        ]  # fmt: skip
        assert [memory.get(link.source).text for link in links] == ["red wine", "white wine"]
        assert documents.text(written.id) == "red wine\n\nwhite wine"
        assert documents.at("u").id == written.id
        assert documents.get(written.id).attributes["x"] == [1]
        again = documents.write("u", {}, fragments("red wine", "white wine"))
        assert (again.id, again.changed, again.kept) == (written.id, False, 2)
        assert memory.history(written.id) == []
        documents.write("u", {"x": None}, None)
        assert "x" not in memory.get(written.id).attributes


@every_place
def test_what_moves_within_its_document_is_not_written_again(tmp_path, place):
    model = Counting()
    with opened(tmp_path, place, model=model) as memory:
        documents = memory._documents("c")
        one = documents.write("u", {}, fragments("a a", "b", "a a"))
        before = {node.id: node for node in memory.nodes("fragment")}
        model.texts.clear()
        two = documents.write("u", {}, fragments("c", "a a", "a a", "d", "a a"))
        assert (two.id, two.added, two.kept, two.removed, two.embedded) == (one.id, 3, 2, 1, 2)
        assert sorted(set(model.texts)) == ["c", "d"], "the third 'a a' has the vector of the others"
        kept = {node.id: node for node in memory.nodes("fragment") if node.id in before}
        assert all(before[node_id] == node for node_id, node in kept.items())
        vectors = memory.vectors([node.id for node in memory.nodes("fragment")])
        for node in memory.nodes("fragment"):
            assert vectors[node.id].tolist() == unit(Fake().embed([node.text]))[0].tolist()


@every_place
def test_vectors_of_passages_are_taken_too(tmp_path, place):
    model = Counting()
    long = " ".join(f"Sentence number {n} about wine." for n in range(60))
    with opened(tmp_path, place, model=model) as memory:
        documents = memory._documents("c")
        assert documents.write("u", {}, fragments(long)).embedded > 2
        model.texts.clear()
        assert documents.write("v", {}, fragments(long)).embedded == 0
        assert model.texts == []
        counts = memory._store.counts("default")["vectors"]
        assert counts["fragment"] == 2
        assert counts["fragment.passages"] % 2 == 0
        # With something above it, it is found by other words, so it is another text.
        above = [Fragment(long, 0, len(long), context="Cellar")]
        assert documents.write("w", {}, above).embedded > 2
        assert memory.recall("cellar", kinds="fragment")[0].place.uri == "w"


@every_place
def test_a_document_that_moves_keeps_its_id_and_gives_its_address_away(tmp_path, place):
    with opened(tmp_path, place) as memory:
        documents = memory._documents("c")
        one = documents.write("u", {"content_hash": "h"}, fragments("a"))
        entry = documents.at("u")
        assert documents.write("v", {}, None, moved=entry).id == one.id
        assert documents.write("w", {}, None, moved=entry).id == "", "it is not at u any more"
        new = documents.write("u", {}, fragments("b"))
        assert new.id != one.id
        assert documents.at("v").id == one.id
        assert [one.id] == [found.id for found in documents.same("h")]
        other = memory._documents("c")  # as another process sees it
        assert {found.uri: found.id for found in other.all()} == {"v": one.id, "u": new.id}
        assert documents.remove([one.id], only_if=lambda found: found.uri == "u") == {}
        assert documents.remove([one.id, one.id, "nobody"]) == {one.id: 1}
        assert [found.uri for found in other.all()] == ["u"]
        assert documents.write("x", {}, None).id == ""


@every_place
def test_what_somebody_else_wrote_meanwhile_stays(tmp_path, place):
    with opened(tmp_path, place) as memory:
        documents = memory._documents("c")
        documents.write("u", {"content_hash": "new"}, fragments("b"))
        seen = documents.write(
            "u",
            {"content_hash": "new"},
            fragments("other"),
            unless=lambda entry: entry.attributes["content_hash"] == "new",
        )
        assert (seen.changed, seen.kept) == (False, 1)
        assert documents.text(seen.id) == "b"


def test_forgetting_takes_the_fragments_and_nothing_else(tmp_path):
    with opened(tmp_path, "m.db") as memory:
        documents = memory._documents("c")
        one, two = (documents.write(uri, {}, fragments("a", "b")) for uri in "uv")
        memory.put([Node("note", "node", "about it")], [Link("note", one.id, "part_of")])
        report = memory.forget(one.id)
        assert report.kinds == {"document": 1, "fragment": 2}
        assert report.links == 3
        assert memory.get("note").text == "about it"
        assert documents.text(two.id) == "a\n\nb"
        report = memory.forget(two.id, secure=True)
        assert report.kinds == {"document": 1, "fragment": 2}
        assert b"fragment/c" not in (tmp_path / "m.db").read_bytes()


def test_hits_say_where_they_stand(tmp_path):
    with opened(tmp_path, "m.db") as memory:
        found = [
            Fragment("red wine", 3, 11, (2, 4), headings=("A", "B")),
            Fragment("white wine", 20, 30, pages=(1, 2)),
            Fragment("black tea", 40, 49, pages=(3, 3)),
            Fragment("green tea", 60, 69, headings=("Tea",)),
            Fragment("rose tea", 60, 69),
            Fragment("plum tea", 70, 79, (7, 7)),
        ]
        written = memory._documents("c").write("file:///x/a.pdf", {"name": "x/a.pdf", "title": "T"}, found)
        hits = {hit.text: hit for hit in memory.recall("wine tea", 10, kinds="fragment")}
        assert {text: hit.citation for text, hit in hits.items()} == {
            "red wine": "x/a.pdf:2-4",
            "white wine": "x/a.pdf pp. 1-2",
            "black tea": "x/a.pdf p. 3",
            "green tea": "x/a.pdf > Tea",
            "rose tea": "x/a.pdf",
            "plum tea": "x/a.pdf:7",
        }
        place = hits["red wine"].place
        assert place == Place(
            written.id,
            "file:///x/a.pdf",
            "x/a.pdf",
            "T",
            3,
            11,
            (2, 4),
            None,
            ("A", "B"),
            place.content_hash,
            "red wine",
        )
        assert place.to_dict() == {
            "document": written.id, "uri": "file:///x/a.pdf", "name": "x/a.pdf", "title": "T", "start": 3, "end": 11,
            "lines": [2, 4], "headings": ["A", "B"], "content_hash": place.content_hash,
        }  # fmt: skip
        assert memory.similar("red wine", kinds="fragment")[0].place == place
        # What is a part of something else, or of nothing, has no place.
        memory.add_message("red wine", id="said")
        memory.put([Node("f", "fragment", "red wine", {"document": "said"})], [Link("f", "said", "part_of")])
        memory.put([Node("g", "fragment", "red wine", {"document": "gone"})])
        assert [hit.place for hit in memory.recall("red wine", 9) if hit.id in {"f", "g", "said"}] == [None] * 3


def test_an_id_that_belongs_to_something_else(tmp_path):
    with opened(tmp_path, "m.db") as memory:
        documents = memory._documents("c")
        written = documents.write("u", {}, fragments("a"))
        memory.forget(written.id)
        memory.put([Node(written.id, "node", "x")])
        again = documents.write("u", {}, fragments("a"))
        assert again.id != written.id
        assert memory.get(written.id).text == "x"
        fragment = collected_id("fragment", "c", "x")
        memory.put([Node(fragment, "node", "x")])
        for wrong in ({"x": object()}, {"x": "\ud800"}):
            with pytest.raises(InvalidInput):
                documents.write("w", wrong, fragments("a"))
        with pytest.raises(InvalidInput):
            documents.write("w", {}, fragments("\ud800"))
        assert documents.at("w") is None


def test_many_of_one_text_find_keys(tmp_path):
    model = Counting()
    with opened(tmp_path, "m.db", model=model) as memory:
        documents = memory._documents("c")
        for number in range(40):
            documents.write(f"u{number}", {}, fragments(*["same"] * (number % 3 + 1)))
        assert model.texts.count("same") == 1
        documents.remove([documents.at(f"u{number}").id for number in range(0, 40, 3)])
        documents.write("again", {}, fragments(*["same"] * 30))
        assert model.texts.count("same") == 1
        assert len(list(memory.nodes("fragment"))) == sum(n % 3 + 1 for n in range(40) if n % 3) + 30


@every_place
def test_threads_write_and_read_the_same_documents_once(tmp_path, place):
    with opened(tmp_path, place) as memory:
        documents = memory._documents("c")

        def write():
            for number in range(12):
                documents.write(f"u{number}", {}, fragments("same", f"own {number}"))
                assert documents.at(f"u{number}") in documents.all()
                documents.remove(["nobody"])

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(documents.all()) == 12
        assert len(list(memory.nodes("fragment"))) == 24


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "a b"]), max_size=6), min_size=1, max_size=5))
def test_whatever_a_document_was_it_is_what_was_written_last(versions):
    with MemoryGraph(":memory:", Fake()) as memory:
        documents = memory._documents("c")
        for texts in versions:
            written = documents.write("u", {}, fragments(*texts))
            found = documents.fragments(written.id)
            assert [node.text for node, _ in found] == texts
            assert [(f.start, f.end) for f in fragments(*texts)] == [(x.data["start"], x.data["end"]) for _, x in found]
            assert written.added + written.kept == len(texts)
            assert len(list(memory.nodes("fragment"))) == len(texts)
