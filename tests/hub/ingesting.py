"""What the tests of documents share: folders with files in them, and what a memory holds of them, without its ids."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from outside import Fake

from raeburnmemory.hub.ingestor import Ingestor
from raeburnmemory.memory_graph import MemoryGraph

_ticks = itertools.count()


def write(path, content):
    """Write a file as if long ago, each time at another moment: what was changed just now is always read again."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    when = 1_600_000_000_000_000_000 + next(_ticks) * 1_000_000
    os.utime(path, ns=(when, when))
    return path


def opened(path):
    return MemoryGraph(path, Fake())


def held(memory, collection="documents"):
    """Return for each document its state and its fragments, and check that the graph is whole.

    Nothing in it depends on the order in which things came, or on when.
    """
    found = {}
    fragments = {node.id: node for node in memory.nodes("fragment", where={"collection": collection})}
    placed = set()
    for document in memory.nodes("document", where={"collection": collection}):
        known = document.attributes
        parts = []
        for link in memory.links(document.id, "part_of", "in"):
            node = fragments[link.source]
            assert node.attributes["document"] == document.id
            assert node.id not in placed
            placed.add(node.id)
            where = link.data
            about = {name: node.attributes.get(name) for name in ("headings", "context", "block", "content_hash")}
            parts.append((where["order"], node.text, where["start"], where["end"], where.get("lines"), about))
        parts.sort(key=lambda part: part[0])
        assert [part[0] for part in parts] == list(range(known["fragments"]))
        assert known["uri"] not in found
        found[known["uri"]] = {
            **{name: known.get(name) for name in ("status", "name", "title", "content_hash", "characters", "root")},
            "parts": parts,
        }
    assert placed == set(fragments), "a fragment belongs to no document"
    vectors = memory.vectors(list(fragments))
    assert set(vectors) == set(fragments)
    return found


def rebuilt(folder, **options):
    """Return what a memory holds that never saw the folder before."""
    with MemoryGraph(":memory:", Fake()) as memory:
        Ingestor(memory, **options).sync(folder)
        return held(memory, options.get("collection") or "documents")
