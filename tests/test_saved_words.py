"""Words that are saved when a memory is closed: found again by the next process, never believed beyond what they say."""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import tempfile
from contextlib import closing
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import fake, run

from raeburnmemory import MemoryGraph
from raeburnmemory._optional import installed
from raeburnmemory.corpus import Corpus
from raeburnmemory.index import _parts_file
from raeburnmemory.index._names import Names
from raeburnmemory.index._parts_file import MAGIC, examine_parts, read_parts, write_parts
from raeburnmemory.index.lexical import LexicalIndex
from raeburnmemory.nodes import Batch, Node
from raeburnmemory.related import RelatedWords
from raeburnmemory.saved_words import saved_as
from raeburnmemory.store import open_store

COUNT = 1100
THINGS = ["harbour", "boat", "lantern", "violin", "orchard", "glacier", "kettle", "saddle"]


def open_memory(path, **options):
    return MemoryGraph(path, fake, vector_backend="exact", **options)


def text(number):
    return f"Ana saw a {THINGS[number % 8]} and number{number} near the {THINGS[number // 8 % 8]}, is it so?"


def fill(path, count=COUNT, **options):
    with open_memory(path, **options) as memory:
        memory.add_many(
            {
                "prompt": {"id": f"p{n}", "text": text(n)},
                "session_id": f"s{n // 20}",
                "agent": {"id": "a", "name": "Bo"},
            }
            if n % 5
            else {
                "prompt": {"id": f"p{n}", "text": text(n)},
                "response": {"id": f"r{n}", "text": f"Yes, {text(n + 3)}"},
            }
            for n in range(count)
        )
        memory.link("p3", "p9", "supersedes")
        memory.recall("the boat")


@pytest.fixture(scope="module", params=["m.db", "m.json"])
def filled(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / request.param
    fill(path)
    assert path.with_name(f"{path.name}.words.index").exists()
    return path


@pytest.fixture
def path(filled, tmp_path):
    for name in filled.parent.iterdir():
        shutil.copy(name, tmp_path)
    return tmp_path / filled.name


def saved(path):
    return path.with_name(path.name + ".words.index")


def folds(path):
    """Tell whether what came since is forgotten when the memory is closed: a small JSON memory is folded then."""
    return path.suffix == ".json"


def found(path, **options):
    """Return what some searches find, and whether the nodes had to be read for it."""
    with open_memory(path, read_only=True, **options) as memory:
        store, calls = memory._store, []
        nodes, store.nodes = store.nodes, lambda where: calls.append(where) or nodes(where)
        hits = [
            memory.recall(question, 12).to_dicts()
            for question in ("a violin near the glacier", "number77", "did Bo see a kettle?", "saddle orchard boat")
        ]
        return hits, bool(calls)


def test_the_next_process_finds_the_same_without_reading_everything(path):
    with_words, read = found(path)
    assert not read
    saved(path).unlink()
    assert found(path) == (with_words, True)
    assert all(with_words)
    assert not saved(path).exists()  # who only reads saves nothing


def test_what_came_since_is_caught_up(path):
    before = saved(path).read_bytes()
    with open_memory(path) as memory:
        memory.add_message("The zeppelin landed on the glacier.", session_id="s3", id="new")
        memory.update("p8", text="A zeppelin over the kettle")
        memory.forget(["p16"])
    assert saved(path).read_bytes() == before  # not worth it yet
    hits, read = found(path)
    saved(path).unlink()
    assert found(path)[0] == hits
    with open_memory(path, read_only=True) as memory:
        assert set(memory.recall("zeppelin", 2).ids) == {"new", "p8"}
    assert read == folds(path)  # nobody asked before the journal was folded


def test_a_large_json_memory_goes_on_with_its_journal(tmp_path, monkeypatch):
    monkeypatch.setattr("raeburnmemory.store.json._SMALL", 0)
    path = tmp_path / "m.json"
    fill(path)
    with open_memory(path) as memory:
        memory.export()
        memory.recall("boat")
    before = saved(path).read_bytes()
    with open_memory(path) as memory:
        memory.add_message("The zeppelin landed on the glacier.", session_id="s3", id="new")
        memory.update("p8", text="A zeppelin over the kettle")
        memory.forget(["p16"])
        memory.link("p20", "p21", "supersedes")
    assert saved(path).read_bytes() == before
    hits, read = found(path)
    assert not read
    with open_memory(path) as memory:
        memory.export()  # somebody folds
    saved(path).unlink()
    assert found(path) == (hits, True)


def test_a_journal_that_another_one_took_the_place_of_is_not_gone_on_with(tmp_path, monkeypatch):
    """The same memory put back as it was, and changed in another way: the versions are the same, their marks not."""
    monkeypatch.setattr("raeburnmemory.store.json._SMALL", 0)
    path, other = tmp_path / "m.json", tmp_path / "other.json"
    fill(path)
    with open_memory(path) as memory:
        memory.backup(other)
        memory.add_message("The zeppelin landed on the glacier.", id="new")
        memory.recall("boat")
        memory._recall._saved.save(memory._recall._corpus, None)
    with open_memory(other) as memory:
        memory.add_message("A comet passed by the lantern.", id="new")
        version = memory._store.version()
    assert examine_parts(str(saved(path)))[0]["version"] == version
    for name in tmp_path.glob("other.json*"):
        if not name.name.endswith((".lock", ".gate")):
            shutil.copy(name, tmp_path / name.name.replace("other", "m"))
    with open_memory(path, read_only=True) as memory:
        assert memory.recall("comet", 1).ids == ["new"]
        assert not memory.recall("zeppelin", 1, legs="lexical")


@pytest.mark.parametrize("many", [False, True])
def test_saved_again_when_much_came(path, many):
    before = saved(path).read_bytes()
    with open_memory(path) as memory:
        count = 1001 if many else 900
        memory.add_many({"prompt": {"id": f"q{n}", "text": text(n)}} for n in range(count))
        memory.recall("boat")
    assert (saved(path).read_bytes() != before) == (many or folds(path))
    assert found(path)[1] is False


def test_not_saved_for_a_few_and_not_unasked(tmp_path):
    fill(tmp_path / "few.db", 300)
    with open_memory(tmp_path / "unasked.db") as memory:
        memory.add_many({"prompt": {"id": f"p{n}", "text": text(n)}} for n in range(COUNT))
    fill(":memory:")
    assert not list(tmp_path.glob("*words*"))


def test_each_namespace_has_its_own(path):
    with open_memory(path, namespace="a/../b c") as memory:
        memory.add_many({"prompt": {"id": f"p{n}", "text": text(n + 5)}} for n in range(COUNT))
        memory.recall("the boat")
    digest = hashlib.sha256(b"a/../b c").hexdigest()[:16]
    other = path.with_name(f"{path.name}.words-{digest}.index")
    assert other.exists()
    assert saved_as("default") == "words"
    hits, read = found(path, namespace="a/../b c")
    assert not read
    shutil.copy(saved(path), other)  # that of another namespace
    assert found(path, namespace="a/../b c") == (hits, True)


def test_damage_is_found_and_named_and_nothing_is_missed(path, caplog):
    hits, _ = found(path)
    raw = saved(path).read_bytes()
    random = Random(7)
    places = [0, 5, 25, 84, 85, 90, 200, len(raw) - 1, *(random.randrange(len(raw)) for _ in range(40))]
    spoiled = [raw[:at] + bytes([raw[at] ^ 1 << random.randrange(8)]) + raw[at + 1 :] for at in places]
    spoiled += [raw[:at] for at in (0, 10, 84, 300, len(raw) // 2, len(raw) - 1)] + [raw + b"\0", b"\0" * len(raw)]
    for each in spoiled:
        saved(path).write_bytes(each)
        caplog.clear()
        assert isinstance(examine_parts(str(saved(path))), str)
        assert read_parts(str(saved(path)), {}) is None
        assert f"{path.name}.words.index" in caplog.text
    assert found(path) == (hits, True)
    saved(path).unlink()
    saved(path).mkdir()
    assert found(path) == (hits, True)
    assert "it is not a file" in caplog.text


def test_a_damaged_file_is_replaced(path):
    saved(path).write_bytes(b"?" * 1000)
    with open_memory(path) as memory:
        memory.recall("boat")
    assert found(path)[1] is False


def test_a_header_that_claims_too_much(tmp_path, caplog):
    def made(header):
        line = json.dumps(header).encode() + b"\n"
        place = tmp_path / "x"
        place.write_bytes(MAGIC + hashlib.sha256(line).hexdigest().encode() + b"\n" + line + b"1234")
        return str(place)

    good = {"format": 1, "stamp": {}, "parts": [["a", "<i4", 1, 0x9BE3E0A3]]}
    stamp, parts = examine_parts(made(good))
    assert (stamp, parts["a"].tolist()) == ({}, np.frombuffer(b"1234", "<i4").tolist())
    for change, message in (
        ({"format": 2}, "format is 2"),
        ({"parts": [["a", "<i4", 10**15, 0]]}, "has 4 bytes"),
        ({"parts": [["a", "<i4", -1, 0]]}, "incomplete"),
        ({"parts": [["a", "|O", 1, 0]]}, "incomplete"),
        ({"parts": [["a", "json", 4, 0x9BE3E0A3]]}, "no list"),
        ({"parts": [["a", "<i4", 1, 5]]}, "do not match"),
        ({"parts": 7}, "incomplete"),
        ({"stamp": None}, "incomplete"),
    ):
        assert message in examine_parts(made({**good, **change}))


@pytest.mark.parametrize(
    "part", ["flags", "ids.hashes", "words.ends", "related.numbers", "related.begins", "related.rests", "related.count"]
)
def test_a_whole_file_that_lacks_a_part_is_not_used(path, part, caplog):
    hits, _ = found(path)
    stamp, parts = examine_parts(str(saved(path)))
    write_parts(str(saved(path)), stamp, {name: values for name, values in parts.items() if name != part})
    assert found(path) == (hits, True)
    assert f"{path.name}.words.index" in caplog.text


@pytest.mark.parametrize("change", ["store", "mark", "version", "rules"])
def test_words_of_another_past_are_not_used(path, change, monkeypatch):
    hits, _ = found(path)
    stamp, parts = examine_parts(str(saved(path)))
    if change == "rules":
        monkeypatch.setattr("raeburnmemory.corpus._RULES", 10**6)
    else:
        write_parts(str(saved(path)), {**stamp, change: {"version": stamp["version"] + 1}.get(change, "other")}, parts)
    assert found(path) == (hits, True)


def test_words_of_another_language_are_not_used(path):
    hits, _ = found(path, language="none")
    assert found(path, language="none") == (hits, True)
    with open_memory(path, language="none") as memory:
        memory.recall("boat")
    assert found(path, language="none") == (hits, False)


def test_an_older_copy_put_back_does_not_get_the_newer_words(path, tmp_path):
    older = tmp_path / f"older{path.suffix}"
    with open_memory(path) as memory:
        memory.backup(older)
        memory.add_many({"prompt": {"id": f"q{n}", "text": text(n)}} for n in range(COUNT))
        memory.recall("boat")
    hits, read = found(older)
    assert read
    for name in path.parent.glob(f"{path.name}*"):
        if not name.name.endswith(("words.index", ".lock", ".gate")):
            name.unlink()
    for name in path.parent.glob(f"{older.name}*"):
        if not name.name.endswith((".lock", ".gate")):
            shutil.copy(name, path.with_name(name.name.replace(older.name, path.name)))
    assert found(path) == (hits, True)


def test_forgetting_for_good_takes_the_words_along(path):
    with open_memory(path) as memory:
        memory.add_message("The password is xyzzyplugh99.", id="secret")
        memory.add_many({"prompt": {"id": f"q{n}", "text": text(n)}} for n in range(COUNT))
        memory.recall("boat")
    assert b"xyzzyplugh99" in saved(path).read_bytes()
    with open_memory(path) as memory:
        memory.recall("password")
        memory.forget("secret", secure=True)
        memory.recall("password")
    for name in path.parent.iterdir():
        assert b"xyzzyplugh99" not in name.read_bytes(), name


def test_a_process_that_still_knows_it_saves_nothing_of_it(path):
    """It was read before the other one forgot, and is closed after."""
    with open_memory(path) as memory:
        memory.add_message("The password is xyzzyplugh99.", id="secret")
        memory.add_many({"prompt": {"id": f"q{n}", "text": text(n)}} for n in range(COUNT))
        memory.recall("boat")
        forget = "from test_saved_words import open_memory\nopen_memory(PATH).forget('secret', secure=True)"
        run(forget.replace("PATH", repr(str(path))))
    for name in path.parent.iterdir():
        assert b"xyzzyplugh99" not in name.read_bytes(), name


def test_arrays_and_texts_come_back_as_they_were(tmp_path):
    parts = {
        "i": np.array([1, -5, 2**31 - 1], np.int32),
        "l": np.array([2**62], ">i8"),
        "f": np.array([np.nan, np.inf, -0.0], np.float64),
        "none": np.empty(0, np.float32),
        "texts": ["", "\n", "\ud800", "ä\0", '"'],
    }
    write_parts(str(tmp_path / "x"), {"a": [1]}, parts)
    stamp, back = read_parts(str(tmp_path / "x"), {"a": (1,)})
    assert stamp == {"a": [1]}
    assert back["texts"] == parts["texts"]
    for name in "ilf":
        assert back[name].dtype.isnative
        assert back[name].tobytes() == parts[name].astype(parts[name].dtype.newbyteorder("=")).tobytes()
    assert (back["none"].dtype, len(back["none"])) == (np.float32, 0)
    assert read_parts(str(tmp_path / "x"), {"a": [2]}) is None
    assert read_parts(str(tmp_path / "nothing"), {}) is None
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_an_index_made_of_its_parts_goes_on_like_the_one_that_gave_them():
    one = LexicalIndex("none")
    for number in range(50):
        one.put(number, text(number))
    one.put(7, "red wine")
    one.put(8, None)
    two = LexicalIndex("none", {name: part.copy() for name, part in one.to_parts().items()})
    for index in (one, two):
        index.put(50, "wine and cheese")
        index.put(3, "a violin")
        index.put(7, None)
    assert (two.held, two.total, two.written[:]) == (one.held, one.total, one.written[:])
    for word in ("wine", "violin", "harbour", "nothing", "number3"):
        for mine, others in zip(two.postings(two.term(word)), one.postings(one.term(word)), strict=True):
            assert mine.tolist() == others.tolist()
    for number in range(51):
        assert two.stream_of(number).tolist() == one.stream_of(number).tolist()


@given(
    saved=st.lists(st.text(max_size=4) | st.sampled_from(["a", "b", "ab", "\ud800"]), max_size=12),
    new=st.lists(st.text(max_size=4) | st.sampled_from(["a", "b", "ab", "\ud800"]), max_size=12),
    asked=st.lists(st.text(max_size=4) | st.sampled_from(["a", "b", "ab", "\ud800"]), max_size=5),
)
def test_names_are_found_by_what_they_say(saved, new, asked):
    names, told = Names(), []
    for part in (saved, new):
        names = Names(names.to_parts())
        for text in part:
            names.append(text)
            told.append(text)
    assert names[:] == told == [names[place] for place in range(len(names))]
    for text in {*told, *asked}:
        here = {place for place, other in enumerate(told) if other == text}
        found = list(names.find(text))
        assert set(found) <= here
        assert {place for place in here if place < len(saved)} <= set(found)
        assert (max(here, default=-1) in found) == bool(here)
        assert names.place(text) in (here or {-1})
    with pytest.raises(IndexError):
        names[len(names)]
    with pytest.raises(IndexError):
        names[-1]


def test_names_with_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr("raeburnmemory.index._names._hash", len)
    names = Names()
    for text in ("ab", "cd", "e", "ef"):
        names.append(text)
    names = Names(names.to_parts())
    assert [names.place(text) for text in ("cd", "ef", "ab", "xy", "e", "")] == [1, 3, 0, -1, 2, -1]


@pytest.mark.parametrize("room", ["mapped", "full", "none"])
def test_a_large_file_is_mapped_and_changed_in_this_process_alone(tmp_path, room, monkeypatch):
    monkeypatch.setattr(_parts_file, "_LARGE", 100)
    place, scratch = str(tmp_path / "x"), None if room == "none" else str(tmp_path)
    numbers, texts = np.arange(1000, dtype=np.int64), ["a", "b"]
    parts = {"n": numbers, "t": texts, "none": np.empty(0, np.int32), "b": np.arange(7, dtype=np.uint8)}
    write_parts(place, {}, parts)
    if room == "full":
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b", 0))  # noqa: SIM115
    before = (tmp_path / "x").read_bytes()
    _, found = read_parts(place, {}, scratch)
    held = found["n"]
    while held.base is not None and not isinstance(held.base, (memoryview, mmap.mmap)):
        held = held.base
    assert (held.base is not None) == (room == "mapped")
    assert found["n"].tolist() == numbers.tolist()
    assert (found["t"], len(found["none"]), found["b"].tolist()) == (texts, 0, list(range(7)))
    (tmp_path / "x").write_bytes(b"")  # nobody can cut what is mapped
    found["n"][3] = 99
    assert found["n"].tolist() == [0, 1, 2, 99, *range(4, 1000)]
    (tmp_path / "x").write_bytes(before)
    assert read_parts(place, {}, scratch)[1]["n"][3] == 3
    assert [name.name for name in tmp_path.iterdir()] == ["x"]
    (tmp_path / "x").write_bytes(before[:-1] + b"?")
    assert read_parts(place, {}, scratch) is None


def test_related_words_begin_with_their_vectors():
    index = LexicalIndex("none")
    index.put(0, "puppy 2024 dog kitten 3rd cat violin")
    asked = ["dog", "cats", "wolf", "guitar", "xyzzy", "2024"]
    fresh = RelatedWords(index)
    parts = {**index.to_parts(), **{name: part.copy() for name, part in fresh.to_parts().items()}}
    assert parts["related.numbers"].tolist() == [0, 2, 3, 5, 6]  # numbers and codes have no vectors
    again = LexicalIndex("none", parts)
    begun = RelatedWords(again, parts)
    for number, text in enumerate(["puppy 2024 dog kitten 3rd cat violin", "hound 7 and cello", "wolves"]):
        index.put(number, text)
        again.put(number, text)
        fresh._known = begun._known = {}
        for mine, others in zip(begun.of(asked), fresh.of(asked), strict=True):
            assert [(again.written[term], weight) for term, weight in mine] == [
                (index.written[term], pytest.approx(weight)) for term, weight in others
            ]
        assert any(begun.of(asked))


@pytest.mark.skipif(not installed("Stemmer"), reason="stems are those of PyStemmer")
def test_whoever_changes_the_rules_says_so(tmp_path):
    """If this fails because texts become other words or columns on purpose: raise `_RULES` in corpus.py.

    What others saved by the old rules would be used for the new ones otherwise.
    """
    with closing(open_store(tmp_path / "m.db")) as store:
        texts = [
            "Where did the wolves go?",
            "She said \u201cthe caf\u00e9\u2019s children\u201d ran in 2021.",
            "\u6771\u4eac\u306e\u732b",
            "",
            "From now on be brief.",
        ]
        nodes = [
            Node(f"p{n}", "prompt", each, {"timestamp": "2026-01-02T03:04:05+00:00"}) for n, each in enumerate(texts)
        ]
        store.write(Batch(nodes=[*nodes, Node("r", "response", "O'Neill's answers", {"name": "Zo\u00eb"})]))
        corpus = Corpus(store, "default")
        corpus.catch_up()
        parts = corpus.to_parts()
        known = corpus.words._vocabulary[:]
    assert " ".join(known) == (
        "wolv go say cafe child run 2021 \u6771 \u6771\u4eac \u4eac \u4eac\u306e \u306e \u306e\u732b \u732b brief zoe o'neill answer"
    )
    assert parts["flags"].tolist() == [9, 17, 1, 0, 33, 7]
    assert list(parts)[:13] == [
        *("rows", "kinds", "speakers", "sessions", "agents", "previous", "following", "asked", "answer", "newer"),
        *("flags", "times", "expires"),
    ]
