"""The command that serves a memory to assistants over the Model Context Protocol."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer

from ._target import Target, existing, option
from ._terminal import tell
from .errors import InvalidInput
from .records import checked_id

__all__ = ["register"]


def mcp(
    ctx: typer.Context,
    collection: Annotated[str, option("The collection that the knowledge graph is kept in.", metavar="NAME")] = "mcp",
    http: Annotated[bool, option("Serve over streamable HTTP instead of standard input and output.", "--http")] = False,
    host: Annotated[str, option("With --http: the address to listen on.")] = "127.0.0.1",
    port: Annotated[int, option("With --http: the port; 0 for any that is free.", min=0, max=65535)] = 4445,
    allow_host: Annotated[
        list[str] | None, option("With --http: a name that clients may call it by; may be repeated.", metavar="NAME")
    ] = None,
    read_only: Annotated[bool, option("Offer only tools that read.", "--read-only")] = False,
    max_characters: Annotated[int, option("How long an answer may be; what is cut is said in it.", min=1000)] = 60_000,
    model: Annotated[str | None, option("The embedding model, for a new memory.")] = None,
) -> None:
    """Serve the memory to an assistant over the Model Context Protocol, until it hangs up.

    The memory is made if it is not there. Over HTTP clients send RAEBURN_API_KEY, if it is set, as
    'Authorization: Bearer KEY'; without it only this machine is served.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db mcp
      raeburnmemory --db memory.db --namespace ana mcp --read-only
      raeburnmemory --db memory.db mcp --http --port 4445
    """
    key = os.environ.get("RAEBURN_API_KEY") if http else None  # empty is an error, not a service without a key
    typed = [name for name in ("host", "port", "allow_host") if _typed(ctx, name)]
    if typed and not http:
        raise InvalidInput(f"--{typed[0].replace('_', '-')} needs --http.")
    from . import mcp as door

    target: Target = ctx.obj
    checked_id(collection, "a collection")  # these for their errors, before there is a file
    make_server = door.make_server
    if http:
        door.check_address(host, key)
    named: dict[str, Any] = {} if model is None else {"embedding_model": model}
    with existing(ctx, read_only=True) if read_only else target.open(**named) as memory:
        server = make_server(memory, collection=collection, max_characters=max_characters)
        if http:
            signal.signal(signal.SIGTERM, _end)
            door.serve_http(
                server,
                host=host,
                port=port,
                key=key,
                allowed_hosts=allow_host or (),
                ready=lambda url: tell("Note", f"Serving {memory.db_path} on {url}"),
            )
        else:
            from anyio import run

            def leave(number: int, _frame: Any) -> None:
                # The thread that waits for the next request cannot be woken, and Python would wait for it.
                memory.close()
                os._exit(128 + number)

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, leave)
            run(door.serve_stdio, server)


def _end(number: int, _frame: Any) -> None:
    sys.exit(128 + number)


def _typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to *app*, under a heading of its help."""
    app.command(rich_help_panel=panel)(mcp)
