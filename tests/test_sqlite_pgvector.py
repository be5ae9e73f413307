"""SQLite memories that hold vectors in the binary form of the package pgvector, and SQL that compares them."""

from __future__ import annotations

import math
import sqlite3
import struct
import sys
from contextlib import closing

import numpy as np
import pytest
from outside import Fake, fake, unit

from raeburnmemory.doctor import repair, verify
from raeburnmemory.errors import InvalidInput, MissingDependency, StoreCorrupt, UnknownBackend
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.store import open_store
from raeburnmemory.store.sqlite_vectors import pack_vector, register_functions, unpack_vector

TEXTS = ["the red key", "the blue pot", "a pot of tea", "keys to the shed"]


@pytest.fixture
def package():
    return pytest.importorskip("pgvector", reason="asks the package pgvector what its form is")


def filled(path, **options):
    with MemoryGraph(path, Fake(), vector_backend="exact", **options) as memory:
        memory.add_many(
            [({"id": f"p{n}", "text": text}, {"id": f"r{n}", "text": f"about {text}"}) for n, text in enumerate(TEXTS)]
        )
        return [(hit.id, hit.score) for hit in memory.similar("the key", 4)]


def blobs(path):
    with closing(sqlite3.connect(path)) as db:
        return [raw for (raw,) in db.execute("SELECT vector FROM vectors WHERE row IS NOT NULL ORDER BY key")]


def test_vectors_are_what_the_package_reads(package, tmp_path):
    filled(tmp_path / "memory.db", vector_format="pgvector")
    found = [package.Vector.from_binary(raw).to_list() for raw in blobs(tmp_path / "memory.db")]
    expected = unit(fake([*TEXTS, *(f"about {text}" for text in TEXTS)]))
    assert sorted(np.round(found, 5).tolist()) == sorted(np.round(expected.astype(np.float64), 5).tolist())
    assert {len(raw) for raw in blobs(tmp_path / "memory.db")} == {4 + 4 * 16}


def test_the_form_is_chosen_once(package, tmp_path, monkeypatch):
    path = tmp_path / "memory.db"
    before = filled(path, vector_format="pgvector")
    monkeypatch.setitem(sys.modules, "pgvector", None)
    with MemoryGraph(path, Fake(), vector_backend="exact") as memory:  # whoever has no pgvector opens it all the same
        assert [hit.score for hit in memory.similar("the key", 4)] == [score for _, score in before]
        memory.add_interaction("the green key", "no")
        memory.update(memory.similar("the red key", 1).ids[0], text="the reddest key")
    assert {len(raw) for raw in blobs(path)} == {4 + 4 * 16}
    with pytest.raises(InvalidInput, match="holds vectors as pgvector, but vector_format='float32' was asked for"):
        MemoryGraph(path, vector_format="float32")
    filled(tmp_path / "plain.db", vector_format="float32")
    assert {len(raw) for raw in blobs(tmp_path / "plain.db")} == {4 * 16}
    with pytest.raises(InvalidInput, match="holds vectors as float32, but vector_format='pgvector'"):
        MemoryGraph(tmp_path / "plain.db", vector_format="pgvector")
    assert MemoryGraph(path, vector_format="pgvector").db_path == str(path)
    with pytest.raises(MissingDependency, match=r"pip install 'raeburnmemory\[pgvector\]'"):
        MemoryGraph(tmp_path / "new.db", vector_format="pgvector")
    assert not (tmp_path / "new.db").exists()


def test_where_it_cannot_be_chosen(tmp_path):
    with pytest.raises(UnknownBackend, match="No form of vectors is called 'half'. Choose one of: float32, pgvector"):
        MemoryGraph(tmp_path / "a.db", vector_format="half")
    for place in (tmp_path / "a.json", ":memory:"):
        with pytest.raises(InvalidInput, match="is for SQLite"):
            MemoryGraph(place, vector_format="pgvector")
    assert list(tmp_path.iterdir()) == []


def test_both_forms_say_the_same(package, tmp_path):
    plain, other = (tmp_path / name for name in ("plain.db", "other.db"))
    scores = [
        [score for _, score in filled(path, vector_format=form)] for path, form in ((plain, None), (other, "pgvector"))
    ]
    assert scores[0] == scores[1]
    assert verify(plain).digests["vectors"] == verify(other).digests["vectors"]
    with MemoryGraph(other, Fake(), vector_backend="exact") as memory:
        memory.reembed(Fake("longer", 24))
    assert {len(raw) for raw in blobs(other)} == {4 + 4 * 24}
    assert verify(other).sound


def test_a_json_memory_becomes_one(package, tmp_path):
    before = filled(tmp_path / "memory.json")
    with MemoryGraph(tmp_path / "memory.json", Fake(), "sqlite", "exact", vector_format="pgvector") as memory:
        assert [(hit.id, hit.score) for hit in memory.similar("the key", 4)] == before
    assert {len(raw) for raw in blobs(tmp_path / "memory.db")} == {4 + 4 * 16}


def test_damage_is_found_and_mended(package, tmp_path):
    path = tmp_path / "memory.db"
    filled(path, vector_format="pgvector")
    for damaged in (struct.pack(">HH", 15, 0) + b"\0" * 64, struct.pack(">HH", 16, 1) + b"\0" * 64, b"\0" * 72):
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "UPDATE vectors SET vector = ? WHERE row = (SELECT min(row) FROM nodes WHERE kind = 'prompt')",
                (damaged,),
            )
        assert not verify(path).sound
        with MemoryGraph(path, Fake(), vector_backend="exact") as memory, pytest.raises(StoreCorrupt, match="reindex"):
            memory.similar("the key", 4)
        repair(path, embedding_model=Fake())
        assert verify(path).sound
        with MemoryGraph(path, Fake(), vector_backend="exact") as memory:
            memory.reindex()
            assert len(memory.similar("the key", 4)) == 4
        assert {len(raw) for raw in blobs(path)} == {4 + 4 * 16}


def test_sql_compares_vectors(package, tmp_path):
    path = tmp_path / "memory.db"
    filled(path, vector_format="pgvector")
    question = unit(fake(["the key"]))[0]
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        register_functions(db)
        for given in (package.Vector(question).to_binary(), question.tobytes(), package.Vector(question).to_text()):
            rows = db.execute(
                "SELECT n.text, cosine_distance(v.vector, :q), l2_distance(v.vector, :q) FROM vectors v "
                "JOIN nodes n USING (row) WHERE n.kind = 'prompt' ORDER BY 2, n.text",
                {"q": given},
            ).fetchall()
            expected = [
                (text, vector) for text, vector in zip(TEXTS, unit(fake(TEXTS)).astype(np.float64), strict=True)
            ]
            assert sorted(text for text, _, _ in rows) == sorted(TEXTS)
            for text, cosine, distance in rows:
                vector = dict(expected)[text]
                assert cosine == pytest.approx(
                    1 - math.fsum(a * b for a, b in zip(vector, question.tolist(), strict=True)), abs=1e-6
                )
                assert distance == pytest.approx(math.dist(vector, question), abs=1e-6)
    store = open_store(path)
    with closing(store):
        store._db.execute("SELECT cosine_distance('[1, 0]', '[1, 0]')")  # its own connection knows them, too


def test_what_sql_answers_for_no_vector():
    with closing(sqlite3.connect(":memory:")) as db:
        register_functions(db)

        def ask(one, two, name="cosine_distance"):
            return db.execute(f"SELECT {name}(?, ?)", (one, two)).fetchone()[0]

        assert ask(None, "[1, 2]") is None
        assert ask("[1, 2]", None, "l2_distance") is None
        assert ask("[0, 0]", "[1, 2]") is None
        assert ask("[1, 2]", "[2, 4]") == pytest.approx(0, abs=1e-12)
        assert ask("[1, 2]", "[-1, -2]") == pytest.approx(2)
        assert ask("[1, 2, 2]", "[0, 0, 0]", "l2_distance") == 3
        for one, two in (
            ("[1]", "[1, 2]"),
            ("x", "[1]"),
            ("[[1]]", "[1]"),
            (b"abc", "[1]"),
            (3, "[1]"),
            ('{"a": 1}', "[1]"),
        ):
            with pytest.raises(sqlite3.OperationalError):
                ask(one, two)


def test_forms_are_told_apart_by_length():
    values = np.array([1.0, -2.5], np.float32)
    assert bytes(pack_vector(values, "pgvector")) == bytes.fromhex("0002 0000 3f800000 c0200000")
    assert bytes(pack_vector(values, "float32")) == bytes.fromhex("0000803f 000020c0")
    for form in ("pgvector", "float32"):
        assert unpack_vector(bytes(pack_vector(values, form)), 2).tolist() == [1.0, -2.5]
        assert unpack_vector(bytes(pack_vector(values, form))).tolist() == [1.0, -2.5]
        assert unpack_vector(bytes(pack_vector(values, form)), 4) is None
    assert unpack_vector(bytes.fromhex("0002 0000 00000000 00000000"), 3).tolist() == [
        struct.unpack("<f", b"\0\2\0\0")[0],
        0,
        0,
    ]
    with pytest.raises(InvalidInput, match="16,000 numbers or fewer, not 16,001"):
        pack_vector(np.zeros(16_001, np.float32), "pgvector")
