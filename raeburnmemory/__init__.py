"""An embedded, local-first memory graph for LLM applications.

>>> from raeburnmemory import MemoryGraph
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import Context
    from .errors import MemoryGraphError
    from .hits import Hit, Hits
    from .memory_graph import Agent, Edge, MemoryGraph, Prompt, Response, Session
    from .nodes import Link, Node

__version__ = "1.0.0rc1"

__all__ = [
    "Agent",
    "Context",
    "Edge",
    "Hit",
    "Hits",
    "Link",
    "MemoryGraph",
    "MemoryGraphError",
    "Node",
    "Prompt",
    "Response",
    "Session",
]

_HOMES = {
    **dict.fromkeys(["MemoryGraph"], "memory_graph"),
    **dict.fromkeys(["Agent", "Edge", "Link", "Node", "Prompt", "Response", "Session"], "nodes"),
    **dict.fromkeys(["Hit", "Hits"], "hits"),
    **dict.fromkeys(["Context"], "context"),
    **dict.fromkeys(["MemoryGraphError"], "errors"),
}


def __getattr__(name: str) -> Any:
    # Names are loaded when they are used (PEP 562): `import raeburnmemory` costs no numpy.
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name == "doctor":
        from importlib import import_module

        return import_module(".doctor", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
