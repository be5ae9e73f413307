"""A memory as a server of the Model Context Protocol, for assistants and editors; extra `mcp`.

`make_server` gives the official SDK's server for a memory, `serve_stdio` and `serve_http` run it, and
`raeburnmemory mcp` does all of that. The tools are those of the reference memory server, the two that ChatGPT's
connectors look for, and ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._http import PORT, check_address, http_app, serve_http
    from ._server import GRAPH_URI, make_server, serve_stdio

__all__ = ["GRAPH_URI", "PORT", "check_address", "http_app", "make_server", "serve_http", "serve_stdio"]

_HOMES = {
    **dict.fromkeys(["GRAPH_URI", "make_server", "serve_stdio"], "_server"),
    **dict.fromkeys(["PORT", "check_address", "http_app", "serve_http"], "_http"),
}


def __getattr__(name: str) -> Any:
    # The SDK takes a second to import: the command line must be able to refuse what makes no sense before that.
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
