"""The command line: one command for each thing that people do with a memory without writing a program.

Exit codes: 0 done; 1 something went wrong with the store, or a question was answered with no; 2 a command or value
that makes no sense; 3 not found: no such node, session, model or memory, nothing to forget; 4 vectors or the model
behind them are missing; 5 another process holds the memory; 130 interrupted; 141 whoever read the output stopped
reading.

Errors and warnings are one line each on stderr. With `--json`, stdout holds JSON and nothing else.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from . import __version__
from ._target import HOME, Json, Target, command_for, existing, option
from ._terminal import (
    Commands,
    attributes,
    json_object,
    print_hits,
    print_json,
    print_reindexed,
    print_text,
    progress_bar,
    tell,
    time_or_seconds,
)
from .cli_ask import register as register_ask
from .cli_doctor import register as register_doctor
from .cli_hub import register as register_hub
from .cli_ingest import register as register_ingest
from .cli_mcp import register as register_mcp
from .cli_models import register as register_models
from .cli_reading import register as register_reading
from .cli_serve import register as register_serve
from .cli_transfer import register_export, register_import
from .errors import ErasureIncomplete, InvalidInput, NodeNotFound

__all__ = ["app"]

# The headings of the commands in the help.
_RECORD, _READ, _CARE, _SERVE, _SHOW = "Record and remove", "Find and read", "Look after", "Serve", "Try it"

_EPILOG = """[bold]Exit codes[/bold]

0  done

1  something is wrong with the store, or you said no

2  a command or value that makes no sense

3  not found: no such node, session, model or memory, nothing to forget

4  vectors or the model behind them are missing; the message says what to run

5  another process holds the memory

130  interrupted"""

app = typer.Typer(
    name="raeburnmemory",
    cls=Commands,
    epilog=_EPILOG,
    rich_markup_mode="rich",
    # Their pretty form prints the values of local variables: other people's texts do not belong in bug reports.
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"raeburnmemory {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    db: Annotated[
        str | None,
        option("The file that holds the memory.", envvar="RAEBURN_DB", metavar="PATH", show_default=HOME),
    ] = None,
    namespace: Annotated[str, option("Read and write only this part of it.", metavar="NAME")] = "default",
    timeout: Annotated[float, option("How long to wait for other writers.", metavar="SECONDS", min=0)] = 30.0,
    _version: Annotated[
        bool, option("Print the version.", "--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Keep what was said, by whom and when, in a file, and find it again by meaning.

    The options below come before the command.

    [bold]Examples[/bold]

      raeburnmemory demo
      raeburnmemory --db memory.db add --prompt-text "Hello" --response-text "Hi"
      raeburnmemory --db memory.db similar --text "greeting"
    """
    source = ctx.get_parameter_source("db")
    ctx.obj = Target(db, namespace, timeout, by_option=source is not None and source.name == "COMMANDLINE")


# --- writing ----------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_RECORD)
def add(
    ctx: typer.Context,
    prompt_text: Annotated[str, option("What was asked or said.")],
    prompt_id: Annotated[str | None, option("Its id; made if left out.")] = None,
    response_text: Annotated[str | None, option("What was answered.")] = None,
    response_id: Annotated[str | None, option("Its id; made if left out.")] = None,
    agent_id: Annotated[str | None, option("Who answered.")] = None,
    agent_name: Annotated[str | None, option("The name of who answered.")] = None,
    session_id: Annotated[str | None, option("The conversation it belongs to.")] = None,
    timestamp: Annotated[str | None, option("When, in ISO 8601; now if left out.", metavar="TIME")] = None,
    metadata: Annotated[str | None, option("A JSON object to keep with it.", metavar="JSON")] = None,
    model: Annotated[str | None, option("The embedding model, for a new memory.")] = None,
    as_json: Json = False,
) -> None:
    """Record an interaction; the memory is made if it is not there.

    A node whose id is there already gets the new text.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json add --prompt-text "Hello" --response-text "Hi"
      raeburnmemory add --prompt-text "Tea?" --metadata '{"topic": "drinks"}'
      raeburnmemory --db new.db add --model builtin --prompt-text "Hello"
    """
    from .records import interaction

    if response_id is not None and response_text is None:
        raise InvalidInput("--response-id needs --response-text.")
    if agent_name is not None and agent_id is None:
        raise InvalidInput("--agent-name needs --agent-id.")
    given: dict[str, Any] = {
        "prompt": {"id": prompt_id, "text": prompt_text},
        "response": None if response_text is None else {"id": response_id, "text": response_text},
        "agent": None if agent_id is None else {"id": agent_id, "name": agent_name},
        "session_id": session_id,
        "metadata": None if metadata is None else json_object(metadata, "--metadata"),
        "timestamp": None if timestamp is None else time_or_seconds(timestamp),
    }
    target: Target = ctx.obj
    interaction(**given, namespace=target.namespace)  # for its errors, before there is a file
    named: dict[str, Any] = {} if model is None else {"embedding_model": model}
    with target.open(**named) as memory:
        recorded = memory.add_interaction(**given)
    ids = {part: node_id for part, node_id in asdict(recorded).items() if node_id is not None}
    if as_json:
        print_json(ids)
    else:
        print_text(f"Recorded {', '.join(f'{part} {node_id}' for part, node_id in ids.items())} in {memory.db_path}")


@app.command(rich_help_panel=_RECORD)
def fact(
    ctx: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Whom or what it is about.")],
    predicate: Annotated[str, typer.Argument(metavar="PREDICATE", help="What is said, such as lives_in.")],
    thing: Annotated[str, typer.Argument(metavar="OBJECT", help="The value.")],
    valid_from: Annotated[
        str | None, option("Since when it holds, in ISO 8601; now if left out.", "--from", metavar="TIME")
    ] = None,
    valid_to: Annotated[str | None, option("When it ends, in ISO 8601.", "--to", metavar="TIME")] = None,
    source: Annotated[
        list[str] | None, option("A node it was taken from; may be repeated.", "--source", metavar="ID")
    ] = None,
    fact_id: Annotated[str | None, option("Its id; made if left out.", "--id", metavar="ID")] = None,
    single_valued: Annotated[
        bool, option("Let a subject have one value of this predicate at a time, from now on.", "--single-valued")
    ] = False,
    model: Annotated[str | None, option("The embedding model, for a new memory.")] = None,
    as_json: Json = False,
) -> None:
    """Record a fact and since when it holds; the memory is made if it is not there.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json fact Ana likes tea
      raeburnmemory fact Ana lives_in Vienna --from 2024-05-01 --single-valued
      raeburnmemory fact Ana allergic_to peanuts --source p1
    """
    from .facts import said

    given: dict[str, Any] = {
        "valid_from": None if valid_from is None else time_or_seconds(valid_from),
        "valid_to": None if valid_to is None else time_or_seconds(valid_to),
        "source": source or None,
    }
    target: Target = ctx.obj
    # For its errors, before there is a file.
    said((subject, predicate, thing), namespace=target.namespace, fact_id=fact_id, **given)
    named: dict[str, Any] = {} if model is None else {"embedding_model": model}
    with existing(ctx, read_only=False) if source else target.open(**named) as memory:
        node = memory.fact(subject, predicate, thing, id=fact_id, **given)
        if single_valued:
            memory.single_valued(predicate)
            node = memory.get(node.id)
    if as_json:
        print_json(node.to_dict())
    else:
        print_text(f"Recorded fact {node.id} in {memory.db_path}: {node.text}")


FactId = Annotated[str, typer.Argument(metavar="ID", help="The id of the fact.")]


@app.command(rich_help_panel=_RECORD)
def retract(
    ctx: typer.Context,
    fact_id: FactId,
    at: Annotated[str | None, option("Until when it held, in ISO 8601; now if left out.", metavar="TIME")] = None,
    as_json: Json = False,
) -> None:
    """Let a fact end: it held until then and no longer.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json retract f1
      raeburnmemory retract f1 --at 2025-01-01
    """
    until = None if at is None else time_or_seconds(at)
    with existing(ctx, read_only=False) as memory:
        node = memory.retract(fact_id, until)
    if as_json:
        print_json(node.to_dict())
    else:
        print_text(f"Fact {node.id} ends at {node.attributes['valid_to']}: {node.text}")


@app.command(rich_help_panel=_RECORD)
def undo(ctx: typer.Context, fact_id: FactId, as_json: Json = False) -> None:
    """Take back a fact as if it had never been said: what it superseded holds again.

    [bold]Example[/bold]

      raeburnmemory --db graph.json undo f1
    """
    with existing(ctx, read_only=False) as memory:
        node = memory.undo(fact_id)
    if as_json:
        print_json(node.to_dict())
    else:
        print_text(f"Took back fact {node.id}: {node.text}")


@app.command(rich_help_panel=_RECORD)
def forget(
    ctx: typer.Context,
    ids: Annotated[list[str] | None, option("A node; may be repeated.", "--id", metavar="ID")] = None,
    session: Annotated[str | None, option("The prompts of a session and their responses.")] = None,
    agent: Annotated[str | None, option("The responses of an agent, and the prompts that only it answered.")] = None,
    before: Annotated[str | None, option("What is older than this, in ISO 8601.", metavar="TIME")] = None,
    where: Annotated[list[str] | None, option("What has this attribute; may be repeated.", metavar="KEY=VALUE")] = None,
    secure: Annotated[
        bool, option("Leave nothing of it, nor of what was derived from it, in any file.", "--secure")
    ] = False,
    backups: Annotated[bool, option("With --secure: delete copies that cannot be read.", "--backups")] = False,
    yes: Annotated[bool, option("Do not ask.", "--yes", "-y")] = False,
    as_json: Json = False,
) -> None:
    """Remove nodes with their texts, vectors and edges.

    With several conditions, only what meets all of them goes. A value after --where is JSON, or else text, and may hold
    operators. On a terminal it asks first. With --secure every file is written anew, so that nothing of it is left in
    one.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json forget --id p1 --id r1
      raeburnmemory forget --session s1 --secure
      raeburnmemory forget --session s1 --yes
      raeburnmemory forget --before 2025-01-01 --where topic=health
    """
    conditions: dict[str, Any] = {
        "ids": ids or None,
        "session": session,
        "agent": agent,
        "before": None if before is None else time_or_seconds(before),
        "where": attributes(where) if where else None,
    }
    given = {name: value for name, value in conditions.items() if value is not None}
    if not given:
        raise InvalidInput("Say what to forget, with --id, --session, --agent, --before or --where.")
    if backups and not secure:
        raise InvalidInput("--backups needs --secure, which alone looks at copies.")
    with existing(ctx, read_only=False) as memory:
        if not yes and sys.stdin is not None and sys.stdin.isatty():
            what = ", ".join(f"{name} {value!r}" for name, value in given.items())
            if not typer.confirm(f"Forget {what} in {memory.db_path}? This cannot be undone", err=True):
                tell("Note", "Nothing was forgotten.")
                raise typer.Abort
        try:
            report = memory.forget(**given, secure=secure, backups=backups)
        except ErasureIncomplete as exc:
            if as_json:
                print_json(exc.report.to_dict())
            raise
    if as_json:
        print_json(report.to_dict())
    if not report and not secure:
        raise NodeNotFound(f"Nothing in {memory.db_path!r} fits; nothing was forgotten.")
    if not as_json:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items()) or "nothing that was still there"
        print_text(f"Forgot {kinds}; edges: {report.links}, vectors: {report.vectors}.")
        for done, names in (("Written anew", report.rewritten), ("Deleted", report.deleted)):
            if names:
                print_text(f"{done}: {', '.join(names)}")


register_import(app, _RECORD)
register_ingest(app, _RECORD)
register_reading(app, _READ)
register_ask(app, _READ)
register_export(app, _READ)


# --- looking after ---------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_CARE)
def reindex(ctx: typer.Context, as_json: Json = False) -> None:
    """Make the vectors that are missing, in all namespaces, and build the index anew.

    [bold]Example[/bold]

      raeburnmemory --db graph.json reindex
    """
    with existing(ctx, read_only=False) as memory, progress_bar("Embedding") as progress:
        report = memory.reindex(progress)
    print_reindexed(report, as_json=as_json)


@app.command(rich_help_panel=_CARE)
def reembed(
    ctx: typer.Context,
    model: Annotated[str, option("The model to move to: a name, a folder, openai:URL, or builtin.")],
    as_json: Json = False,
) -> None:
    """Move the whole memory, all namespaces, to another embedding model.

    Searches go on with the old vectors until all new ones are there. Interrupted, it goes on where it was.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json reembed --model all-MiniLM-L6-v2
      raeburnmemory --db graph.json reembed --model builtin
    """
    with existing(ctx, read_only=False) as memory, progress_bar("Embedding") as progress:
        report = memory.reembed(model, progress)
    print_reindexed(report, as_json=as_json)


register_doctor(app, _CARE)
register_serve(app, _SERVE)
register_mcp(app, _SERVE)
register_models(app, _SERVE)
register_hub(app, _SERVE)


# --- showing itself ---------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_SHOW)
def demo(
    ctx: typer.Context,
    model: Annotated[str | None, option("The embedding model; if left out, builtin.")] = None,
    as_json: Json = False,
) -> None:
    """Record Python's own help topics, ask three questions, and show what is found.

    The memory is left where --db says, or else in a new temporary folder; RAEBURN_DB is left alone. It takes seconds
    and needs no network.

    [bold]Examples[/bold]

      raeburnmemory demo
      raeburnmemory --db demo.json demo --json
    """
    from .demo import demonstrate

    target: Target = ctx.obj
    if not target.by_option:
        target = replace(target, db=os.path.join(tempfile.mkdtemp(prefix="raeburnmemory-demo-"), "memory.db"))
    named = _offline_model(target) if model is None else {"embedding_model": model}
    with target.open(**named) as memory, progress_bar("Recording") as progress:
        done = demonstrate(memory, progress)
    if as_json:
        print_json(done.to_dict())
        return
    print_text(
        f"Recorded Python's help topics with the model {done.model!r}: {done.interactions} interactions, {done.new} of "
        f"them new, in {done.seconds:.2f} s."
    )
    for question, hits in done.answers:
        print_text(f"\n{question}")
        print_hits(hits)
    command = command_for(done.path)
    print_text(
        f"\nThe memory is in {done.path}\nTry next:\n"
        f'  {command} similar --text "checking my assumptions while debugging"\n  {command} stats'
    )


def _offline_model(target: Target) -> dict[str, Any]:
    """Choose the model that needs no network, but for a memory that has vectors, which keeps to its own."""
    if target.exists():
        with target.open(read_only=True) as memory:
            if memory.stats().embedder is not None:
                return {}
    return {"embedding_model": "builtin"}


if __name__ == "__main__":
    app(prog_name="raeburnmemory")
