"""Pictures of a memory: what is chosen, where it lies, and that nothing in a text is ever more than text."""

from __future__ import annotations

import base64
import itertools
import json
import re
import struct
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree  # noqa: ICN001

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import InvalidInput, MissingDependency, NodeNotFound
from raeburnmemory.hits import Hit, Hits, Step, Why
from raeburnmemory.nodes import Node
from raeburnmemory.picture import MOST, Picture, show
from raeburnmemory.picture.drawing import Drawing, one_line
from raeburnmemory.picture.layout import place
from raeburnmemory.picture.looks import kinds_of, outline, relations_of
from raeburnmemory.picture.select import Scene
from raeburnmemory.picture.svg import labels

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"

NASTY = [
    "</script><script>window.ran = 1</script>",
    "<img src=x onerror=window.ran=2>",
    '"><iframe srcdoc="<script>window.ran=3</script>"></iframe>',
    "{{script}} {{data}} \\u003cscript>",
    "]]> <!-- <script> --> &lt;script&gt; &amp;",
    "'; window.ran = 4; '\u2028\u2029",
    'click"]:::x; click n0 call alert(1) "',
    "الاسم \u202e reversed",
    "中文的文字, 記憶",
    "**bold** _em_ `code` [a](javascript:alert(1))",
]


@pytest.fixture
def memory():
    with MemoryGraph(":memory:", "builtin") as memory:
        for number, (session, agent) in enumerate(itertools.product(("monday", "friday"), ("ann", "bob"))):
            memory.add_interaction(
                {"id": f"p{number}", "text": f"What about allergies and the number {number}?"},
                {"id": f"r{number}", "text": f"Peanuts, and {number} of them."},
                {"id": agent, "name": agent.title()},
                session,
                timestamp=f"2026-11-0{number + 1}T10:00:00Z",
            )
        memory.fact("Ana", "is allergic to", "latex", id="f", source="r0")
        yield memory


def ids(picture):
    return {node.id for node in picture.nodes}


def drawn_links(picture):
    return {(link.source, link.target, link.relation) for link in picture.links}


# --- what is chosen ------------------------------------------------------------------------------------------------


def test_a_small_memory_is_drawn_whole(memory):
    picture = memory.show()
    data = memory.export(False)
    assert ids(picture) == {node["id"] for node in data["nodes"]}
    assert drawn_links(picture) == {(e["source"], e["target"], e["relation"]) for e in data["edges"]}
    assert picture.left_out == ""
    assert repr(picture) == "<Picture: Everything; 13 nodes, 13 links>"


def test_kinds_are_those_asked_for(memory):
    picture = memory.show(kinds=["prompt", "session"])
    assert ids(picture) == {"p0", "p1", "p2", "p3", "monday", "friday"}
    assert {relation for _, _, relation in drawn_links(picture)} == {"belongs_to"}
    assert ids(memory.show("p0", depth=3, kinds="session")) == {"p0", "monday"}
    assert ids(memory.show(session="monday", kinds="response")) == {"monday", "r0", "r1"}


@pytest.mark.parametrize("depth", range(5))
def test_around_a_node_is_what_that_many_links_lead_to(memory, depth):
    edges = [(e["source"], e["target"]) for e in memory.export(False)["edges"]]
    near = {"p0"}
    for _ in range(depth):
        near |= {b for a, b in edges if a in near} | {a for a, b in edges if b in near}
    picture = memory.show("p0", depth=depth)
    assert ids(picture) == near
    assert {link[:2] for link in drawn_links(picture)} == {(a, b) for a, b in edges if {a, b} <= near}


def test_a_session_is_what_was_said_in_it_and_by_whom(memory):
    assert ids(memory.show(session="monday")) == {"monday", "p0", "p1", "r0", "r1", "ann", "bob"}
    with pytest.raises(NodeNotFound, match="p0"):
        memory.show(session="p0")


def test_a_question_is_drawn_with_its_hits_and_what_supported_them(memory):
    hits = memory.recall("Who is allergic to peanuts?", 3)
    picture = memory.show(query="Who is allergic to peanuts?", k=3)
    assert drawn_links(memory.show(hits)) == drawn_links(picture)
    assert ids(picture) >= {hit.id for hit in hits} | {
        step.id for hit in hits for step in hit.why.path if step.amount > 0
    }
    supports = {
        (link.source, link.target, link.data["as"]): link.data["amount"]
        for link in picture.links
        if link.relation == "supports"
    }
    assert supports == {
        (step.id, hit.id, step.relation): round(step.amount, 3)
        for hit in hits
        for step in hit.why.path
        if step.amount > 0
    }
    data = data_of(picture.html())
    ranked = sorted((node["rank"], node["id"]) for node in data["nodes"] if node["rank"])
    assert ranked == [(rank, hit.id) for rank, hit in enumerate(hits, 1)]
    for node in data["nodes"]:
        if node["rank"]:
            hit = hits[node["rank"] - 1]
            assert node["hit"]["legs"] == pytest.approx(dict(hit.why.legs))
            assert node["hit"]["words"] == list(hit.why.words)


def test_the_page_says_who_where_and_when(memory):
    told = {node["id"]: dict(node["facts"]) for node in data_of(memory.show().html())["nodes"]}
    assert told["r1"] == {"said by": "Bob", "session": "monday", "time": "2026-11-02 10:00:00 UTC"}
    assert told["p3"] == {"session": "friday", "time": "2026-11-04 10:00:00 UTC"}
    assert told["f"]["predicate"] == "is allergic to"


def test_a_hit_that_is_gone_since_is_still_drawn(memory):
    hits = memory.recall("allergies", 3)
    memory.forget(hits[0].id)
    assert hits[0].id in ids(memory.show(hits))


@pytest.mark.parametrize("limit", [1, 7, 50, 400])
def test_of_a_large_memory_the_newest_and_what_they_are_linked_to_most(limit):
    with MemoryGraph(":memory:", "builtin", vector_backend="exact") as memory:
        memory.put(
            [{"id": "hub", "type": "agent", "name": "Hub"}, {"id": "other", "type": "agent", "name": "Other"}]
            + [{"id": f"n{number}", "type": "note"} for number in range(1000)],
            [(f"n{number}", "hub", "by") for number in range(0, 1000, 2)] + [("n999", "other", "by")],
        )
        picture = memory.show(limit=limit)
        drawn = ids(picture)
        assert len(drawn) == limit
        assert f"{1002 - limit:,} of 1,002 nodes" in picture.left_out
        assert f"{501 - len(picture.links)} of 501 links" in picture.left_out
        notes = sorted(int(one[1:]) for one in drawn if one[0] == "n")
        assert notes == list(range(1000 - len(notes), 1000))
        assert drawn - {f"n{number}" for number in notes} == (
            set() if limit < 5 else {"hub"} if limit == 7 else {"hub", "other"}
        )
        assert picture.left_out in picture.svg()
        assert data_of(picture.html())["leftOut"] == picture.left_out
        around = memory.show("hub", depth=1, limit=limit)
        assert len(ids(around)) == limit
        left = max(501 - limit, 0)
        assert around.left_out == (f"at least {left} nodes there are left out" if left else "")


def test_neighbours_take_turns():
    with MemoryGraph(":memory:", "builtin") as memory:
        leaves = [{"id": f"{hub}{number}", "type": "note"} for hub in "ab" for number in range(40)]
        memory.put([{"id": "a", "type": "note"}, {"id": "b", "type": "note"}, *leaves])
        memory.put([], [(f"{hub}{number}", hub, "of") for hub in "ab" for number in range(40)])
        drawn = ids(memory.show(["a", "b"], depth=1, limit=12))
        assert [sum(one[0] == hub for one in drawn) for hub in "ab"] == [6, 6]


def test_a_long_session_is_its_newest_part():
    with MemoryGraph(":memory:", "builtin") as memory:
        memory.add_messages([{"text": f"Turn {number}"} for number in range(100)], "long")
        picture = memory.show(session="long", limit=20)
        turns = sorted(int(node.text.split()[1]) for node in picture.nodes if node.text)
        assert turns == list(range(100 - len(turns), 100))
        assert len(turns) >= 15
        assert picture.left_out == f"at least {100 - len(turns)} nodes there are left out"


def test_a_namespace_draws_itself_alone(tmp_path):
    path = tmp_path / "two.db"
    with MemoryGraph(path, "builtin") as one, MemoryGraph(path, "builtin", namespace="other") as other:
        one.add_interaction({"id": "p", "text": "mine"}, session_id="s")
        other.add_interaction({"id": "p", "text": "theirs"}, session_id="s")
        other.add_interaction({"id": "q", "text": "theirs too"}, session_id="s")
        for picture in (one.show(), one.show("s", depth=4), one.show(session="s"), one.show(query="theirs")):
            assert ids(picture) == {"p", "s"}
            assert "theirs too" not in picture.html() + picture.svg() + picture.mermaid()
        assert other.show().title == "two.db, other"


def test_an_empty_memory_can_be_drawn():
    with MemoryGraph(":memory:", "builtin") as memory:
        picture = memory.show()
        assert picture.nodes == []
        assert picture.positions == {}
        assert ElementTree.fromstring(picture.svg()).tag == f"{SVG}svg"
        assert data_of(picture.html())["nodes"] == []
        assert picture.mermaid().startswith("flowchart LR\n")
        assert "0 hits" in memory.recall("anything")._repr_html_()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"about": "p0", "query": "x"}, "about and query"),
        ({"session": "monday", "query": "x"}, "session and query"),
        ({"theme": "sepia"}, "'sepia'"),
        ({"limit": 0}, "0"),
        ({"limit": MOST + 1}, "2001"),
        ({"limit": "many"}, "'many'"),
        ({"height": 3}, "3"),
        ({"seed": -1}, "-1"),
        ({"depth": 2}, "2"),
        ({"depth": 2, "session": "monday"}, "2"),
        ({"about": "p0", "depth": "far"}, "'far'"),
        ({"about": 7}, "7"),
        ({"about": Hits(), "kinds": "prompt"}, "prompt"),
        ({"query": 7}, "question"),
        ({"title": 7}, "title"),
        ({"kinds": 3}, "3"),
    ],
    ids=str,
)
def test_what_cannot_be_understood_is_said(memory, given, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        show(memory, **given)


def test_a_node_that_is_not_there_is_said(memory):
    with pytest.raises(NodeNotFound, match="'nobody'"):
        memory.show("nobody")


# --- where it lies -------------------------------------------------------------------------------------------------


def test_the_same_memory_gives_the_same_picture(memory):
    one, two = memory.show(), memory.show()
    assert one.positions == two.positions
    assert (one.html(), one.svg(), one.mermaid()) == (two.html(), two.svg(), two.mermaid())
    assert memory.show(seed=1).positions != one.positions
    assert {node["id"]: (node["x"], node["y"]) for node in data_of(one.html())["nodes"]} == one.positions


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
def test_nodes_do_not_overlap(n, links):
    radii = [8 + number % 9 for number in range(n)]
    points = place(radii, [(a % n, b % n) for a, b in links])
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()
    for a, b in itertools.combinations(range(n), 2):
        assert np.hypot(*(points[a] - points[b])) >= radii[a] + radii[b]


def test_what_is_linked_lies_together():
    """Two stars: every leaf is nearer to its own middle than to the other's, whatever the order of the nodes."""
    order = np.random.default_rng(3).permutation(42)
    links = [(int(order[star]), int(order[2 + 2 * leaf + star])) for star in (0, 1) for leaf in range(20)]
    points = place([9.0] * 42, [*links, (int(order[0]), int(order[1]))])
    for star in (0, 1):
        own, other = points[order[star]], points[order[1 - star]]
        for leaf in range(20):
            point = points[order[2 + 2 * leaf + star]]
            assert np.hypot(*(point - own)) < np.hypot(*(point - other))


def test_parts_that_nothing_links_do_not_run_into_each_other():
    links = [(part * 10, part * 10 + leaf) for part in range(6) for leaf in range(1, 10)]
    points = place([9.0] * 60, links)
    boxes = [(points[at : at + 10].min(axis=0), points[at : at + 10].max(axis=0)) for at in range(0, 60, 10)]
    for (low, high), (other_low, other_high) in itertools.combinations(boxes, 2):
        assert (high < other_low).any() or (other_high < low).any()


def test_labels_cover_neither_labels_nor_nodes():
    nodes = [Node(f"n{number}", "note", f"Some words of {number}") for number in range(60)]
    marks = Drawing(Scene(tuple(nodes), (), ""), 0).marks
    shown = list(labels(marks))
    assert len(shown) > 30
    boxes = [(x - 3 * len(marks[number].label), y - 10, x + 3 * len(marks[number].label), y) for number, x, y in shown]
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for a in boxes:
        for mark in marks:
            nearest = np.clip(mark.x, a[0], a[2]), np.clip(mark.y, a[1], a[3])
            assert np.hypot(nearest[0] - mark.x, nearest[1] - mark.y) >= mark.radius - 1


def test_every_kind_and_relation_can_be_told_without_colour():
    ours = kinds_of(["prompt", "response", "session", "agent", "fact", "fragment", "message"])
    assert len({look.shape for look in ours.values()}) == len(ours)
    links = relations_of(
        [
            "responded_with",
            "belongs_to",
            "generated_by",
            "semantically_similar",
            "supersedes",
            "derived_from",
            "supports",
        ]
    )
    assert len({(look.dash, look.width) for look in links.values()}) == len(links)
    for look in [*ours.values(), *kinds_of(map(str, range(30))).values()]:
        assert contrast(look.light, "#fcfcfd") >= 2.5
        assert contrast(look.dark, "#12161d") >= 4.5


def contrast(one, other):
    """WCAG 2.2's ratio of two colours."""

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize(
    "shape", ["circle", "square", "hexagon", "diamond", "triangle", "star", "page", "drop", "pentagon"]
)
def test_outlines_are_paths_of_the_size_asked_for(shape):
    path = outline(shape, 10)
    assert re.fullmatch(r"M[-0-9. MLHVAZ]+Z", path)
    if "A" not in path:
        points = np.array([[float(x) for x in point.split()] for point in path[1:-1].split("L")])
        assert 7 <= np.abs(points).max() <= 14


# --- texts are only ever texts -------------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def data_of(html):
    (found,) = re.findall(r'<script type="application/json" id="graph">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


def nasty(texts=NASTY):
    memory = MemoryGraph(":memory:", "builtin")
    memory.add_many(
        (
            {"id": f"{text} {number}", "text": text, text[:40]: text},
            text,
            {"id": f"a{number}", "name": text},
            f"s {text}",
        )
        for number, text in enumerate(texts)
    )
    memory.link(f"{texts[0]} 0", f"{texts[1]} 1", texts[2][:60])
    memory.put([{"id": "odd", "type": texts[1][:40], "text": texts[0]}])
    return memory


def test_the_page_holds_every_text_and_runs_none():
    with nasty() as memory:
        html = memory.show(title=NASTY[0]).html()
        plain = MemoryGraph(":memory:", "builtin")
        parsed, empty = Tags(html), Tags(plain.show().html())
        assert parsed.tags == empty.tags
        assert [(tag, name) for tag, name, _ in parsed.attributes] == [(tag, name) for tag, name, _ in empty.attributes]
        assert html.count("<script") == 2
        assert {node["text"] for node in data_of(html)["nodes"]} >= set(NASTY)
        assert data_of(html)["title"] == NASTY[0]
        policy = policy_of(parsed)
        assert policy["default-src"] == "'none'"
        assert policy["script-src"].startswith("'sha256-")
        assert set(policy) == {"default-src", "img-src", "base-uri", "form-action", "style-src", "script-src"}
        plain.close()


def policy_of(parsed):
    (content,) = [
        value
        for tag, name, value in parsed.attributes
        if tag == "meta" and name == "content" and "default-src" in value
    ]
    return dict(part.split(" ", 1) for part in content.split("; "))


def test_the_page_loads_nothing():
    with nasty(["plain words"] * 3) as memory:
        html = memory.show().html()
        assert [
            value for _, name, value in Tags(html).attributes if name in {"src", "href", "srcset", "data", "action"}
        ] == []
        own = "".join(
            (ROOT / "raeburnmemory" / "picture" / f"page.{kind}").read_text() for kind in ("html", "css", "js")
        )
        assert re.findall(r"https?://[^\s\"')]+", own) == ["http://www.w3.org/2000/svg"]
        assert "innerHTML" not in own
        assert re.search(r"\b(eval|fetch|XMLHttpRequest|import)\b\(", own) is None


def test_the_frame_of_a_notebook_is_closed():
    with nasty() as memory:
        picture = memory.show(height=432)
        parsed = Tags(picture._repr_html_())
        assert parsed.tags == ["div", "img", "iframe"]
        frame = {name: value for tag, name, value in parsed.attributes if tag == "iframe"}
        assert frame["srcdoc"] == picture.html()
        assert frame["sandbox"] == "allow-scripts"
        assert "432px" in frame["style"]
        image = {name: value for tag, name, value in parsed.attributes if tag == "img"}["src"]
        assert base64.b64decode(image.removeprefix("data:image/svg+xml;base64,")).decode() == picture.svg()


@pytest.mark.parametrize("text", NASTY)
def test_tables_show_texts_as_they_are(text):
    hits = Hits(
        [
            Hit(
                Node(text, text, text),
                0.5,
                why=Why({text: 0.3}, (text,), (Step(text, text, 0.2),)),
                speaker=text,
                session=text,
            )
        ],
        {text: text},
        [text],
    )
    parsed = Tags(hits._repr_html_())
    assert set(parsed.tags) <= {"div", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert {name for _, name, _ in parsed.attributes} <= {"style", "dir"}
    whole = " ".join("".join(parsed.texts).split())
    assert whole.count(one_line(text, 400)) >= 5
    with MemoryGraph(":memory:", "builtin", namespace=text) as memory:
        memory.put([{"id": "x", "type": text, "text": text}, {"id": "y", "type": "note"}], [("x", "y", text)])
        parsed = Tags(memory._repr_html_())
    assert set(parsed.tags) <= {"div", "strong", "code", "table", "tbody", "tr", "th", "td", "span", "svg", "path"}
    assert [name for _, name, _ in parsed.attributes if name.startswith("on")] == []
    assert " ".join("".join(parsed.texts).split()).count(" ".join(text.split())) >= 2


def test_a_memory_that_is_closed_says_so(memory):
    memory.close()
    assert "closed" in memory._repr_html_()


def test_svg_is_xml_whatever_the_texts_hold():
    texts = [*NASTY, "nul \x00 bell \x07 end \ufffe", "tab\tand\nline"]
    nodes = tuple(Node(f"{text} {number}", text, text, {"name": text}) for number, text in enumerate(texts))
    picture = Picture(Scene(nodes, (), texts[0], texts[1]), texts[2])
    for theme in ("auto", "light", "dark"):
        picture._theme = theme
        tree = ElementTree.fromstring(picture.svg())
        assert {element.tag.removeprefix(SVG) for element in tree.iter()} <= {
            "svg", "style", "defs", "marker", "path", "rect", "text", "g", "title", "circle",
        }  # fmt: skip
        assert [name for element in tree.iter() for name in element.attrib if name.startswith("on")] == []
        titles = [element.text for element in tree.iter(f"{SVG}title")]
        assert len(titles) == len(texts)
        for text, title in zip(NASTY, titles, strict=False):
            assert text.split()[0] in title


def test_mermaid_holds_nothing_but_labels():
    with nasty() as memory:
        lines = memory.show(title=NASTY[6]).mermaid().splitlines()
    assert lines[0] == "flowchart LR"
    shapes = r'\(\["|"\]\)|\["|"\]|\{\{"|"\}\}|\{"|"\}|>"|\[\["|"\]\]|\[/"|"\\\]|\[\\"|"/\]|\[\("|"\)\]'
    for line in lines[1:]:
        if line.startswith("%% "):
            assert "{" not in line
            continue
        label = r"[\w .,:!?'…/#;\u0300-\U0010ffff-]*"
        node = rf"  n\d+(?:{shapes}){label}(?:{shapes}):::k\d+"
        link = rf'  n\d+ (?:-->|-\.->)\|"{label}"\| n\d+'
        style = r"  classDef k\d+ fill:#[0-9a-f]{6},stroke:#ffffff,color:#ffffff"
        assert re.fullmatch(f"{node}|{link}|{style}", line), line
    decoded = [re.sub(r"#(\d+);", lambda code: chr(int(code[1])), line) for line in lines]
    assert any(NASTY[1] in line for line in decoded)


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.html", "b.HTM", "c.svg", "d.mmd", "e.mermaid"])
def test_save_writes_the_format_of_the_ending(memory, tmp_path, name):
    picture = memory.show()
    wanted = {"h": picture.html, "s": picture.svg, "m": picture.mermaid}[name.split(".")[1][0].lower()]()
    assert picture.save(tmp_path / name) == tmp_path / name
    assert picture.save(str(tmp_path / name)).read_bytes().decode() == wanted


def test_save_knows_the_formats_there_are(memory, tmp_path):
    with pytest.raises(InvalidInput, match=r"'.*graph\.gif' .*\.html, \.htm, \.svg, \.png"):
        memory.show().save(tmp_path / "graph.gif")
    assert list(tmp_path.iterdir()) == []


def test_png_is_as_large_as_asked_for(memory, tmp_path):
    pytest.importorskip("resvg_py", reason="PNG needs resvg-py")
    picture = memory.show()
    tree = ElementTree.fromstring(picture.svg())
    for scale in (1, 2.0, 0.5):
        data = picture.png(scale)
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        size = struct.unpack(">II", data[16:24])
        wanted = [float(tree.get(side)) * scale for side in ("width", "height")]
        assert size == pytest.approx(wanted, abs=1)
    assert picture.save(tmp_path / "x.png").read_bytes() == picture.png()
    for scale in (0, 11, True, "big", float("nan")):
        with pytest.raises(InvalidInput, match="scale"):
            picture.png(scale)


def test_png_without_its_package_names_the_cure(memory, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingDependency, match=re.escape("raeburnmemory[notebook]")):
        memory.show().png()


def test_the_wheel_holds_the_page(tmp_path):
    pytest.importorskip("hatchling", reason="building the wheel needs hatchling")
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in ("page.html", "page.css", "page.js"):
            own = (ROOT / "raeburnmemory" / "picture" / name).read_bytes()
            assert archive.read(f"raeburnmemory/picture/{name}") == own
