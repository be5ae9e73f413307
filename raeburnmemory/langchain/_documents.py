"""Documents of LangChain as nodes of a memory, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..nodes import FRAGMENT, Node, collected_id

with extra("langchain", module="langchain_core"):
    from langchain_core.documents import Document

if TYPE_CHECKING:
    from ..hits import Hit

__all__ = ["found", "plain", "to_document", "to_node", "to_where"]

_OWN = {"collection", "key", "timestamp"}  # what the attributes of a document's node say of itself
# Metadata becomes attributes, so that everybody can filter by it, but for names that mean something else there.
_TAKEN = _OWN | {"id", "type", "text", "name", "role", "metadata"}
_COMBINING = {"and", "or", "not"}


def to_node(collection: str, key: str, text: str, metadata: Mapping[str, Any]) -> Node:
    """Return the node of a document."""
    attributes = {name: value for name, value in metadata.items() if name not in _TAKEN}
    if taken := {name: value for name, value in metadata.items() if name in _TAKEN}:
        attributes["metadata"] = taken
    attributes.update(collection=collection, key=key)
    return Node(collected_id(FRAGMENT, collection, key), FRAGMENT, text, attributes)


def _metadata_of(node: Node) -> dict[str, Any]:
    """Return the metadata of the document that a node was made of."""
    metadata = {name: value for name, value in node.attributes.items() if name not in _OWN and name != "metadata"}
    taken = node.attributes.get("metadata")
    return {**metadata, **taken} if isinstance(taken, Mapping) else metadata


def to_document(node: Node) -> Document:
    """Return the document that a node was made of."""
    return Document(id=str(node.attributes["key"]), page_content=node.text or "", metadata=plain(_metadata_of(node)))


def to_where(conditions: Any) -> Any:
    """Return conditions on metadata as conditions on attributes; what is none is left for its error."""
    if not isinstance(conditions, Mapping):
        return conditions
    found: dict[str, Any] = {}
    for name, value in conditions.items():
        if name in _COMBINING:
            found[name] = [to_where(one) for one in value] if isinstance(value, list) else to_where(value)
        else:
            first = name.partition(".")[0] if isinstance(name, str) else name
            found[f"metadata.{name}" if first in _TAKEN else name] = value
    return found


def found(hit: Hit) -> Document:
    """Return anything that was found as a document; what the memory says of it wins over equal names."""
    node = hit.node
    metadata = _metadata_of(node) if node.kind == FRAGMENT and "key" in node.attributes else dict(node.attributes)
    own = {
        "id": hit.id,
        "kind": node.kind,
        "session": hit.session,
        "speaker": hit.speaker,
        "timestamp": node.timestamp,
        "score": hit.score,
        "similarity": hit.similarity,
        "coverage": hit.coverage,
        "citation": hit.citation,
        "why": hit.why.to_dict(),
    }
    if node.kind == FRAGMENT and "key" in node.attributes:
        own.update(collection=node.attributes.get("collection"), key=node.attributes["key"])
        if set(own) & set(metadata):
            own["metadata"] = metadata
    return Document(id=hit.id, page_content=hit.text, metadata=plain({**metadata, **own}))


def plain(value: Any) -> Any:
    """Return a copy of JSON values, so that changing it changes nothing of the memory's."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
