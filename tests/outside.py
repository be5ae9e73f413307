"""What the tests that see the library from outside share: a small embedder, folders as bytes, other processes."""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

import raeburnmemory
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Where

HERE = Path(__file__).parent
ROOT = Path(raeburnmemory.__file__).parent.parent
LOCKS = (".lock", ".lock.gate")
STORE_FILES = {
    "json": "memory.json",
    "json-npy": "memory.json",
    "sqlite": "memory.db",
    "sqlite-pgvector": "memory.db",
}


def fake(texts, dim=16):
    """Embed texts as bags of words: how often each word, by its CRC, fell into each of *dim* places."""
    rows = np.zeros((len(texts), dim), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().replace("?", " ").replace("!", " ").replace(".", " ").split():
            row[zlib.crc32(word.encode()) % dim] += 1
    return rows


class Fake:
    """The same, as an object with a name and a length of its own."""

    def __init__(self, name="fake", dim=16, salt=""):
        self.name, self.dim, self.salt = name, dim, salt

    def embed(self, texts):
        return fake([" ".join(self.salt + word for word in text.split()) for text in texts], self.dim)


def unit(rows):
    rows = np.asarray(rows, np.float64)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.where(norms == 0, 1, norms)).astype(np.float32)


def contents(folder):
    """Every file below *folder* as bytes, but for the lock files, and what SQLite leaves behind its readers."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
        and not path.name.endswith((*LOCKS, "-shm"))
        and not (path.name.endswith("-wal") and not path.stat().st_size)
    }


def environment(**extra):
    """Return the environment for another Python that sees this library and this folder."""
    paths = [str(ROOT), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", **extra}
    env.pop("RAEBURN_EMBED_MODEL", None) if "RAEBURN_EMBED_MODEL" not in extra else None
    return env


def start(code, *args, before=(), **options):
    """Start another Python with *code*, and *before* in front of it on the command line."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    command = [*before, sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, env=environment(**options.pop("env", {})), text=True, **options)


def run(code, *args, timeout=120, **options):
    """Run *code* in another Python, and return what it printed; an error there is one here."""
    return next(finish([start(code, *args, **options)], timeout))


def finish(processes, timeout=300):
    """Wait for *processes*; none of them may have failed."""
    try:
        for process in processes:
            out, err = process.communicate(timeout=timeout)
            assert process.returncode == 0, err[-4000:]
            yield out
    finally:
        for process in processes:
            end(process)


def end(process):
    process.kill()
    process.communicate()


# --- interactions whose parts can be told to belong together, for the tests of processes and crashes ---------------


def open_memory(path, **options):
    return MemoryGraph(path, fake, vector_backend="exact", **options)


def check_whole(memory, prompts, *, kinds=None, embedded=("prompt", "response")):
    """Every one of *prompts* is there with its response, agent, session, edges and the vectors of those *embedded*."""
    data = memory.export(False)
    edges = {(e["source"], e["relation"]) for e in data["edges"]}
    nodes = {n["id"]: n for n in data["nodes"]}
    assert set(prompts) <= set(nodes)
    for prompt in prompts:
        assert {(prompt, "responded_with"), (prompt, "belongs_to")} <= edges
        answer = "r" + prompt[1:]
        assert nodes[answer]["text"] == f"answer to {nodes[prompt]['text']}"
        assert (answer, "generated_by") in edges
    stats = memory.stats()
    assert stats.vectors == {kind: stats.kinds[kind] for kind in embedded}
    assert stats.unembedded == sum(stats.kinds[kind] for kind in {"prompt", "response"} - set(embedded))
    assert len(check_vectors(memory)) == stats.unembedded
    assert memory.vector_index.ntotal == stats.kinds["prompt"]
    if kinds is not None:
        assert stats.kinds == kinds


def check_vectors(memory, embed=fake):
    """Every vector of a whole text, with the speaker's name before it, is what *embed* makes of it; return the ids of texts that have none."""
    store, without = memory._store, set()
    for kind in ("prompt", "response", "fact", "fragment", "memory", "entity", "observation", "item"):
        told = {node.row: node for node in store.nodes(Where(None, kinds=[kind]))}
        found = {}
        for block in store.vectors(kind, -1).blocks:
            assert block.spans.tolist() == [[0, 0, -1]] * len(block.rows)
            assert not set(found) & set(block.rows.tolist())
            found.update(zip(block.rows.tolist(), block.values, strict=True))
        assert len(found) == len(store.vector_slots(kind)[1])
        assert set(found) <= set(told)
        if found:
            texts = [told[row].text for row in found]
            names = [told[row].attributes.get("name") for row in found]
            expected = unit(
                embed([f"{name}: {text}" if name else text for name, text in zip(names, texts, strict=True)])
            )
            np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)
        without |= {told[row].id for row in set(told) - set(found)}
    return without


def add(memory, number, session="s"):
    text = f"thing {number} of {session}"
    memory.add_interaction(
        {"id": f"p{number}", "text": text}, {"id": f"r{number}", "text": f"answer to {text}"}, "agent", session
    )


def waits_for_the_other_side(port, method, path, body=None, headers=(), *, times=15):
    """Tell whether a server on 127.0.0.1 lets the body of an answer wait until its head is acknowledged.

    That is put off for 40 ms and more on a connection that is kept; a new one is acknowledged at once. Asked in turns, so
    that whatever else keeps the machine busy slows both alike.
    """

    def asked(connection):
        began = time.perf_counter()
        connection.request(method, path, body, dict(headers))
        connection.getresponse().read()
        return time.perf_counter() - began

    kept, together, apart = http.client.HTTPConnection("127.0.0.1", port, timeout=60), [], []
    for _ in range(times):
        together.append(asked(kept))
        own = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        apart.append(asked(own))
        own.close()
    kept.close()
    return statistics.median(together) > 10 * statistics.median(apart)
