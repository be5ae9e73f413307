"""What a `MemoryGraph` must hold, kept as plain dicts: the oracle of the property tests."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

DIM = 16
# The kinds of nodes whose text gets a vector.
EMBEDDED = ("prompt", "response", "fact", "fragment", "memory", "entity", "observation", "item")


def fake_embedder(texts):
    """Count words, each in one of 16 places; a text without letters gets zeros, which means no vector."""
    rows = np.zeros((len(texts), DIM), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"[^\W\d_]+", text.lower()):
            row[zlib.crc32(word.encode()) % DIM] += 1
    return rows


def unit_row(text):
    row = fake_embedder([text])[0].astype(np.float64)
    return row / np.linalg.norm(row) if row.any() else None


def exact(value):
    """Return a JSON value as text: True, 1 and 1.0 are equal, and not the same."""
    return json.dumps(value, sort_keys=True)


class Conflict(Exception):
    """An id of another kind of node; nothing is changed."""


@dataclass
class Model:
    """One namespace: nodes in the order of first writing, links likewise, and the versions that were replaced."""

    nodes: dict = field(default_factory=dict)  # id -> (kind, text, attributes)
    links: dict = field(default_factory=dict)  # (source, target, relation) -> data
    past: dict = field(default_factory=dict)

    # --- writing ------------------------------------------------------------------------------------------------

    def put(self, node_id, kind, text, attributes):
        attributes, old = dict(attributes), self.nodes.get(node_id)
        if old is not None and old[0] != kind:
            raise Conflict
        if old is None and kind == "agent":
            attributes.setdefault("name", node_id)
        if old is not None and kind in {"agent", "session"}:
            attributes = {**old[2], **attributes}
        elif old is not None and "timestamp" in old[2]:
            attributes["timestamp"] = old[2]["timestamp"]
        self.replace(node_id, (kind, text, attributes))

    def replace(self, node_id, new):
        old = self.nodes.get(node_id)
        if old is not None and exact(old) == exact(new):
            return
        if old is not None:
            self.past.setdefault(node_id, []).append(old)
        self.nodes[node_id] = new

    def interaction(self, prompt, response, agent, session, when):
        """Each of the first two an (id, text, attributes) or None; agent (id, attributes) or None; session an id."""
        made = [(prompt[0], "prompt", prompt[1], {**prompt[2], "timestamp": when})]
        if response:
            made.append((response[0], "response", response[1], {**response[2], "timestamp": when}))
        if agent:
            made.append((agent[0], "agent", None, agent[1]))
        if session:
            made.append((session, "session", None, {}))
        for each in made:
            self.put(*each)
        if response:
            self.links.setdefault((prompt[0], response[0], "responded_with"), {})
            if agent:
                self.links.setdefault((response[0], agent[0], "generated_by"), {})
        if session:
            self.links.setdefault((prompt[0], session, "belongs_to"), {})

    def message(self, node_id, text, role, session, name, when):
        kind = {"user": "prompt", "assistant": "response"}.get(role, role)
        answers = None
        if role == "assistant" and node_id in self.nodes:
            answers = next((s for s, t, r in self.links if (t, r) == (node_id, "responded_with")), None)
        elif role == "assistant" and session:
            said = [s for s, t, r in self.links if (t, r) == (session, "belongs_to")]
            answers = next((s for s in reversed(said) if self.nodes[s][0] == "prompt"), None)
        self.put(node_id, kind, text, {"role": role, **({"name": name} if name else {}), "timestamp": when})
        if session:
            self.put(session, "session", None, {})
        if answers:
            self.links.setdefault((answers, node_id, "responded_with"), {})
        elif session:
            self.links.setdefault((node_id, session, "belongs_to"), {})

    def update(self, node_id, text, metadata, remove):
        kind, old, attributes = self.nodes[node_id]
        attributes = {name: value for name, value in {**attributes, **metadata}.items() if name not in remove}
        self.replace(node_id, (kind, old if text is None else text, attributes))

    def graph_node(self, node_id, attributes):
        rest = dict(attributes)
        kind, text = rest.pop("type", None), rest.pop("text", None)
        if node_id not in self.nodes:
            self.nodes[node_id] = (kind or "node", text, rest)
            return
        old = self.nodes[node_id]
        if kind not in {None, old[0]}:
            raise Conflict
        self.replace(node_id, (old[0], old[1] if text is None else text, {**old[2], **rest}))

    # --- forgetting ---------------------------------------------------------------------------------------------

    def sources(self, target, relation):
        return {s for s, t, r in self.links if (t, r) == (target, relation)}

    def targets(self, source, relation):
        return {t for s, t, r in self.links if (s, r) == (source, relation)}

    def chosen(self, ids=None, session=None, agent=None, before=None, where=None):
        """Return the ids that a forget with these conditions means, without the sessions that it empties."""
        conditions = []
        if ids is not None:
            conditions.append(set(ids) & set(self.nodes))
        if session is not None:
            said = self.sources(session, "belongs_to")
            answers = {t for s in said for t in self.targets(s, "responded_with")}
            answers = {t for t in answers if self.sources(t, "responded_with") <= said}
            conditions.append(({session} & set(self.nodes)) | said | answers)
        if agent is not None:
            answers = self.sources(agent, "generated_by")
            asked = {s for t in answers for s in self.sources(t, "responded_with")}
            conditions.append(answers | {s for s in asked if self.targets(s, "responded_with") <= answers})
        if before is not None:
            conditions.append({i for i, n in self.nodes.items() if n[2].get("timestamp", before) < before})
        if where is not None:
            conditions.append({i for i, n in self.nodes.items() if where.items() <= n[2].items()})
        return set.intersection(*conditions)

    def with_what_was_made_of_it(self, ids):
        """Return *ids* with what cites any of them, and with the sessions that all this leaves empty."""
        while True:
            cite = {s for s, t, r in self.links if r == "cites" and t in ids}
            left = {t for s, t, r in self.links if r == "belongs_to" and s in ids}
            more = ids | cite | {session for session in left if self.sources(session, "belongs_to") <= ids}
            if more == ids:
                return ids
            ids = more

    def forget(self, ids):
        """Remove nodes and the sessions they leave empty; return what the report must say."""
        emptied = {t for s, t, r in self.links if r == "belongs_to" and s in ids} - ids
        gone = ids | {session for session in emptied if self.sources(session, "belongs_to") <= ids}
        order = [node_id for node_id in self.nodes if node_id in gone]
        vectors = len(self.vectors(EMBEDDED).keys() & gone)
        kinds = Counter(self.nodes[node_id][0] for node_id in order)
        around = [key for key in self.links if gone & set(key[:2])]
        for key in around:
            del self.links[key]
        for node_id in order:
            del self.nodes[node_id]
            self.past.pop(node_id, None)
        return {"ids": tuple(order), "kinds": dict(sorted(kinds.items())), "links": len(around), "vectors": vectors}

    # --- what must be found -------------------------------------------------------------------------------------

    def vectors(self, kinds=("prompt",)):
        """Return the unit vector of every node of these kinds that has one: of its text, after its name if it has one."""
        rows = {}
        for node_id, (kind, text, attributes) in self.nodes.items():
            if kind in kinds and text:
                name = attributes.get("name")
                row = unit_row(f"{name}: {text}" if isinstance(name, str) and name else text)
                if row is not None:
                    rows[node_id] = row
        return rows

    def counted_vectors(self):
        """Return how many vectors there are in each field."""
        counts = {kind: len(self.vectors([kind])) for kind in sorted(EMBEDDED)}
        return {kind: count for kind, count in counts.items() if count}

    def thread(self, session):
        said = self.sources(session, "belongs_to")
        said |= {t for s in said for t in self.targets(s, "responded_with")}
        return [node_id for node_id in self.nodes if node_id in said]

    def flat(self, node_id):
        kind, text, attributes = self.nodes[node_id]
        return {"type": kind, **({} if text is None else {"text": text}), **deepcopy(attributes)}

    def pairs(self):
        """Return what one edge per pair of nodes shows, in the order of the oldest link of each."""
        pairs = {}
        for (source, target, relation), data in self.links.items():
            pairs.setdefault((source, target), {})[relation] = deepcopy(data)
        return {
            pair: {
                "relation": next(iter(several)),
                **next(iter(several.values())),
                **({"relations": several} if len(several) > 1 else {}),
            }
            for pair, several in pairs.items()
        }

    def node_link(self):
        edges = [{**shown, "source": s, "target": t} for (s, t), shown in self.pairs().items()]
        nodes = [{**self.flat(node_id), "id": node_id} for node_id in self.nodes]
        return {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges, "links": edges}


def compare_graph(memory, model):
    """Assert that `graph` and `to_networkx` show what the model holds, in its order."""
    pairs = model.pairs()
    nodes = [(node_id, model.flat(node_id)) for node_id in model.nodes]
    edges = [(s, t, shown) for node_id in model.nodes for (s, t), shown in pairs.items() if s == node_id]
    for graph in (memory.graph, memory.to_networkx()):
        assert [(node_id, dict(shown)) for node_id, shown in graph.nodes(data=True)] == nodes
        assert [(s, t, dict(shown)) for s, t, shown in graph.edges(data=True)] == edges
        assert all(set(graph.predecessors(i)) == {s for s, t in pairs if t == i} for i in model.nodes)
