"""Markdown, for people: conversations as they went, then facts, then everything else.

What was said stands in quotations, so that no text can pass for a heading. It cannot be imported again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..nodes import AGENT, BELONGS_TO, FACT, GENERATED_BY, RESPONDED_WITH, SESSION, copied
from ._output import new_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..nodes import Node
    from ._reading import Reading

__all__ = ["PASSES", "write"]

PASSES = 1
_SHOWN = {"role", "name", "timestamp"}  # attributes that stand in the line above a text


def write(path: str, readings: Sequence[Reading], about: dict[str, Any]) -> tuple[int, int, int]:
    """Write namespaces to a file; return how many nodes and edges these were."""
    nodes = edges = 0
    with new_file(path, overwrite=about["overwrite"]) as file:
        for number, reading in enumerate(readings):
            page = _Page(reading)
            nodes, edges = nodes + len(page.nodes), edges + page.edges
            title = "Memory" if len(readings) == 1 else f"Memory: {_line(reading.namespace)}"
            for line in ["", f"# {title}"][number == 0 :]:
                file.write(f"{line}\n".encode())
            for line in page.lines():
                file.write(f"{line}\n".encode())
    return nodes, edges, 0


class _Page:
    """A namespace, and what belongs where in it."""

    def __init__(self, reading: Reading) -> None:
        self.nodes = {node.id: node for node in reading.nodes()}
        self.edges = 0
        self._sessions: dict[str, list[str]] = {}
        self._by: dict[str, list[str]] = {}
        self._answers: dict[str, list[str]] = {}
        self._others: list[str] = []
        for link in reading.links():
            self.edges += 1
            if link.relation == BELONGS_TO and self.nodes[link.target].kind == SESSION:
                self._sessions.setdefault(link.target, []).append(link.source)
            elif link.relation == GENERATED_BY:
                self._by.setdefault(link.source, []).append(link.target)
            elif link.relation == RESPONDED_WITH:
                self._answers.setdefault(link.source, []).append(link.target)
            else:
                data = f" {_json(link.data)}" if link.data else ""
                self._others.append(f"- `{_line(link.source)}` {_line(link.relation)} `{_line(link.target)}`{data}")

    def lines(self) -> Iterator[str]:
        order = {node_id: place for place, node_id in enumerate(self.nodes)}
        shown: set[str] = set()
        for session in (node for node in self.nodes.values() if node.kind == SESSION):
            said = dict.fromkeys(self._sessions.get(session.id, []))
            said |= dict.fromkeys(answer for one in list(said) for answer in self._answers.get(one, []))
            title = session.attributes.get("title")
            heading = f"{_line(str(title))} ({_line(session.id)})" if title else _line(session.id)
            yield from ("", f"## Session {heading}")
            yield from self._attributes(session, skip={"title"})
            yield from self._said(sorted(said, key=order.__getitem__))
            shown |= {session.id, *said}
        rest = [node for node in self.nodes.values() if node.id not in shown]
        lone = [n.id for n in rest if n.text is not None and n.kind != FACT and "role" in n.attributes]
        lone += [n.id for n in rest if n.id not in set(lone) and (n.id in self._answers or n.kind == "response")]
        if lone:
            yield from ("", "## Outside of sessions")
            yield from self._said(sorted(set(lone), key=order.__getitem__))
        rest = [node for node in rest if node.id not in set(lone)]
        facts = [node for node in rest if node.kind == FACT]
        if facts:
            yield from ("", "## Facts", "")
            yield from map(_fact, facts)
        yield from self._remaining(node for node in rest if node.kind != FACT)
        if self._others:
            yield from ("", "## Edges", "", *self._others)

    def _said(self, ids: Iterable[str]) -> Iterator[str]:
        for node in map(self.nodes.__getitem__, ids):
            agents = (self.nodes[agent].attributes.get("name") or agent for agent in self._by.get(node.id, []))
            who = node.attributes.get("name") or ", ".join(map(str, agents)) or node.attributes.get("role") or node.kind
            told = [_line(str(who)), *([node.timestamp] if node.timestamp else []), f"`{_line(node.id)}`"]
            yield from ("", f"### {', '.join(told)}")
            yield from self._attributes(node, skip=_SHOWN)
            yield from ("", *_quoted(node.text or ""))

    def _remaining(self, nodes: Iterable[Node]) -> Iterator[str]:
        kinds: dict[str, list[Node]] = {}
        for node in nodes:
            kinds.setdefault(node.kind, []).append(node)
        for kind, some in sorted(kinds.items()):
            yield from ("", f"## Nodes of the kind {_line(kind)}")
            for node in some:
                name = node.attributes.get("name") if kind == AGENT else None
                yield from ("", f"### {f'{_line(str(name))}, ' if name else ''}`{_line(node.id)}`")
                yield from self._attributes(node, skip={"name"} if name else set())
                if node.text is not None:
                    yield from ("", *_quoted(node.text))

    @staticmethod
    def _attributes(node: Node, *, skip: set[str]) -> Iterator[str]:
        told = {key: value for key, value in node.attributes.items() if key not in skip}
        if told:
            yield ""
            yield from (f"- {_line(key)}: {_json(value)}" for key, value in told.items())


def _fact(node: Node) -> str:
    since, until = node.attributes.get("valid_from"), node.attributes.get("valid_to")
    holds = f"from {since}{f' to {until}' if until else ''}"
    return f"- {_line(node.text or '')} ({holds}, `{_line(node.id)}`)"


def _quoted(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in text.splitlines()] or [">"]


def _line(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")


def _json(value: Any) -> str:
    if isinstance(value, str):
        return _line(value)
    return _line(json.dumps(copied(value), ensure_ascii=False))
