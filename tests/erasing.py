"""What the tests of forgetting share: unmistakable secrets, and a scanner that looks for any part of them in files."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from pathlib import Path

import numpy as np

from raeburnmemory.memory_graph import MemoryGraph

RUN = 8  # bytes of a secret that nothing may hold in a row
DIM = 24


class Noise:
    """Embeds a text as a direction that hangs on every one of its bytes, so that no two texts share a number."""

    def __init__(self, name="noise", dim=DIM):
        self.name, self.dim = name, dim

    def embed(self, texts):
        rows = []
        for text in texts:
            seed = hashlib.sha256(f"{self.name}:{text}".encode()).digest()
            rows.append(np.random.default_rng(int.from_bytes(seed[:8], "big")).normal(size=self.dim))
        return np.array(rows, np.float32).reshape(-1, self.dim)


def open_noise(path, **options):
    options = {"vector_backend": "exact", "embedding_model": Noise(), **options}
    return MemoryGraph(path, **options)


class Secrets:
    """Makes strings that stand nowhere else, and knows all that it made."""

    def __init__(self, seed):
        self._dice = random.Random(f"secrets {seed}")
        self.strings = []
        self.vectors = []
        self._runs = (0, 0), np.empty(0, "<u8")  # of how many of these, sorted

    def word(self, length=32):
        made = "".join(self._dice.choices("bcdfghjklmnpqrstvwxz", k=length))
        self.strings.append(made)
        return made

    def text(self, words=3):
        made = " ".join(
            f"{self.word()} {self._dice.choice(['ß', '漢字', '🦜', 'é'])}{self.word()}" for _ in range(words)
        )
        self.strings.append(made)
        return made

    def number(self):
        made = self._dice.randrange(10**15, 10**16)
        self.strings.append(str(made))
        return made

    def learn(self, memory, ids):
        """Note the vectors that the nodes *ids* have by now, as they lie in files."""
        store = memory._store
        rows = [node.row for node in store.get(list(ids), memory.namespace).values()]
        for field in store.counts(None)["vectors"]:
            for block in store.vectors(field, -1).blocks:
                self.vectors += [np.array(values) for values in block.values[np.isin(block.rows, rows)]]

    def forms(self):
        """Yield every secret as the bytes of each form in which a file might hold it."""
        for string in self.strings:
            yield string.encode()
            yield string.encode("utf-16-le")
            yield string.encode("utf-16-be")
            yield json.dumps(string)[1:-1].encode()
            yield json.dumps(json.dumps(string)[1:-1])[1:-1].encode()
            yield from _in_base64(string.encode())
        for vector in self.vectors:
            for order in ("<f4", ">f4"):
                yield vector.astype(order).tobytes()
            yield from _in_base64(vector.astype("<f4").tobytes())

    def found(self, folder):
        """Return the names of the files below *folder* that hold a run of 8 bytes of a secret, with one such run."""
        known = len(self.strings), len(self.vectors)
        if self._runs[0] != known:
            self._runs = known, np.sort(np.concatenate([_windows(form) for form in self.forms()]))
        runs = self._runs[1]
        found = {}
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                there = _windows(path.read_bytes())
                hits = there[runs[np.minimum(np.searchsorted(runs, there), len(runs) - 1)] == there]
                if len(hits):
                    found[path.name] = hits[0].tobytes()
        return found

    def shown(self, memory):
        """Return the calls of *memory* that show a part of a secret."""
        runs = {string[at : at + RUN] for string in self.strings for at in range(len(string) - RUN + 1)}
        shown = []
        for name, value in answers(memory, self.strings[-1]).items():
            text = repr(value)
            if any(text[at : at + RUN] in runs for at in range(len(text) - RUN + 1)):
                shown.append(name)
        return shown


def _in_base64(raw):
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        yield coded[4 if shift else 0 : -4]  # what stands in it whatever comes before and after


def _windows(data):
    """Return every run of 8 bytes of *data* as one number each."""
    parts = []
    for at in range(min(RUN, len(data))):
        count = (len(data) - at) // RUN
        parts.append(np.frombuffer(data, "<u8", count, at))
    return np.concatenate(parts) if parts else np.empty(0, "<u8")


def answers(memory, secret):
    """Return what every call that reads gives, by its name, in a memory of which only *secret* is gone."""
    nodes = list(memory.nodes())
    ids = [node.id for node in nodes]
    asked = {
        "recall": lambda: [(h.node, h.why) for h in memory.recall("what was said", 500)],
        "recall it": lambda: [h.node for h in memory.recall(secret, 500)],
        "similar": lambda: list(memory.similar("what was said", 500)),
        "similar it": lambda: [h.node for h in memory.similar(secret, 500)],
        "context": lambda: str(memory.context("what was said", 4000)),
        "nodes": lambda: nodes,
        "export": lambda: memory.export(False, all_namespaces=True),
        "graph": lambda: (dict(memory.graph.nodes(data=True)), list(memory.graph.edges(data=True))),
        "networkx": lambda: (dict(memory.to_networkx().nodes(data=True)), list(memory.to_networkx().edges)),
        "stats": memory.stats,
        "history": lambda: [memory.history(i) for i in ids],
        "why": lambda: [str(memory.why(i)) for i in ids],
        "trace": lambda: [str(memory.trace(i)) for i in ids],
        "links": lambda: [memory.links(i) for i in ids],
        "facts": lambda: memory.facts(include_superseded=True),
        "single_valued": memory.single_valued,
        "thread": lambda: [memory.thread(node.id) for node in nodes if node.kind == "session"],
        "meta": lambda: [memory._store.meta(key) for key in ("embedder", "erasing", "single_valued")],
    }
    return {name: ask() for name, ask in asked.items()}


def plant(memory, secrets, *, others=60):
    """Fill *memory* with ordinary things and a few secret ones; return the ids of those to be forgotten."""
    memory.add_many(
        [
            (
                {"id": f"p{n}", "text": f"what was said as number {n}"},
                {"id": f"r{n}", "text": f"answer {n}"},
                "ana",
                "s",
            )
            for n in range(others)
        ]
    )
    prompt, response, session = (secrets.word() for _ in range(3))
    memory.add_interaction(
        {
            "id": prompt,
            "text": secrets.text(),
            secrets.word(): secrets.word(),
            "n": [secrets.number(), {"x": secrets.word()}],
        },
        {"id": response, "text": secrets.text(), "model": secrets.word()},
        "ana",
        session,
        metadata={"topic": secrets.word()},
    )
    long = secrets.word()
    memory.add_interaction({"id": long, "text": secrets.text(30)}, "a short answer", "ana", "s")
    fact = memory.fact(secrets.word(), secrets.word(), secrets.word(), source=prompt, metadata={"by": secrets.word()})
    part = secrets.word()
    memory.graph.add_node(part, type="fragment", text=secrets.text(2))
    memory.link(part, long, "part_of", note=secrets.word())
    memory.link("r1", prompt, secrets.word(), note=secrets.word())
    memory.link("p2", long, "cites")
    gone = [prompt, response, session, long, fact.id, part]
    secrets.learn(memory, gone)
    return gone


def forget_planted(memory, gone, **options):
    """Forget what `plant` planted, leaving to `forget` what it has to find by itself."""
    return memory.forget([gone[0], gone[1], gone[3]], **options)
