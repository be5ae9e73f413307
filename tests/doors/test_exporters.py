"""Exporters: what they write is read back by other means, and our own lines come back byte for byte."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outside import Fake, environment

from raeburnmemory import Link, MemoryGraph, Node
from raeburnmemory.errors import EmbedderMismatch, InvalidInput, KindConflict, StoreWriteFailed
from raeburnmemory.exporters import FORMATS, export_file, schema
from raeburnmemory.importers import import_file

LONG = "The kettle whistles in the kitchen. " * 40


def filled(path=":memory:", namespace="default", **options):
    """Return a memory with something of everything."""
    memory = MemoryGraph(path, embedding_model="builtin", namespace=namespace, **options)
    memory.add_interaction(
        {"id": "p1", "text": "Which tea?\n# no heading", "topic": "drinks"},
        {"id": "r1", "text": "Sencha, 70 °C <hot> & \u0007 \U0001f375", "score": 0.5},
        {"id": "bot", "name": "Helper", "traits": {"kind": True}},
        "s1",
        timestamp="2026-01-01T10:00:00.123456Z",
    )
    memory.add_messages([{"text": LONG, "id": "p2"}, {"text": "Yes.", "role": "assistant", "id": "r2"}], "s1")
    memory.add_message("Alone", id="p3", metadata={"stars": 5, "tags": ["a", 1.5, None], "when": None})
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Graz", id="f1", valid_from="2020-01-01", timestamp="2020-01-02", source="p1")
    memory.fact("Ana", "lives_in", "Vienna", id="f2", valid_from="2024-05-01", timestamp="2024-05-01")
    memory.fact("Ana", "likes", "tea", id="f3", valid_from="2020-01-01", timestamp="2020-01-01")
    memory.retract("f3", at="2025-01-01")
    memory.put(
        [
            Node("fragment/book/1", "fragment", "A page", {"collection": "book", "key": "1", "stars": 4.5}),
            Node("thing", "thing", None, {"zeta": 1, "alpha": {"b": [2, {"d": 0, "c": -0.0}], "a": 10**30}}),
            Node("later", "note", "Gone one day", {}, expires_at=4_000_000_000.25),
        ],
        [
            Link("thing", "fragment/book/1", "cites", {"page": 3}),
            Link("thing", "fragment/book/1", "likes"),
            ("p3", "p3", "is"),
        ],
    )
    return memory


def content(memory):
    """Return all that a namespace holds, by the contract of its store, vectors as bytes."""
    store = memory._store
    nodes = {node.row: node for node in store.nodes(_where(memory))}
    vectors = set()
    for field in store.counts(None)["vectors"]:
        for block in store.vectors(field, -1).blocks:
            for row, values, span in zip(block.rows.tolist(), block.values, block.spans.tolist(), strict=True):
                if row in nodes:
                    vectors.add((nodes[row].id, field, *span, values.tobytes()))
    return (
        [(n.id, n.kind, n.text, n.expires_at, json.dumps(dict(n.attributes), sort_keys=True)) for n in nodes.values()],
        [
            (e.source, e.target, e.relation, json.dumps(dict(e.data), sort_keys=True))
            for e in store.all_links(memory.namespace)
        ],
        vectors,
        memory.single_valued(),
    )


def _where(memory):
    from raeburnmemory.nodes import Where

    return Where(memory.namespace)


# --- JSON lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("to", ["b.json", "b.db", ":memory:"])
def test_lines_bring_everything_back_byte_for_byte(tmp_path, monkeypatch, vectors, to):
    monkeypatch.chdir(tmp_path)
    with filled("a.db") as memory:
        written = export_file(memory, "jsonl", "one.jsonl", vectors=vectors)
        before = content(memory)
    with MemoryGraph(to, embedding_model="builtin") as copy:
        planned = import_file(copy, "jsonl", "one.jsonl", dry_run=True)
        assert len(copy) == 0
        report = import_file(copy, "jsonl", "one.jsonl")
        export_file(copy, "jsonl", "two.jsonl", vectors=vectors)
        assert content(copy) == before
        version = copy.stats().version
        assert import_file(copy, "jsonl", "one.jsonl").new == 0
        assert copy.stats().version == version
        assert [node.id for node in copy.facts()] == ["f2"]
        assert [node.id for node in copy.facts(as_of="2021-01-01")] == ["f1", "f3"]
        assert copy.retract("f2").id == "f2"  # they are facts like any others
    assert Path("one.jsonl").read_bytes() == Path("two.jsonl").read_bytes()
    assert (report.kinds, report.links, report.new) == (planned.kinds, planned.links, planned.new)
    assert (report.nodes, report.new) == (written.nodes, written.nodes)
    assert (written.vectors > 10) == vectors


def test_lines_come_back_through_postgres(tmp_path, postgres_url):
    with filled() as memory:
        export_file(memory, "jsonl", tmp_path / "one.jsonl", vectors=True)
        expected = content(memory)
    with MemoryGraph(postgres_url, embedding_model="builtin") as copy:
        import_file(copy, "jsonl", tmp_path / "one.jsonl")
        assert import_file(copy, "jsonl", tmp_path / "one.jsonl").new == 0
        export_file(copy, "jsonl", tmp_path / "two.jsonl", vectors=True)
        assert content(copy) == expected
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_lines_that_hold_vectors_embed_nothing(tmp_path):
    class Listening(Fake):
        heard = ()

        def embed(self, texts):
            self.heard += tuple(texts)
            return super().embed(texts)

    with MemoryGraph(":memory:", embedding_model=Fake()) as memory:
        memory.add_interaction({"id": "p1", "text": "green tea"}, "black tea")
        export_file(memory, "jsonl", tmp_path / "v.jsonl", vectors=True)
    model = Listening()
    with MemoryGraph(":memory:", embedding_model=model) as copy:
        import_file(copy, "jsonl", tmp_path / "v.jsonl")
        assert not {"green tea", "black tea"} & {*model.heard}
        assert copy.stats().unembedded == 0
        assert copy.similar("green tea", 1)[0].score == pytest.approx(1)
    with MemoryGraph(":memory:", embedding_model=Fake("other", dim=8)) as other:
        for _ in range(2):
            with pytest.raises(
                EmbedderMismatch, match="16-number vectors of 'fake', the memory 8-number vectors of 'o"
            ):
                import_file(other, "jsonl", tmp_path / "v.jsonl")
            assert "p1" not in other
            other.add_interaction("coffee")


def test_the_values_of_a_vector_are_what_the_schema_says(tmp_path):
    with MemoryGraph(":memory:", embedding_model=Fake(dim=4)) as memory:
        memory.add_interaction({"id": "p1", "text": "green tea"})
        expected = memory.vectors(["p1"])["p1"]
        export_file(memory, "jsonl", tmp_path / "v.jsonl", vectors=True)
    (vector,) = [line for line in lines_of(tmp_path / "v.jsonl") if line["record"] == "vector"]
    assert struct.unpack("<4f", base64.b64decode(vector["values"])) == tuple(expected.tolist())
    assert (vector["node"], vector["field"], vector["part"], vector["start"], vector["end"]) == (
        "p1",
        "prompt",
        0,
        0,
        -1,
    )


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_every_line_is_as_the_schema_has_it(tmp_path):
    jsonschema = pytest.importorskip("jsonschema", reason="it compares with the schema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    with filled() as memory:
        export_file(memory, "jsonl", tmp_path / "v.jsonl", vectors=True)
    lines = lines_of(tmp_path / "v.jsonl")
    for line in lines:
        validator.validate(line)
    assert {line["record"] for line in lines} == {"header", "namespace", "node", "edge", "vector", "end"}
    assert not validator.is_valid({"record": "node", "id": "x"})


def test_namespaces_of_lines(tmp_path):
    path = tmp_path / "a.db"
    with filled(path) as memory, MemoryGraph(path, namespace="work") as work:
        work.add_interaction({"id": "p1", "text": "Deadline?"})
        assert export_file(work, "jsonl", tmp_path / "work.jsonl").nodes == 1
        assert export_file(memory, "jsonl", tmp_path / "both.jsonl", all_namespaces=True, vectors=True).namespaces == (
            "default",
            "work",
        )
        expected = [content(each) for each in (memory, work)]
    with MemoryGraph(tmp_path / "b.db", embedding_model="builtin", namespace="mine") as mine:
        with pytest.raises(InvalidInput, match=r"holds the namespaces 'default', 'work'\. .*all_namespaces"):
            import_file(mine, "jsonl", tmp_path / "both.jsonl")
        import_file(mine, "jsonl", tmp_path / "work.jsonl")  # one namespace goes where one is
        assert [node.text for node in mine] == ["Deadline?"]
        import_file(mine, "jsonl", tmp_path / "both.jsonl", all_namespaces=True)
        assert len(mine) == 1
    with MemoryGraph(tmp_path / "b.db") as default, MemoryGraph(tmp_path / "b.db", namespace="work") as work:
        assert [content(each) for each in (default, work)] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "was cut short: it has no end"),
        (lambda lines: lines[:3] + lines[4:], "is not whole: it holds 12 of 13 nodes"),
        (lambda lines: lines[1:], "no header"),
        (lambda lines: [], "no header"),
        (lambda lines: [lines[0].replace('"version": 1', '"version": 2'), *lines[1:]], "has version 2 of the format"),
        (lambda lines: [*lines[:4], lines[4][:30], *lines[5:]], "line 5 is no JSON"),
        (lambda lines: [*lines, lines[-1]], "more after the end"),
        (lambda lines: [*lines[:2], '{"record": "thing"}', *lines[2:]], "line 3 is no line of an export"),
        (
            lambda lines: [*lines[:2], '{"record": "node", "id": 1}', *lines[2:]],
            "line 3: 'id' of a node should be a str, not 1",
        ),
        (lambda lines: [lines[0], *lines[2:]], "before a namespace"),
        (
            lambda lines: [line.replace('"valid_from": "2024', '"valid_from": "x2024') for line in lines],
            "'x2024.*' is no time",
        ),
        (lambda lines: ['{"type": "entity"}'], "is no line of an export"),
    ],
)
def test_damaged_lines_change_nothing(tmp_path, change, message):
    path = tmp_path / "v.jsonl"
    with filled() as memory:
        export_file(memory, "jsonl", path)
    path.write_text(
        "".join(f"{line}\n" for line in change(path.read_text(encoding="utf-8").splitlines())), encoding="utf-8"
    )
    with MemoryGraph(":memory:", embedding_model="builtin") as copy:
        with pytest.raises(InvalidInput, match=message):
            import_file(copy, "jsonl", path)
        assert len(copy) == 0


def test_an_id_of_another_kind_is_refused(tmp_path):
    with filled() as memory, MemoryGraph(":memory:", embedding_model="builtin") as other:
        export_file(memory, "jsonl", tmp_path / "v.jsonl")
        other.put([Node("p1", "thing", None, {})])
        for dry_run in (True, False):
            with pytest.raises(KindConflict, match="'p1' is the id of a thing already"):
                import_file(other, "jsonl", tmp_path / "v.jsonl", dry_run=dry_run)
        assert len(other) == 1


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
    max_leaves=6,
)
TAKEN = {
    "id",
    "type",
    "text",
    "timestamp",
    "source",
    "target",
    "relation",
    "relations",
    "name",
    "raeburnmemory_expires_at",
}
DATA = st.dictionaries(NAME.filter(lambda name: name not in TAKEN), VALUE, max_size=3)
KIND = st.sampled_from(["prompt", "response", "agent", "session", "fragment", "entity", "système", "tool"])
TIME = st.datetimes().map(lambda time: time.isoformat())


@st.composite
def memories(draw):
    """Draw the steps that fill a memory: nodes, edges, facts, some ended, some superseded, some taken back."""
    ids = draw(st.lists(NAME, min_size=1, max_size=6, unique=True))
    nodes = [Node(i, draw(KIND), draw(st.none() | TEXT), {**draw(DATA), **({"timestamp": draw(TIME)} if draw(st.booleans()) else {})}, expires_at=draw(st.none() | st.just(4e9))) for i in ids]  # fmt: skip
    links = draw(st.lists(st.builds(Link, st.sampled_from(ids), st.sampled_from(ids), NAME, DATA), max_size=6))
    word = st.sampled_from(["Ana", "Bo", "Ünal"])
    facts = draw(st.lists(st.tuples(word, st.sampled_from(["lives_in", "likes"]), word, TIME), max_size=5))
    return nodes, links, facts, draw(st.booleans()), draw(st.integers(0, 5)), draw(st.booleans())


@given(
    given_steps=memories(),
    suffix=st.sampled_from([":memory:", "db", "json"]),
    form=st.sampled_from(["jsonl", "node-link"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_in_a_memory_comes_back(tmp_path_factory, given_steps, suffix, form):
    nodes, links, facts, single, ended, vectors = given_steps
    folder = tmp_path_factory.mktemp("lines")
    place = suffix if suffix == ":memory:" else folder / f"a.{suffix}"
    more = {"vectors": vectors} if form == "jsonl" else {}
    with MemoryGraph(place, embedding_model=Fake()) as memory:
        memory.put(nodes, links)
        if single:
            memory.single_valued("lives_in")
        made = []
        for subject, predicate, thing, time in facts:
            made.append(memory.fact(subject, predicate, thing, valid_from=time, timestamp=time).id)
        if ended < len(made):
            try:
                memory.retract(made[ended], at="9999-01-01")
            except InvalidInput:  # it had ended
                memory.undo(made[ended])
        export_file(memory, form, folder / "one", **more)
        expected = content(memory)
    with MemoryGraph(":memory:" if suffix != "db" else folder / "b.db", embedding_model=Fake()) as copy:
        import_file(copy, form, folder / "one")
        export_file(copy, form, folder / "two", **more)
        assert (folder / "one").read_bytes() == (folder / "two").read_bytes()
        found = content(copy)
    if form == "node-link":  # the order of the edges of several relations is that of their pairs
        expected, found = ((a, sorted(b), c) for a, b, c, _ in (expected, found))
    assert found == expected


# --- node-link --------------------------------------------------------------------------------------------------


def test_node_link_is_what_export_writes_and_comes_back(tmp_path):
    path = tmp_path / "a.db"
    with filled(path) as memory, MemoryGraph(path, namespace="work") as work:
        work.add_interaction({"id": "p1", "text": "Deadline?"})
        memory.export(tmp_path / "old.json", all_namespaces=True)
        export_file(memory, "node-link", tmp_path / "new.json", all_namespaces=True)
        assert (tmp_path / "new.json").read_bytes() == (tmp_path / "old.json").read_bytes()
    with MemoryGraph(tmp_path / "b.db", embedding_model="builtin") as copy:
        with pytest.raises(InvalidInput, match="all_namespaces"):
            import_file(copy, "node-link", tmp_path / "new.json")
        import_file(copy, "node-link", tmp_path / "new.json", all_namespaces=True)
        export_file(copy, "node-link", tmp_path / "again.json", all_namespaces=True)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "new.json").read_bytes()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('{"nodes": [{"id": "a"}], "links": [{"source": "a", "target": "b"}]}', "leads to 'b', which is no node"),
        ('{"nodes": [{"id": "a"}, {"id": "a"}], "links": []}', "more than once"),
        ('{"nodes": [', "is damaged"),
        ("[]", "no graph"),
    ],
)
def test_damaged_node_link_changes_nothing(tmp_path, raw, message):
    (tmp_path / "g.json").write_text(raw)
    with MemoryGraph(":memory:", embedding_model="builtin") as memory:
        with pytest.raises(InvalidInput, match=message):
            import_file(memory, "node-link", tmp_path / "g.json")
        assert len(memory) == 0


# --- formats of others ------------------------------------------------------------------------------------------


def attributes_of(memory):
    """Return what networkx should find: attributes without None, lists and objects as JSON, no control characters."""

    def plain(value):
        if isinstance(value, (dict, list)) or (isinstance(value, int) and abs(value) >= 2**63):
            return json.dumps(value, ensure_ascii=False)
        return value.replace("\u0007", "\ufffd") if isinstance(value, str) else value

    found = {}
    for node in memory:
        flat = {**node.to_dict(), "expires_at": node.expires_at}
        node_id = flat.pop("id")
        found[node_id] = {key: plain(json.loads(json.dumps(value))) for key, value in flat.items() if value is not None}
    return found


@pytest.mark.parametrize("form", ["graphml", "gexf"])
def test_networkx_reads_graphml_and_gexf(tmp_path, form):
    nx = pytest.importorskip("networkx", reason="it reads them back")
    with filled() as memory:
        report = export_file(memory, form, tmp_path / "g.xml")
        graph = nx.read_graphml(tmp_path / "g.xml") if form == "graphml" else nx.read_gexf(tmp_path / "g.xml")
        found = {
            node: {key: value for key, value in data.items() if key != "label"} for node, data in graph.nodes(data=True)
        }
        expected = attributes_of(memory)
        for data in expected.values():
            if "stars" in data:
                data["stars"] = float(data["stars"])  # 5 and 4.5 in one column
        assert found == expected
        edges = {(one, other, data["relation"]) for one, other, data in graph.edges(data=True)}
        assert edges == {(e.source, e.target, e.relation) for n in memory for e in memory.links(n.id, direction="out")}
        (cited,) = [data for _, _, data in graph.edges(data=True) if data["relation"] == "cites"]
        assert cited["page"] == 3
    assert (report.nodes, report.edges) == (graph.number_of_nodes(), graph.number_of_edges())
    assert graph.is_directed()
    assert graph.is_multigraph()


def test_xml_parsers_of_others_take_any_text(tmp_path):
    from xml.etree import ElementTree as ET

    rough = "".join(map(chr, [*range(1, 0x100), 0x2028, 0xFFFE, 0xFFFF, 0x1F375])) + "]]>&amp;<a b='c\">"
    with MemoryGraph(":memory:", embedding_model="builtin") as memory:
        memory.put([Node(rough, "x", rough, {rough: rough})], [(rough, rough, rough)])
        for form in ("graphml", "gexf"):
            export_file(memory, form, tmp_path / form)
            (node,) = ET.parse(tmp_path / form).getroot().findall(".//{*}node")
            kept = "".join(c if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff") else "\ufffd" for c in rough)
            assert node.get("id") == kept


def test_markdown_is_for_people(tmp_path):
    with filled() as memory:
        report = export_file(memory, "markdown", tmp_path / "m.md")
    text = (tmp_path / "m.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[:4] == [
        "# Memory",
        "## Session s1",
        "### prompt, 2026-01-01T10:00:00.123456+00:00, `p1`",
        "### Helper, 2026-01-01T10:00:00.123456+00:00, `r1`",
    ]
    assert "> Which tea?\n> # no heading\n" in text
    assert "# no heading" not in headings
    assert "- Ana lives in Vienna (from 2024-05-01T00:00:00+00:00, `f2`)" in text
    assert "- Ana likes tea (from 2020-01-01T00:00:00+00:00 to 2025-01-01T00:00:00+00:00, `f3`)" in text
    assert '- `thing` cites `fragment/book/1` {"page": 3}' in text
    assert report.nodes == 13
    for told in ("Alone", "A page", "Gone one day", "Sencha, 70", "Yes."):
        assert text.count(told) == 1, told


def test_parquet(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' needs pyarrow")
    with filled() as memory:
        report = export_file(memory, "parquet", tmp_path / "tables", vectors=True)
        nodes, edges, vectors = (
            pq.read_table(tmp_path / "tables" / f"{name}.parquet").to_pylist() for name in ("nodes", "edges", "vectors")
        )
        assert [row["id"] for row in nodes] == [node.id for node in memory]
        assert [json.loads(row["attributes"]) for row in nodes] == [
            json.loads(json.dumps(dict(n.attributes))) for n in memory
        ]
        assert nodes[0]["timestamp"].isoformat() == "2026-01-01T10:00:00.123456+00:00"
        found = {row["node"]: row["values"] for row in vectors if row["part"] == 0}
        for node_id, values in memory.vectors(list(found)).items():
            assert np.array_equal(np.float32(found[node_id]), values)
    assert (report.nodes, report.edges, report.vectors) == (len(nodes), len(edges), len(vectors))
    assert {(row["source"], row["relation"]) for row in edges} >= {("thing", "cites"), ("p1", "responded_with")}
    with MemoryGraph(":memory:", embedding_model="builtin") as empty:
        export_file(empty, "parquet", tmp_path / "empty")
    assert pq.read_table(tmp_path / "empty" / "nodes.parquet").num_rows == 0


# --- files ------------------------------------------------------------------------------------------------------

HERE = [form for form in FORMATS if form != "parquet"]


@pytest.mark.parametrize("form", HERE)
def test_nothing_is_overwritten_unasked(tmp_path, form):
    path = tmp_path / "out"
    path.write_text("mine")
    with filled() as memory:
        with pytest.raises(InvalidInput, match="There is something at"):
            export_file(memory, form, path)
        assert path.read_text() == "mine"
        export_file(memory, form, path, overwrite=True)
        assert path.read_text() != "mine"
        with pytest.raises(StoreWriteFailed, match="Could not write"):
            export_file(memory, form, tmp_path / "missing" / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra 'parquet' needs pyarrow")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with filled() as memory:
        with pytest.raises(InvalidInput, match="There is something at"):
            export_file(memory, "parquet", tmp_path / "out")
        export_file(memory, "parquet", tmp_path / "out", overwrite=True)
        with pytest.raises(InvalidInput, match="standard output"):
            export_file(memory, "parquet", "-")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["edges.parquet", "nodes.parquet"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("form", HERE)
def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch, form):
    with filled(tmp_path / "a.db") as memory:
        real = memory._store.all_links

        def broken(namespace):
            yield from list(real(namespace))[:2]
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(memory._store, "all_links", broken)
        with pytest.raises(OSError, match="No space left"):
            export_file(memory, form, tmp_path / "out")
        assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith("out")]
        monkeypatch.undo()


def test_wrong_arguments_are_named(tmp_path):
    with filled(tmp_path / "a.json") as memory:
        for form, path, more, message in (
            ("yaml", "x", {}, "'yaml' is no format of an export. Choose one of: gexf"),
            ("graphml", "x", {"vectors": True}, "no place for vectors"),
            ("gexf", "x", {"all_namespaces": True}, "no place for namespaces"),
            ("jsonl", tmp_path / "a.json", {"overwrite": True}, "the memory itself"),
        ):
            with pytest.raises(InvalidInput, match=message):
                export_file(memory, form, path, **more)


def test_an_export_is_one_moment_while_others_write(tmp_path):
    path = tmp_path / "a.db"
    with filled(path) as memory, MemoryGraph(path) as other:
        told = []

        def write(done, whole):
            if not told:
                other.add_interaction("Meanwhile")
            told.append((done, whole))

        report = export_file(memory, "jsonl", tmp_path / "out.jsonl", progress=write)
        assert told[-1][0] == told[-1][1]
    lines = lines_of(tmp_path / "out.jsonl")
    assert sum(line["record"] == "node" for line in lines) == report.nodes == 13
    assert not [line for line in lines if line.get("text") == "Meanwhile"]


# --- the commands -----------------------------------------------------------------------------------------------


def command(*arguments):
    """Return the exit code of a command, what it printed, as bytes, and what it said on stderr."""
    from typer.testing import CliRunner

    from raeburnmemory.cli import app

    result = CliRunner().invoke(app, [*arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout_bytes, result.stderr


def test_the_commands(tmp_path, monkeypatch):
    pytest.importorskip("typer", reason="the command line needs typer")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAEBURN_EMBED_MODEL", "builtin")
    filled("a.db").close()
    code, out, err = command("--db", "a.db", "export", "--format", "jsonl", "--vectors", "--output", "-")
    assert (code, err.startswith("Note: Exported 13 nodes")) == (0, True)
    Path("all.jsonl").write_bytes(out)
    code, planned, err = command("--db", "b.json", "import", "jsonl", "all.jsonl", "--dry-run", "--json")
    assert (code, err, json.loads(planned)["new"], os.path.exists("b.json")) == (0, "", 13, False)
    code, told, err = command("--db", "b.json", "import", "jsonl", "all.jsonl")
    assert (code, err) == (0, "")
    assert told.decode().startswith("Imported 1 agent, 3 fact, 1 fragment")
    assert command("--db", "b.json", "export", "--format", "jsonl", "--vectors", "-o", "-")[1] == out
    code, _, err = command("--db", "a.db", "export", "-o", "all.jsonl")
    assert (code, "--force" in err, Path("all.jsonl").read_bytes() == out) == (2, True, True)
    code, told, _ = command("--db", "a.db", "export", "-o", "all.jsonl", "--force", "--json")
    assert (code, json.loads(told)) == (0, json.loads(Path("all.jsonl").read_text()))
    code, told, _ = command("--db", "a.db", "export", "--format", "gexf", "-o", "a.gexf", "--json")
    assert (code, json.loads(told)["nodes"], json.loads(told)["format"]) == (0, 13, "gexf")
    code, told, err = command("--db", "new.db", "import", "chatgpt", "all.jsonl")
    assert (code, err, os.path.exists("new.db")) == (1, "", False)
    assert b"Left out: no conversation with a mapping of messages: 1" in told
    code, _, err = command("--db", "new.db", "import", "csv", "all.jsonl")
    assert (code, err.count("\n"), os.path.exists("new.db")) == (2, 1, False)
    code, _, err = command("--db", "new.db", "import", "csv", "nowhere.csv")
    assert (code, "no such file" in err, err.count("\n")) == (1, True, 1)
    code, _, err = command("--db", "a.db", "export", "--format", "gexf")
    assert (code, "--output" in err) == (2, True)
    Path("t.csv").write_text("Frage,Antwort\nWo?,Da.\n")
    code, told, err = command(
        "--db",
        "n.db",
        "--namespace",
        "ana",
        "import",
        "csv",
        "t.csv",
        "--column",
        "text=Frage",
        "--column",
        "response=Antwort",
        "--session",
        "s",
    )
    assert (code, err) == (0, "")
    with MemoryGraph("n.db", namespace="ana") as memory:
        assert [node.text for node in memory.thread("s")] == ["Wo?", "Da."]
    code, _, err = command("--db", "n.db", "import", "csv", "t.csv", "--column", "text")
    assert (code, "WHAT=NAME" in err) == (2, True)


def test_standard_output_gets_bytes_and_nothing_else(tmp_path):
    pytest.importorskip("typer", reason="the command line needs typer")
    filled(tmp_path / "a.db").close()
    done = subprocess.run([sys.executable, "-m", "raeburnmemory", "--db", "a.db", "export", "--format", "jsonl", "-o", "-"], cwd=tmp_path, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, check=True)  # fmt: skip
    with MemoryGraph(tmp_path / "a.db") as memory:
        export_file(memory, "jsonl", tmp_path / "out.jsonl")
    assert done.stdout == (tmp_path / "out.jsonl").read_bytes()
    assert done.stderr.startswith(b"Note: Exported 13 nodes")
