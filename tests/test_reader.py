"""Reading from a large store: what is asked for is read, and not much more."""

from __future__ import annotations

import gc

import pytest
from outside import open_memory


@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_a_memory_stays_open_while_its_nodes_are_read(tmp_path, name):
    with open_memory(tmp_path / name) as memory:
        memory.add_many([({"id": f"p{n}", "text": f"thing {n}"},) for n in range(2500)])
    found = []
    for node in open_memory(tmp_path / name).nodes():
        gc.collect() if len(found) % 1000 == 0 else None
        found.append(node.id)
    assert found == [f"p{n}" for n in range(2500)]
