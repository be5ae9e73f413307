"""What every store finds: by namespace, id, kind, attribute, row and link. Each check takes an opener; see `store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..nodes import Batch, Link, Node, Where
from ._expect import equal, that
from ._ledger import Ledger, ends_of, ids_of, node, vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store import Store

__all__ = ["READING_CHECKS"]

_PAST, _FUTURE = 1.0, 4e9  # seconds since 1970


def check_store_namespaces(open_store: Callable[[], Store]) -> None:
    """Namespaces share nothing but the store: the same ids and links may be in each."""
    store = open_store()
    equal(store.namespaces(), [], "the namespaces of an empty store")
    for space in ("default", "b", "ä"):
        nodes = [node("p", f"p of {space}", space=space), node("q", space=space)]
        link = Link("p", "q", "r", {"of": space}, space)
        store.write(Batch(nodes=nodes, links=[link], vectors=[vector("p", len(space), 1, space=space)]))
    equal(store.namespaces(), ["b", "default", "ä"], "namespaces()")
    for space in ("default", "b", "ä"):
        equal(store.get(["p"], space)["p"].text, f"p of {space}", f"get() in {space!r}")
        equal([e.data for e in store.links(["p"], space)], [{"of": space}], f"links() in {space!r}")
        equal(store.counts(space)["vectors"], {"prompt": 1}, f"the vectors of {space!r}")
    equal(len(store.links(["p"], None)), 3, "links of one id in all namespaces")
    equal(ids_of(store.nodes(Where(None, ids=["q", "p"]))), ["p", "q"] * 3, "nodes of two ids in all namespaces")
    store.write(Batch(nodes=[node("p", "new", space="b")], removed_nodes=[("ä", "p"), ("ä", "q")]))
    equal(store.namespaces(), ["b", "default"], "namespaces() after removing all of one")
    equal(store.get(["p"], "default")["p"].text, "p of default", "the node of another namespace")
    equal(store.get(["p"], "nowhere"), {}, "a namespace that is not there")
    equal(store.counts("nowhere"), {"kinds": {}, "relations": {}, "vectors": {}}, "its counts")
    equal((store.count("nowhere"), store.count("default")), (0, 2), "the number of nodes there, and of the default one")


def check_store_relations(open_store: Callable[[], Store]) -> None:
    """A pair may have several relations; each keeps its data and its place, whatever happens to the others."""
    store = open_store()
    store.write(Batch(nodes=[node(name) for name in "abc"]))
    for link in (Link("a", "b", "zz", {"n": 1}), Link("a", "c", "r"), Link("a", "b", "aa", {"n": [2]})):
        store.write(Batch(links=[link]))
    store.write(Batch(links=[Link("a", "b", "zz", {"m": None})]))  # replaced: its data, not its place
    wanted = [("a-zz-b", {"m": None}), ("a-r-c", {}), ("a-aa-b", {"n": [2]})]

    def found() -> list[tuple[str, Any]]:
        return [(ends_of([link])[0], link.data) for link in store.links(None, "default")]

    equal(found(), wanted, "the links")
    rows = [link.row for link in store.links(None, "default")]
    store.write(Batch(removed_links=[("default", "a", "b", "zz")]))
    equal(found(), wanted[1:], "the links after removing one relation")
    store.write(Batch(links=[Link("a", "b", "zz")]))
    equal(found(), [*wanted[1:], ("a-zz-b", {})], "the links after adding it again")
    that(store.links(None, "default")[-1].row > max(rows), "the row of a removed link was given again")


def check_store_links(open_store: Callable[[], Store]) -> None:
    """Links are found by their ends, direction and relation, oldest first, or only the newest."""
    store = open_store()
    pairs = ["ab", "ba", "ac", "aa", "cb", "ab", "ac", "bc"]
    links = [Link(pair[0], pair[1], "xy"[i // 5]) for i, pair in enumerate(pairs)]
    store.write(Batch(nodes=[node(name) for name in "abcd"], links=links[:3]))
    store.write(Batch(links=links[3:]))
    for ids in (["a"], ["c", "a"], ["d"], ["nobody", "b", "b"], [], None):
        for direction in ("out", "in", "both"):
            for relation in (None, "x", "y", "z"):
                wanted = [
                    link
                    for link in links
                    if relation in {None, link.relation}
                    and (
                        ids is None
                        or (direction != "in" and link.source in ids)
                        or (direction != "out" and link.target in ids)
                    )
                ]
                got = store.links(ids, "default", direction=direction, relation=relation)
                equal(ends_of(got), ends_of(wanted), f"links({ids}, direction={direction!r}, relation={relation!r})")
                if ids is None or direction == "both":
                    continue
                for newest in (1, 2, 100):
                    end = "source" if direction == "out" else "target"
                    last = [
                        e for e in wanted if e in [o for o in wanted if getattr(o, end) == getattr(e, end)][-newest:]
                    ]
                    got = store.links(ids, "default", direction=direction, relation=relation, newest=newest)
                    equal(ends_of(got), ends_of(last), f"links({ids}, {direction!r}, {relation!r}, newest={newest})")
    equal(store.links(["a"], "elsewhere"), [], "links in a namespace that is not there")


def check_store_where(open_store: Callable[[], Store]) -> None:
    """Every condition of `Where`, and any two together, picks the same nodes in nodes() and rows()."""
    store = open_store()
    everything = [
        Node(
            f"n{i:02}" if i % 5 else f"x{i}",
            ("prompt", "response", "agent")[i % 3],
            None if i % 4 else f"t{i}",
            {"mod": i % 2, "deep": {"x": [i % 3]}, "none": None} if i % 7 else {},
            ("default", "other")[i % 6 == 5],
        )
        for i in range(40)
    ]
    for start in range(0, 40, 8):
        store.write(Batch(nodes=everything[start : start + 8]))
    row = {(found.namespace, found.id): found.row for found in store.nodes(Where(None))}
    wheres: list[dict[str, Any]] = [
        {},
        *({"namespace": space} for space in (None, "other", "nowhere")),
        *({"kinds": kinds} for kinds in (["prompt"], ["agent", "response"], ["agent", "agent"], ["nothing"], [])),
        *({"ids": ids} for ids in (["n07", "x5", "n01"], ["n03", "n03", "nobody"], [])),
        *({"attributes": a} for a in ({"mod": 1}, {"deep": {"x": [2]}}, {"none": None}, {"mod": 1, "gone": 1})),
        *({"after_row": at} for at in (row["default", "n07"], row["other", "n11"], 10**12)),
        *({"limit": limit} for limit in (0, 1, 7, 1000)),
    ]
    for one in wheres:
        for other in wheres:
            where = Where(**{**one, **other})
            wanted = [
                each.id
                for each in everything
                if where.namespace in {None, each.namespace}
                and (where.kinds is None or each.kind in where.kinds)
                and (where.ids is None or each.id in where.ids)
                and all(name in each.attributes and each.attributes[name] == v for name, v in where.attributes.items())
                and row[each.namespace, each.id] > where.after_row
            ][: where.limit]
            found = list(store.nodes(where))
            equal(ids_of(found), wanted, f"nodes({where})")
            equal(store.rows(where).tolist(), [each.row for each in found], f"rows({where})")
    equal(store.rows(Where(kinds=["nothing"])).dtype.kind, "i", "the type of rows()")


def check_store_many(open_store: Callable[[], Store]) -> None:
    """Thousands of nodes, links and ids at once work as a few do; paging misses nothing and repeats nothing."""
    store = open_store()
    ids = [f"n{i}" for i in range(2500)]
    links = [Link("n0", each, "r") for each in ids]
    store.write(Batch(nodes=[node(each) for each in ids], links=links))
    equal(ids_of(store.nodes(Where())), ids, "2,500 nodes")
    equal(set(store.get(ids, "default")), set(ids), "get() of 2,500 ids")
    equal(len(store.at_rows(store.rows(Where()).tolist())), 2500, "at_rows() of 2,500 rows")
    equal(len(store.links(["n0"], "default")), 2500, "2,500 links of one node")
    equal(len(store.links(ids, "default", direction="in")), 2500, "links of 2,500 nodes")
    equal(ends_of(store.links(["n0"], "default", newest=2)), ["n0-r-n2498", "n0-r-n2499"], "the newest two of 2,500")
    equal(ends_of(store.all_links("default")), [f"n0-r-{each}" for each in ids], "all 2,500 links")
    pages, after = [], -1
    while page := list(store.nodes(Where(after_row=after, limit=999))):
        pages.append(len(page))
        after = page[-1].row
    equal(pages, [999, 999, 502], "pages of 999")


def check_store_at_rows(open_store: Callable[[], Store]) -> None:
    """What was read stays as it was then, whatever becomes of it in the store, and once the store is closed."""
    store = open_store()
    store.write(Batch(nodes=[Node(each, "prompt", each, {"n": [1]}) for each in ("a", "b", "c")]))
    rows = store.rows(Where()).tolist()
    found = store.at_rows([*rows, 10**9])
    store.write(Batch(nodes=[Node("a", "prompt", "new", {"n": [2]})], removed_nodes=[("default", "b")]))
    equal({row for row in [*rows, -1, 10**9] if row in found}, set(rows), "the rows in at_rows()")
    store.close()
    equal([(found[row].text, found[row].attributes) for row in rows], [(e, {"n": [1]}) for e in "abc"], "at_rows()")


def check_store_kinds(open_store: Callable[[], Store]) -> None:
    """Nodes of some kinds come by their rows over many pages, and among them those that expire later."""
    store = open_store()
    ends = (None, None, _PAST, _FUTURE)
    everything = [Node(f"n{i}", ("a", "b", "c")[i % 3], f"text {i}", expires_at=ends[i % 4]) for i in range(4400)]
    store.write(Batch(nodes=everything, links=[Link("n2", "n3", "r")]))
    there = [each for each in everything if each.expires_at != _PAST]
    row = {found.id: found.row for found in store.nodes(Where())}
    for kinds in (["a"], ["c", "a"], ["a", "b", "c", "d"]):
        wanted = [each.id for each in there if each.kind in kinds]
        equal(ids_of(store.nodes(Where(kinds=kinds))), wanted, f"nodes of the kinds {kinds}")
        equal(ids_of(store.nodes(Where(kinds=kinds, limit=1700))), wanted[:1700], f"1,700 nodes of the kinds {kinds}")
        later = Where(kinds=kinds, after_row=row[wanted[700]], limit=30)
        equal(ids_of(store.nodes(later)), wanted[701:731], f"30 nodes of the kinds {kinds} from the middle")
    equal(store.count("default"), 4400, "the number of nodes, as counts() has it")


def check_store_iterating(open_store: Callable[[], Store]) -> None:
    """Whoever writes while reading the nodes gets each node that stays, once."""
    store = open_store()
    ids = [f"n{i}" for i in range(1500)]
    store.write(Batch(nodes=[node(each) for each in ids]))
    seen: list[str] = []
    for where in (Where(), Where(kinds=["prompt"])):
        seen.clear()
        for found in store.nodes(where):
            seen.append(found.id)
            if len(seen) == 10:
                store.write(Batch(nodes=[node("n5", "new"), node("later")], removed_nodes=[("default", "n1400")]))
        equal(len(seen), len(set(seen)), "the number of different nodes")
        equal(set(ids) - {"n1400"} - set(seen), set(), "the nodes that were missed")


def check_store_meta(open_store: Callable[[], Store]) -> None:
    """Meta holds any JSON value by key; None removes it."""
    store = open_store()
    values: dict[str, Any] = {"s": "ü", "l": [1, None], "d": {"x": {"y": 1.5}}, "f": False, "z": 0, "e": ""}
    store.write(Batch(meta=values))
    for name, value in values.items():
        equal(repr(store.meta(name)), repr(value), f"meta({name!r})")
    store.write(Batch(meta={"s": None, "l": [2], "nobody": None}))
    equal([store.meta(name) for name in ("s", "l", "z", "nobody")], [None, [2], 0, None], "meta after removing")


def check_store_expired(open_store: Callable[[], Store]) -> None:
    """An expired node is invisible at once; one that expires later is not."""
    store = open_store()
    gone, stays = Node("gone", "prompt", expires_at=_PAST), Node("stays", "prompt", expires_at=_FUTURE)
    store.write(Batch(nodes=[gone, stays], links=[Link("stays", "gone", "r")]))
    equal(ids_of(store.nodes(Where())), ["stays"], "nodes()")
    equal(ids_of(store.nodes(Where(ids=["gone", "stays"], limit=1))), ["stays"], "nodes() by ids, one")
    equal(ids_of(store.nodes(Where(limit=1))), ["stays"], "one node")
    rows = store.rows(Where()).tolist()
    equal(list(store.get(["gone", "stays"], "default")), ["stays"], "get()")
    equal(ids_of(store.at_rows([*range(max(rows) + 1)]).values()), ["stays"], "at_rows()")
    equal(store.get(["stays"], "default")["stays"].expires_at, _FUTURE, "when it expires")
    others = [Node("gone 2", "prompt", namespace="b", expires_at=_PAST), Node("gone 3", "agent", expires_at=_PAST)]
    store.write(Batch(nodes=[*others, Node("gone \0", "prompt", expires_at=_PAST)]))
    equal(store.expired("default", "prompt"), ["gone", "gone \0"], "the prompts that have expired")
    equal(store.expired("default", "response"), [], "the responses that have expired")
    store.write(Batch(removed_nodes=[("default", "gone \0"), ("default", "gone 3")]))
    equal(store.expired("default", "prompt"), ["gone"], "the prompts that have expired and are there still")
    equal(store.expired("default", "agent"), [], "the agents that have expired and are there still")
    store.write(Batch(nodes=[Node("gone", "prompt", "back")]))
    equal(store.expired("default", "prompt"), [], "the prompts that have expired, once one was written again")
    equal(ids_of(store.nodes(Where())), ["gone", "stays"], "nodes() once it was written again")
    equal(len(store.history("gone", "default")), 1, "the versions of what had expired")


def check_store_texts(open_store: Callable[[], Store]) -> None:
    """Every text that UTF-8 can hold comes back character by character, as id, text, key, value and name."""
    texts = [
        "",
        " ",
        "\0",
        "a\0b",
        "a",
        "line\nline\r\n\u2028\u0085end",
        "e\u0301",
        "\u00e9",  # the same letter as one character: another id
        "\u202eright to left\u202c \u05d0\u0628",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\ufeff\uffff\U0010ffff",
        "../../etc",
        "'; DROP TABLE nodes; --",
        '{"json": "\\u0000"}',
        "%s ? :1 \\",
        "__proto__",
        "A",
    ]
    store, ledger = open_store(), Ledger()
    for some in (texts[::2], texts[1::2]):
        nodes = [Node("id " + text, "kind " + text, text, {"key " + text: [text, {text: text}]}) for text in some]
        links = [
            Link(node.id, node.id, "relation " + text, {text: text}) for node, text in zip(nodes, some, strict=True)
        ]
        ledger.write(store, Batch(nodes=nodes, links=links))
    long = "é\0x\U0001f98a" * (1 << 17)  # 1 MiB
    ledger.write(store, Batch(nodes=[node("long", long)]))
    ledger.compare(store)
    for text in texts:
        equal(
            ids_of(store.nodes(Where(attributes={"key " + text: [text, {text: text}]}))), ["id " + text], "by a value"
        )
        equal(ids_of(store.nodes(Where(kinds=["kind " + text]))), ["id " + text], "by a kind")


READING_CHECKS = (
    check_store_namespaces,
    check_store_relations,
    check_store_links,
    check_store_where,
    check_store_many,
    check_store_at_rows,
    check_store_kinds,
    check_store_iterating,
    check_store_meta,
    check_store_expired,
    check_store_texts,
)
