"""Long texts: where they are cut, and that their passages have vectors, are found, and go and come with their texts."""

from __future__ import annotations

import itertools
import json
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import Fake, check_vectors, fake, unit

from raeburnmemory._optional import installed
from raeburnmemory.embed.builtin import wordpiece
from raeburnmemory.errors import EmbeddingsMissing, MissingDependency
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Node, Where
from raeburnmemory.passages import EMBEDDED, PASSAGES, pieces, spans

PLACES = {"json": "m.json", "sqlite": "m.db", "memory": ":memory:"}
WINDOW = 128
FILLING = " ".join(f"Nothing of note was said on day {number} of the trip." for number in range(60))


def size(text):
    return len(wordpiece(text))


# --- where texts are cut ----------------------------------------------------------------------------------------


def test_a_text_of_at_most_128_wordpieces_is_not_cut():
    assert spans("") == spans(" \n" * 500) == spans("short") == []
    assert spans("a " * WINDOW) == []
    assert spans("a " * (WINDOW + 1)) != []
    assert spans("a" * 5000) == []  # one word, which no model knows


def check_spans(text, window=WINDOW):
    """Passages follow each other, leave nothing out, and are not too long; those of a text that needs none are none."""
    found = spans(text, window)
    assert (found == []) == (size(text) <= window)
    at = 0
    for start, end in found:
        assert at <= start < end
        assert size(text[at:start]) == 0  # nothing that a model reads lies between
        assert 0 < size(text[start:end]) <= window
        at = end
    if found:
        assert size(text[at:]) == 0
    return [text[start:end] for start, end in found]


def test_passages_end_with_sentences():
    sentences = re.findall(r"[^.]+\. ?", FILLING)
    passages = check_spans(FILLING)
    assert "".join(passages) == FILLING
    assert all(passage.rstrip().endswith("trip.") for passage in passages)
    # As many sentences as there is room for.
    expected, room = [""], WINDOW
    for sentence in sentences:
        if size(sentence) > room:
            expected.append("")
            room = WINDOW
        expected[-1] += sentence
        room -= size(sentence)
    assert passages == expected


@pytest.mark.parametrize(
    "end",
    [
        ". ",
        "! ",
        "? ",
        "\u2026 ",
        '." ',
        ".) ",
        ".\u201d ",
        "?'\t",
        "\n",
        "\n\n\n",
        ".\n",
        "\u3002",
        "\uff01",
        "\uff1f",
    ],
)
def test_ends_of_sentences(end):
    sentence = "one two three four five six seven eight nine ten eleven" + end
    passages = check_spans(sentence * 40)
    assert len(passages) > 1
    assert all(passage.endswith(end) for passage in passages)
    assert "".join(passages) == sentence * 40


@pytest.mark.parametrize("end", [", ", "; ", ".x ", "3.14 "])
def test_what_is_no_end_of_a_sentence(end):
    passages = check_spans(("one two three four" + end) * 60)
    assert not all(passage.rstrip().endswith(end.rstrip()) for passage in passages[:-1])


def test_a_sentence_that_is_too_long_is_cut_between_words():
    text = "word " * 1000
    passages = check_spans(text)
    assert [size(passage) for passage in passages] == [WINDOW] * (1000 // WINDOW) + [1000 % WINDOW]
    assert all(passage.split() == ["word"] * size(passage) for passage in passages)


@pytest.mark.parametrize(
    "text",
    [
        "\u6f22\u5b57" * 400,  # Chinese without an end of a sentence
        "\u6f22\u5b57\u3067\u3059\u3002" * 200,
        "\ub098\ub77c \uc0ac\ub78c " * 21,  # Korean: 126 characters, and more WordPieces
        "\ub098\ub77c\uc0ac\ub78c," * 200,
        "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e " * 60,
        "caf\u00e9 na\u00efve " * 100,
        "https://example.org/" + "a.b-c/d_e?" * 300,  # no space anywhere
        "!" * 1000,
        "x" * 3000 + " " + "y z " * 200,
        ("v" * 90 + " ") * 60,
        "\0" * 2000 + "a b " * 200,
        "[MASK]" * 300,
    ],
)
def test_texts_of_all_sorts(text):
    assert len(check_spans(text)) > 1


PARTS = st.sampled_from(
    [
        *("word", "unaffable", "3.14", "e-mail", "zzxq", "re", "##s", "q" * 70, "[SEP]", "\u00e9\u00e8", "\u0130"),
        *(". ", "? ", ", ", " ", "\n", "\n\n", "\u3002", '"', ")", "\0", "\U0001f984"),
        *("\u6f22", "\ub098\ub77c", "\ub78c", "\u0e44\u0e17\u0e22"),
    ]
)


@given(parts=st.lists(st.tuples(PARTS, st.integers(1, 9)), max_size=40), window=st.sampled_from([3, 5, 16, 64, WINDOW]))
def test_any_text(parts, window):
    check_spans("".join(part * times for part, times in parts), window)


def test_the_pieces_of_a_node():
    said = Node("p", "prompt", FILLING, {"name": "Ana"})
    whole, *parts = pieces(said)
    assert whole == ("prompt", f"Ana: {FILLING}", 0, 0, -1)
    assert [part.field for part in parts] == ["prompt.passages"] * len(parts)
    assert [part.part for part in parts] == list(range(1, len(parts) + 1))
    assert [part.text for part in parts] == [f"Ana: {FILLING[start:end]}" for start, end in spans(FILLING)]
    assert [(part.start, part.end) for part in parts] == spans(FILLING)
    assert pieces(Node("p", "fact", "It is so.")) == [("fact", "It is so.", 0, 0, -1)]
    for kind in ("agent", "session", "system", "tool", "node", "prompt.passages"):
        assert pieces(Node("p", kind, FILLING)) == []
    for text in (None, ""):
        assert pieces(Node("p", "response", text, {"name": "Ana"})) == []
    for name in (None, "", 5, ["Ana"]):
        assert pieces(Node("p", "response", "Yes.", {"name": name})) == [("response", "Yes.", 0, 0, -1)]


# --- their vectors in a store -----------------------------------------------------------------------------------


class Words(Fake):
    """Sees each word, by a hash, in one of many places."""

    def __init__(self, name="words", salt=""):
        super().__init__(name, 512, salt)


WORDS = Words()
LAST = "In the end a heron stole the silver kettle."
LONG = f"{FILLING}\n\n{LAST}"
OTHER = " ".join(f"Slide {number} shows the budget for one quarter." for number in range(40))


@pytest.fixture(params=PLACES)
def place(tmp_path, request):
    """Where a memory is to be, in each kind of store."""
    return tmp_path / PLACES[request.param] if request.param != "memory" else ":memory:"


@pytest.fixture(params=["json", "sqlite"])
def path(tmp_path, request):
    return tmp_path / PLACES[request.param]


def open_memory(place, embedder=WORDS, **options):
    return MemoryGraph(place, embedder, vector_backend="exact", **options)


def stored(memory):
    """Every vector of the store: {(field, node, part): (start, end, values)}; none of them twice."""
    store, found = memory._store, {}
    for field in store.counts(None)["vectors"]:
        for block in store.vectors(field, -1).blocks:
            nodes = store.at_rows(block.rows.tolist())
            for row, span, values in zip(block.rows.tolist(), block.spans.tolist(), block.values, strict=True):
                key = (field, nodes[row].namespace, nodes[row].id, span[0])
                assert key not in found
                found[key] = (*span[1:], values)
    return found


def check_pieces(memory, embedder=WORDS, *, whole_only=()):
    """The store holds the vectors of all its texts, of their passages, and no others."""
    expected = {}
    for node in memory._store.nodes(Where(None)):
        if node.kind in EMBEDDED and node.text:
            name = f"{node.attributes['name']}: " if "name" in node.attributes else ""
            cut = [] if node.id in whole_only else spans(node.text)
            for part, (start, end) in enumerate([(0, -1), *cut]):
                field = node.kind + (".passages" if part else "")
                text = name + (node.text[start:end] if part else node.text)
                expected[field, node.namespace, node.id, part] = (start, end, unit(embedder.embed([text]))[0])
    found = stored(memory)
    assert found.keys() == expected.keys()
    for key, (start, end, values) in found.items():
        assert (start, end) == expected[key][:2]
        np.testing.assert_allclose(values, expected[key][2], atol=1e-6)
    counts = memory.stats()
    assert counts.unembedded == 0
    assert sum(counts.vectors.values()) <= len(found)
    return found


def fill(memory):
    memory.add_interaction({"id": "p0", "text": "Where is the kettle?"}, {"id": "r0", "text": LONG}, "a", "s")
    memory.add_interaction({"id": "p1", "text": LONG + " Why?"}, {"id": "r1", "text": "A short answer."}, "a", "s")
    memory.add_message(OTHER, "user", "s", name="Ana", id="p2")
    memory.add_message(OTHER, "assistant", "s", name="Ben", id="r2")
    memory.add_message(LONG, "system", "s", id="y")
    memory.graph.add_node("f", type="fact", text=OTHER + " It is one.")
    memory.graph.add_node("g", type="fragment", text="a piece")
    memory.graph.add_node("n", type="note", text=LONG)


@pytest.mark.parametrize("faiss", [True, False])
def test_passages_have_vectors_with_their_spans_and_keep_them(place, faiss, monkeypatch):
    if not faiss:
        monkeypatch.setitem(sys.modules, "faiss", None)
    elif not installed("faiss"):
        pytest.skip("vectors in faiss's files need faiss-cpu")
    with open_memory(place) as memory:
        fill(memory)
        before = check_pieces(memory)
        count = {text: len(spans(text)) for text in (LONG, LONG + " Why?", OTHER, OTHER + " It is one.")}
        assert min(count.values()) >= 2
        assert memory.stats().vectors == {
            "fact": 1,
            "fact.passages": count[OTHER + " It is one."],
            "fragment": 1,
            "prompt": 3,
            "prompt.passages": count[LONG + " Why?"] + count[OTHER],
            "response": 3,
            "response.passages": count[LONG] + count[OTHER],
        }
        assert memory.vector_index.ntotal == 3  # whole prompts
    if place != ":memory:":
        for _ in range(2):
            with open_memory(place) as memory:
                after = check_pieces(memory)
                assert after.keys() == before.keys()
                for key, value in before.items():
                    assert np.array_equal(value[2], after[key][2])
                memory.link("p0", "p1", "next")


def test_the_last_paragraph_of_a_long_prompt_finds_it(place):
    with open_memory(place) as memory:
        memory.add_interaction({"id": "long", "text": LONG})
        for number in range(30):
            memory.add_interaction({"id": f"short{number}", "text": f"A kettle of kind {number} is for sale."})
        hits = memory.similar(LAST, 3)
        assert hits.ids[0] == "long"
        question = unit(WORDS.embed([LAST]))[0]
        best = max(float(unit(WORDS.embed([LONG[start:end]]))[0] @ question) for start, end in spans(LONG))
        assert hits[0].score == pytest.approx(best, abs=1e-5)
        assert best > float(unit(WORDS.embed([LONG]))[0] @ question) + 0.2
        assert len(set(hits.ids)) == 3
        # All prompts once each, however many passages they have.
        everything = memory.similar(LAST, 100)
        assert sorted(everything.ids) == sorted(node.id for node in memory.nodes("prompt"))
        assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
        assert memory.get_similar_prompts(LAST, 1) == ["long"]
        whole = memory.similar(LONG, 1)
        assert (whole.ids, whole[0].score) == (["long"], pytest.approx(1, abs=1e-5))  # of the whole, not of a passage


def test_the_passages_of_one_text_do_not_crowd_out_others(place):
    with open_memory(place) as memory:
        for number in range(8):
            memory.add_interaction({"id": f"long{number}", "text": f"{LAST} " * 60 + f"This is {number}."})
        memory.add_interaction({"id": "far", "text": "Something else."})
        assert len(memory.similar(LAST, 9)) == 9
        for k in range(1, 9):
            assert {i[:4] for i in memory.similar(LAST, k).ids} == {"long"}
            assert len(set(memory.similar(LAST, k).ids)) == k


def test_passages_of_responses_are_found_among_responses(place):
    with open_memory(place) as memory:
        fill(memory)
        dense, question = memory._dense, unit(WORDS.embed([LAST]))[0]
        for passages in (False, True):
            rows, scores = dense.nearest(question, 3, "default", passages=passages, fields=["response"])
            expected = {}
            for (field, _, node_id, _), (_, _, values) in stored(memory).items():
                if field == "response" + PASSAGES * passages:
                    expected[node_id] = max(expected.get(node_id, -2), float(values @ question))
            ids = [memory._store.at_rows([row])[row].id for row in rows.tolist()]
            assert dict(zip(ids, scores.tolist(), strict=True)) == pytest.approx(expected, abs=1e-5)
            assert scores.tolist() == sorted(scores.tolist(), reverse=True)
        assert ids[0] == "r0"
        there = memory.get("r2").row
        rows, _ = dense.nearest(question, 3, "default", passages=True, among=np.array([there]))
        assert rows.tolist() == [there]


def test_a_namespace_finds_its_own_passages(place):
    with open_memory(place) as memory:
        memory.add_interaction({"id": "mine", "text": LONG})
        if place == ":memory:":
            return
        with open_memory(place, namespace="other") as other:
            assert other.similar(LAST).ids == []
            other.add_interaction({"id": "theirs", "text": OTHER})
            assert other.similar(LAST).ids == ["theirs"]
            check_pieces(other)
        assert memory.similar(LAST).ids == ["mine"]
        assert check_pieces(memory).keys() >= {("prompt.passages", "other", "theirs", 1)}


# --- changing and forgetting ------------------------------------------------------------------------------------


def test_updates_bring_the_passages_of_the_new_text(place):
    with open_memory(place) as memory:
        fill(memory)
        memory.update("p1", text=OTHER)  # shorter
        assert memory.similar(LAST, 1)[0].score < 0.5
        check_pieces(memory)
        memory.update("p1", text="short")
        assert ("prompt.passages", "default", "p1", 1) not in check_pieces(memory)
        memory.update("p1", text=LONG)
        assert memory.get_similar_prompts(LAST, 1) == ["p1"]
        memory.update("p2", metadata={"name": "Eve"})  # another speaker: all of it is embedded again
        memory.update("r1", metadata={"mood": "good"})
        check_pieces(memory)
        memory.update("p2", remove=["name"])
        memory.add_interaction({"id": "p0", "text": LONG})  # recorded again with another text
        memory.graph.add_node("f", text="It is another.")
        check_pieces(memory)
    if place != ":memory:":
        with open_memory(place) as memory:
            check_pieces(memory)


def test_forgetting_takes_the_passages_along(place):
    with open_memory(place) as memory:
        fill(memory)
        before = stored(memory)
        report = memory.forget(["p1", "r0", "f"])
        gone = {key for key in before if key[2] in {"p1", "r0", "f"}}
        assert report.vectors == len(gone)
        assert {field for field, *_ in gone} == {"prompt", "prompt.passages", "response", "response.passages"} | {
            "fact",
            "fact.passages",
        }
        assert check_pieces(memory).keys() == before.keys() - gone
        assert "p1" not in memory.similar(LAST, 9).ids
        memory.forget(session="s")
        assert {key[2] for key in stored(memory)} == {"g", "r1"}  # what p1 was told is nobody's answer any more
        assert memory.similar(LAST, 9).ids == []


def test_a_vector_that_was_brought_along_stands_for_all_of_the_text(place):
    with open_memory(place) as memory:
        memory.add_interaction({"id": "p", "text": LONG}, vector=WORDS.embed([LONG])[0])
        memory.add_interaction({"id": "q", "text": OTHER})
        check_pieces(memory, whole_only=["p"])
        # Passages are made when somebody asks for what is missing.
        report = memory.reindex()
        assert (report.embedded, report.indexed, report.without) == (1, 2, 0)
        check_pieces(memory)
        assert memory.get_similar_prompts(LAST, 1) == ["p"]
        assert memory.reindex().embedded == 0


# --- made again -------------------------------------------------------------------------------------------------


def test_what_was_recorded_without_a_model_gets_passages_too(path):
    with open_memory(path) as memory:
        memory.add_interaction({"id": "first", "text": "so that the store knows its model"})
    with MemoryGraph(path) as memory:  # by whom that model cannot be had
        with pytest.raises(MissingDependency):
            memory.add_interaction({"id": "p", "text": LONG})
        memory.add_interaction({"id": "p", "text": LONG}, {"id": "r", "text": OTHER}, allow_unembedded=True)
        assert memory.stats().unembedded == 2
    with open_memory(path) as memory:
        assert memory.get_similar_prompts(LAST, 9) == ["first"]
        calls = []
        report = memory.reindex(lambda done, whole: calls.append((done, whole)))
        assert (report.embedded, report.indexed, report.without) == (2, 3, 0)
        assert calls == [(1, 2), (2, 2)]
        check_pieces(memory)
        assert memory.get_similar_prompts(LAST, 1) == ["p"]


FIELDS = ["prompt", "prompt.passages", "response", "response.passages", "fact.passages"]


@pytest.mark.parametrize("form", ["faiss", "npy"])
@pytest.mark.parametrize("gone", [c for n in (1, 2, 5) for c in itertools.combinations(FIELDS, n)], ids="+".join)
@pytest.mark.parametrize("cure", ["reindex", "reembed"])
def test_lost_files_of_passages(tmp_path, monkeypatch, form, gone, cure):
    """Whatever part of the vectors is lost, it is made again, and the rest is not made twice."""
    if form == "npy":
        monkeypatch.setitem(sys.modules, "faiss", None)
    elif not installed("faiss"):
        pytest.skip("vectors in faiss's files need faiss-cpu")
    ending = {"faiss": ".faiss", "npy": ".vectors.npy"}[form]
    path = tmp_path / "m.json"
    with open_memory(path) as memory:
        fill(memory)
        before = check_pieces(memory)
    files = [path.with_name("m.json" + ("" if field == "prompt" else f".{field}") + ending) for field in gone]
    for number, file in enumerate(files):
        if number % 2:
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-1] + b"\1")
    damaged = [file.read_bytes() for file in files if file.exists()]
    with open_memory(path) as memory:
        with pytest.raises(EmbeddingsMissing, match="reindex"):
            memory.similar(LAST)
        memory.add_interaction({"id": "new", "text": OTHER + " Later."})  # into the journal
    with open_memory(path) as memory:
        if cure == "reindex":
            report = memory.reindex()
            lost = {key[2] for key in before if key[0] in gone}
            assert report.embedded == len(lost)
        else:
            report = memory.reembed(WORDS)
            assert report.embedded == 9
        assert report.indexed == 9
        check_pieces(memory)
        assert memory.get_similar_prompts(LAST, 1) == ["p1"]
    kept = [file.read_bytes() for file in tmp_path.iterdir() if ".damaged-" in file.name]
    assert [raw for raw in damaged if raw not in kept] == []
    with open_memory(path) as memory:
        check_pieces(memory)
        assert memory.reindex().embedded == 0
        assert memory.get_similar_prompts(LAST, 1) == ["p1"]


def test_a_long_prompt_that_the_original_embedded_gets_passages(tmp_path):
    path = tmp_path / "graph.json"
    nodes = [{"id": "p", "type": "prompt", "text": LONG}, {"id": "r", "type": "response", "text": OTHER}]
    edges = [{"source": "p", "target": "r", "relation": "responded_with"}]
    path.write_text(json.dumps({"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "links": edges}))
    np.save(f"{path}.vectors.npy", WORDS.embed([LONG]).astype(np.float32))
    (tmp_path / "graph.json.map.json").write_text('{"p": 0}')
    with open_memory(path) as memory:
        assert memory.similar(LAST)[0].score < 0.5
        assert memory.reindex().embedded == 2
        check_pieces(memory)
        assert memory.similar(LAST)[0].score > 0.5


def test_two_that_reindex_at_once_make_each_vector_once(path):
    """The second begins when the first has seen what is missing, and is done before the first writes."""
    with open_memory(path) as memory:
        memory.add_interaction("so that the store knows its model")
    with MemoryGraph(path) as memory:
        memory.add_interaction({"id": "p", "text": LONG}, {"id": "r", "text": OTHER}, allow_unembedded=True)
    done = []

    class Beside(Words):
        def embed(self, texts):
            if LONG in texts and not done:
                done.append(True)
                with open_memory(path) as other:
                    done.append(other.reindex().embedded)
                    other.update("r", text=OTHER + " Changed.")
            return super().embed(texts)

    with open_memory(path, Beside()) as memory:
        report = memory.reindex()
        assert done == [True, 2]
        assert (report.embedded, report.indexed) == (0, 3)
        check_pieces(memory)


@pytest.mark.parametrize("kill_after", [1, 2, 3])
def test_a_reembed_that_was_interrupted_goes_on(path, kill_after):
    """Passages move together with their texts; until the last is there, the old ones answer."""
    with open_memory(path) as memory:
        memory.add_many(
            [
                ({"id": f"p{n}", "text": f"{FILLING} Number {n}. {LAST}" if n % 5 == 0 else f"Number {n}."},)
                for n in range(600)
            ]
        )
        fill(memory)
        before = check_pieces(memory)
        hits = [(hit.id, hit.score) for hit in memory.similar(LAST, 5)]
        made = []

        class Interrupted(Words):
            def embed(self, texts):
                if len(made) > kill_after:
                    raise KeyboardInterrupt
                made.append(len(texts))
                return super().embed(texts)

        with pytest.raises(KeyboardInterrupt):
            memory.reembed(Interrupted("new", salt="n"))
        assert [(hit.id, hit.score) for hit in memory.similar(LAST, 5)] == hits
        old = {key: value for key, value in stored(memory).items() if not key[0].endswith(".next")}
        assert old.keys() == before.keys()
        memory.update("p1", text=LONG + " Meanwhile.")
        memory.update("p599", text=LONG + " Meanwhile, too.")
        memory.forget("p5")
    counted = []

    class Counting(Words):
        def embed(self, texts):
            counted.extend(texts)
            return super().embed(texts)

    with open_memory(path) as memory:
        report = memory.reembed(Counting("new", salt="n"))
        assert report.indexed == sum(memory.stats().vectors.get(field, 0) for field in EMBEDDED)
        after = check_pieces(memory, Words("new", salt="n"))
        assert not [field for field, *_ in after if field.endswith(".next")]
        # What was made is not made again, but for the three that changed or went, and the probe.
        assert len(after) - sum(made) <= len(counted) <= len(after) - sum(made) + 2 + 3 * 10
    with open_memory(path, Words("new", salt="n")) as memory:
        check_pieces(memory, Words("new", salt="n"))
        assert len(memory.similar(LAST, 700)) == memory.stats().kinds["prompt"]


def test_a_text_without_a_known_word_and_passages_without(place):
    """What the model knows no word of has no vector, whole or in part, and is not asked for again and again."""

    class Picky(Words):
        def embed(self, texts):
            return super().embed([" ".join(re.findall("kettle|heron|silver|doctor", text)) for text in texts])

    picky = Picky()
    with open_memory(place, picky) as memory:
        memory.add_interaction({"id": "long", "text": LONG}, {"id": "none", "text": OTHER})
        assert memory.stats().vectors == {"prompt": 1, "prompt.passages": 1}
        ((start, end, _),) = [value for key, value in stored(memory).items() if key[0] == "prompt.passages"]
        assert LONG[start:end].endswith(LAST)
        for report in (memory.reindex(), memory.reembed(Picky())):
            assert (report.indexed, report.without) == (1, 1)
            assert memory.stats().vectors == {"prompt": 1, "prompt.passages": 1}
        assert memory.stats().unembedded == 1


def test_the_builtin_model_finds_a_long_answer_by_its_end(place):
    with MemoryGraph(place, "builtin", vector_backend="exact") as memory:
        memory.add_interaction({"id": "p", "text": "How was the trip?"}, {"id": "r", "text": LONG})
        memory.add_interaction({"id": "q", "text": LONG}, {"id": "o", "text": OTHER})
        assert memory.get_similar_prompts("a bird took our teapot", 1) == ["q"]
        question = memory.model.embed(["a bird took our teapot"])[0]
        rows, scores = memory._dense.nearest(question, 2, "default", passages=True, fields=["response"])
        assert memory._store.at_rows(rows.tolist())[int(rows[0])].id == "r"
        _, whole = memory._dense.nearest(question, 2, "default", passages=False, fields=["response"])
        assert scores[0] > whole[0]
        assert check_vectors(memory, memory.model.embed) == set()


def test_the_small_embedder_of_the_other_tests_agrees(place):
    """Of the vectors in the store, those of whole texts are what the tests of damage and crashes compare."""
    with open_memory(place, fake) as memory:
        fill(memory)
        assert check_vectors(memory) == set()


def test_vectors_of_other_kinds_move_along(place):
    """One that was brought along for a message of the system is made by the new model, for the text as a whole."""
    with open_memory(place) as memory:
        memory.add_message(LONG, "system", "s", id="y", vector=WORDS.embed([LONG])[0])
        memory.add_interaction({"id": "p", "text": OTHER})
        assert memory.stats().vectors == {"prompt": 1, "prompt.passages": len(spans(OTHER)), "system": 1}
        assert memory.reindex().embedded == 0
        new = Words("new", salt="n")
        assert memory.reembed(new).embedded == 2
        found = stored(memory)
        assert {(field, node) for field, _, node, _ in found} == {
            ("prompt", "p"),
            ("prompt.passages", "p"),
            ("system", "y"),
        }
        np.testing.assert_allclose(found["system", "default", "y", 0][2], unit(new.embed([LONG]))[0], atol=1e-6)
