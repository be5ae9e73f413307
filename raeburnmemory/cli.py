"""The command line: one command for each thing that people do with a memory without writing a program.

Exit codes: 0 done; 1 something went wrong with the store, or a question was answered with no; 2 a command or value
that makes no sense; 3 not found: no such node, session or memory, nothing to forget; 4 vectors or the model behind
them are missing; 5 another process holds the memory; 130 interrupted; 141 whoever read the output stopped reading.

Errors and warnings are one line each on stderr. With `--json`, stdout holds JSON and nothing else.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from ._terminal import (
    Commands,
    attributes,
    json_object,
    print_facts,
    print_fields,
    print_hits,
    print_json,
    print_reindexed,
    print_said,
    print_text,
    progress_bar,
    tell,
    time_or_seconds,
)
from .errors import ErasureIncomplete, InvalidInput, NodeNotFound, ReadOnly, StoreMissing

if TYPE_CHECKING:
    from .memory_graph import MemoryGraph

__all__ = ["app"]

_HOME = "~/.raeburnbrain/graph.json"

_EPILOG = """[bold]Exit codes[/bold]

0  done

1  something went wrong with the store, or you said no

2  a command or value that makes no sense

3  not found: no such node, session or memory, nothing to forget

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

_Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def _option(help_text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_text, **more)


@dataclass(frozen=True)
class _Target:
    """Which memory a command is about."""

    db: str | None
    namespace: str
    timeout: float
    by_option: bool  # `--db` was given; RAEBURN_DB does not count

    @property
    def path(self) -> str:
        return _HOME if self.db is None else self.db

    def open(self, *, read_only: bool = False, **options: Any) -> MemoryGraph:
        """Open the memory, creating it unless *read_only*."""
        from .memory_graph import MemoryGraph

        if self.path == ":memory:":
            raise InvalidInput("':memory:' would be gone when this command ends. Name a file: --db memory.db")
        options |= {"namespace": self.namespace, "timeout": self.timeout}
        try:
            return MemoryGraph(self.path, read_only=read_only, **options)
        except ReadOnly:  # a file of an older version, to be brought up to date before anything can be read
            return MemoryGraph(self.path, **options)

    def exists(self) -> bool:
        from .store import store_exists

        return store_exists(self.path)


def _existing(ctx: typer.Context, *, read_only: bool) -> MemoryGraph:
    """Open a memory that must be there: a mistyped path is an error, not a new memory."""
    target: _Target = ctx.obj
    is_file = target.path not in {"", ":memory:"} and "://" not in target.path  # of others, opening says what is wrong
    if is_file and not target.exists():
        raise StoreMissing(
            errno.ENOENT,
            f"There is no memory at {target.path!r}. Check the path, or make one with: "
            f"{_command(target.path)} add --prompt-text 'Hello'",
        )
    return target.open(read_only=read_only)


def _command(path: str) -> str:
    """Return how to call this program on the memory at *path*, for somebody to paste."""
    return f"raeburnmemory --db {shlex.quote(path)}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"raeburnmemory {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    db: Annotated[
        str | None,
        _option("The file that holds the memory.", envvar="RAEBURN_DB", metavar="PATH", show_default=_HOME),
    ] = None,
    namespace: Annotated[str, _option("Read and write only this part of it.", metavar="NAME")] = "default",
    timeout: Annotated[float, _option("How long to wait for other writers.", metavar="SECONDS", min=0)] = 30.0,
    _version: Annotated[
        bool, _option("Print the version.", "--version", callback=_print_version, is_eager=True)
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
    ctx.obj = _Target(db, namespace, timeout, by_option=source is not None and source.name == "COMMANDLINE")


# --- writing ----------------------------------------------------------------------------------------------------


@app.command()
def add(
    ctx: typer.Context,
    prompt_text: Annotated[str, _option("What was asked or said.")],
    prompt_id: Annotated[str | None, _option("Its id; made if left out.")] = None,
    response_text: Annotated[str | None, _option("What was answered.")] = None,
    response_id: Annotated[str | None, _option("Its id; made if left out.")] = None,
    agent_id: Annotated[str | None, _option("Who answered.")] = None,
    agent_name: Annotated[str | None, _option("The name of who answered.")] = None,
    session_id: Annotated[str | None, _option("The conversation it belongs to.")] = None,
    timestamp: Annotated[str | None, _option("When, in ISO 8601; now if left out.", metavar="TIME")] = None,
    metadata: Annotated[str | None, _option("A JSON object to keep with it.", metavar="JSON")] = None,
    model: Annotated[str | None, _option("The embedding model, for a new memory.")] = None,
    as_json: _Json = False,
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
    target: _Target = ctx.obj
    interaction(**given, namespace=target.namespace)  # for its errors, before there is a file
    named: dict[str, Any] = {} if model is None else {"embedding_model": model}
    with target.open(**named) as memory:
        recorded = memory.add_interaction(**given)
    ids = {part: node_id for part, node_id in asdict(recorded).items() if node_id is not None}
    if as_json:
        print_json(ids)
    else:
        print_text(f"Recorded {', '.join(f'{part} {node_id}' for part, node_id in ids.items())} in {memory.db_path}")


@app.command()
def fact(
    ctx: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Whom or what it is about.")],
    predicate: Annotated[str, typer.Argument(metavar="PREDICATE", help="What is said, such as lives_in.")],
    thing: Annotated[str, typer.Argument(metavar="OBJECT", help="The value.")],
    valid_from: Annotated[
        str | None, _option("Since when it holds, in ISO 8601; now if left out.", "--from", metavar="TIME")
    ] = None,
    valid_to: Annotated[str | None, _option("When it ends, in ISO 8601.", "--to", metavar="TIME")] = None,
    source: Annotated[
        list[str] | None, _option("A node it was taken from; may be repeated.", "--source", metavar="ID")
    ] = None,
    fact_id: Annotated[str | None, _option("Its id; made if left out.", "--id", metavar="ID")] = None,
    single_valued: Annotated[
        bool, _option("Let a subject have one value of this predicate at a time, from now on.", "--single-valued")
    ] = False,
    model: Annotated[str | None, _option("The embedding model, for a new memory.")] = None,
    as_json: _Json = False,
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
    target: _Target = ctx.obj
    # For its errors, before there is a file.
    said((subject, predicate, thing), namespace=target.namespace, fact_id=fact_id, **given)
    named: dict[str, Any] = {} if model is None else {"embedding_model": model}
    with _existing(ctx, read_only=False) if source else target.open(**named) as memory:
        node = memory.fact(subject, predicate, thing, id=fact_id, **given)
        if single_valued:
            memory.single_valued(predicate)
            node = memory.get(node.id)
    if as_json:
        print_json(node.to_dict())
    else:
        print_text(f"Recorded fact {node.id} in {memory.db_path}: {node.text}")


@app.command()
def forget(
    ctx: typer.Context,
    ids: Annotated[list[str] | None, _option("A node; may be repeated.", "--id", metavar="ID")] = None,
    session: Annotated[str | None, _option("The prompts of a session and their responses.")] = None,
    agent: Annotated[str | None, _option("The responses of an agent, and the prompts that only it answered.")] = None,
    before: Annotated[str | None, _option("What is older than this, in ISO 8601.", metavar="TIME")] = None,
    where: Annotated[
        list[str] | None, _option("What has this attribute; may be repeated.", metavar="KEY=VALUE")
    ] = None,
    secure: Annotated[
        bool, _option("Leave nothing of it, nor of what was derived from it, in any file.", "--secure")
    ] = False,
    backups: Annotated[bool, _option("With --secure: delete copies that cannot be read.", "--backups")] = False,
    yes: Annotated[bool, _option("Do not ask.", "--yes", "-y")] = False,
    as_json: _Json = False,
) -> None:
    """Remove nodes with their texts, vectors and edges.

    With several conditions, only what meets all of them goes. A value after --where is JSON, or else text. On a
    terminal it asks first. With --secure every file is written anew, so that nothing of it is left in one.

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
    with _existing(ctx, read_only=False) as memory:
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


@app.command()
def reindex(ctx: typer.Context, as_json: _Json = False) -> None:
    """Make the vectors that are missing, in all namespaces, and build the index anew.

    [bold]Example[/bold]

      raeburnmemory --db graph.json reindex
    """
    with _existing(ctx, read_only=False) as memory, progress_bar("Embedding") as progress:
        report = memory.reindex(progress)
    print_reindexed(report, as_json=as_json)


@app.command()
def reembed(
    ctx: typer.Context,
    model: Annotated[str, _option("The model to move to: a name, a folder, openai:URL, or builtin.")],
    as_json: _Json = False,
) -> None:
    """Move the whole memory, all namespaces, to another embedding model.

    Searches go on with the old vectors until all new ones are there. Interrupted, it goes on where it was.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json reembed --model all-MiniLM-L6-v2
      raeburnmemory --db graph.json reembed --model builtin
    """
    with _existing(ctx, read_only=False) as memory, progress_bar("Embedding") as progress:
        report = memory.reembed(model, progress)
    print_reindexed(report, as_json=as_json)


# --- reading ----------------------------------------------------------------------------------------------------


@app.command()
def recall(
    ctx: typer.Context,
    question: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    top_k: Annotated[int, _option("How many to show at most.", "--top-k", "-k", min=0)] = 10,
    kind: Annotated[list[str] | None, _option("Only nodes of this kind; may be repeated.")] = None,
    session: Annotated[list[str] | None, _option("Only what was said in this session; may be repeated.")] = None,
    agent: Annotated[list[str] | None, _option("Only what this agent said or was asked; may be repeated.")] = None,
    speaker: Annotated[list[str] | None, _option("Only what this one said; may be repeated.")] = None,
    since: Annotated[str | None, _option("Only from this time on.", metavar="TIME")] = None,
    until: Annotated[str | None, _option("Only before this time.", metavar="TIME")] = None,
    where: Annotated[
        list[str] | None, _option("Only with this attribute; may be repeated.", metavar="KEY=VALUE")
    ] = None,
    leg: Annotated[list[str] | None, _option("Search with this leg only; may be repeated.")] = None,
    min_similarity: Annotated[float | None, _option("Leave out hits below this cosine similarity.")] = None,
    min_coverage: Annotated[float | None, _option("Leave out hits with less of the question's words.")] = None,
    recency: Annotated[float, _option("The share of newness in the score, from 0 to 1.")] = 0.0,
    diversity: Annotated[float, _option("How much hits should differ, from 0 to 1.")] = 0.0,
    fold: Annotated[bool, _option("Join near-copies.", "--fold")] = False,
    explain: Annotated[bool, _option("Show what each leg gave.", "--explain")] = False,
    as_json: _Json = False,
) -> None:
    """Find what matters for a question: by meaning, words, what stands around it, and time.

    Prints rank, score, id and the beginning of the text. A value after --where is JSON, or else text; operators such
    as gte, in and contains go into an object.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db recall "What must Ana avoid?"
      raeburnmemory recall "What did we choose last week?" --speaker Ana --explain
      raeburnmemory recall refunds --where 'stars={"gte": 4}' --since 2026-01-01
    """
    with _existing(ctx, read_only=True) as memory:
        hits = memory.recall(
            question,
            top_k,
            kinds=kind,
            session=session,
            agent=agent,
            speaker=speaker,
            since=None if since is None else time_or_seconds(since),
            until=None if until is None else time_or_seconds(until),
            where=attributes(where) if where else None,
            legs=leg,
            min_similarity=min_similarity,
            min_coverage=min_coverage,
            recency=recency,
            diversity=diversity,
            fold=fold,
        )
    for name, reason in hits.skipped.items():
        tell("Warning", f"The {name} search did not run: {reason}.")
    if as_json:
        print_json({"hits": [hit.to_dict() for hit in hits], "legs": list(hits.legs), "skipped": hits.skipped})
    elif explain:
        print_text(hits.explain())
    elif not hits:
        tell("Note", f"Nothing in {memory.db_path!r} fits.")
    else:
        print_hits(hits)


@app.command()
def similar(
    ctx: typer.Context,
    text: Annotated[str, _option("What to look for.")],
    top_k: Annotated[int, _option("How many to show at most.", "--top-k", "-k", min=0)] = 5,
    as_json: _Json = False,
) -> None:
    """Find the prompts nearest in meaning to a text.

    Prints rank, score (cosine similarity: 1 is the same direction), id and the beginning of the text.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json similar --text "Hello"
      raeburnmemory similar --text "password reset" -k 10 --json
    """
    with _existing(ctx, read_only=True) as memory:
        hits = memory.similar(text, top_k)
    for leg, reason in hits.skipped.items():
        tell("Warning", f"The {leg} search did not run: {reason}.")
    if as_json:
        print_json({"hits": [hit.to_dict() for hit in hits], "skipped": hits.skipped})
    elif not hits and not hits.skipped and top_k:
        tell("Note", f"There are no prompts in {memory.db_path!r} yet.")
    else:
        print_hits(hits)


@app.command()
def context(
    ctx: typer.Context,
    question: Annotated[str, typer.Argument(help="What the text should be about.", show_default=False)],
    budget: Annotated[int, _option("How many tokens it may have, as estimated.", min=0)] = 1000,
    top_k: Annotated[int, _option("How many hits to take it from.", "--top-k", "-k", min=0)] = 20,
    neighbours: Annotated[int, _option("How many turns on each side of a hit may come along.", min=0)] = 1,
    order: Annotated[str, _option("conversation, or score: the best first.")] = "conversation",
    session: Annotated[list[str] | None, _option("Only what was said in this session; may be repeated.")] = None,
    agent: Annotated[list[str] | None, _option("Only what this agent said or was asked; may be repeated.")] = None,
    speaker: Annotated[list[str] | None, _option("Only what this one said; may be repeated.")] = None,
    since: Annotated[str | None, _option("Only from this time on.", metavar="TIME")] = None,
    until: Annotated[str | None, _option("Only before this time.", metavar="TIME")] = None,
    where: Annotated[
        list[str] | None, _option("Only with this attribute; may be repeated.", metavar="KEY=VALUE")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Print what matters for a question as cited text for a prompt, within a number of tokens.

    Tokens are estimated. Hits that did not fit are counted on stderr, and listed with --json.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db context "What must Ana avoid?" --budget 500
      raeburnmemory context "refunds" --session s1 --order score --json
    """
    with _existing(ctx, read_only=True) as memory:
        found = memory.context(
            question,
            budget,
            k=top_k,
            neighbours=neighbours,
            order=order,
            session=session,
            agent=agent,
            speaker=speaker,
            since=None if since is None else time_or_seconds(since),
            until=None if until is None else time_or_seconds(until),
            where=attributes(where) if where else None,
        )
    for name, reason in found.skipped.items():
        tell("Warning", f"The {name} search did not run: {reason}.")
    if as_json:
        print_json(found.to_dict())
        return
    if found:
        print_text(found.text)
    no_room = sum(left.reason == "budget" for left in found.left_out)
    if no_room:
        tell("Note", f"{no_room} of the hits did not fit into {budget} tokens.")
    elif not found:
        tell("Note", f"Nothing in {memory.db_path!r} fits.")


@app.command()
def get(
    ctx: typer.Context,
    node_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the node.")],
    as_json: _Json = False,
) -> None:
    """Show one node: its type, text and attributes.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json get p1
      raeburnmemory get p1 --json
    """
    with _existing(ctx, read_only=True) as memory:
        node = memory.get(node_id)
    (print_json if as_json else print_fields)(node.to_dict())


@app.command()
def thread(
    ctx: typer.Context,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The id of the session.")],
    as_json: _Json = False,
) -> None:
    """Show what was said in a session, in order.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json thread s1
      raeburnmemory thread s1 --json
    """
    with _existing(ctx, read_only=True) as memory:
        said = memory.thread(session)
    if as_json:
        print_json([node.to_dict() for node in said])
    else:
        print_said(said)


@app.command()
def facts(
    ctx: typer.Context,
    subject: Annotated[str | None, _option("Only those about this.")] = None,
    predicate: Annotated[str | None, _option("Only those that say this.")] = None,
    thing: Annotated[str | None, _option("Only those with this value.", "--object")] = None,
    as_of: Annotated[str | None, _option("What held then, in ISO 8601; now if left out.", metavar="TIME")] = None,
    everything: Annotated[bool, _option("Those that ended by then, too.", "--all")] = False,
    as_json: _Json = False,
) -> None:
    """List the facts that hold: since when, until when, id and fact.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json facts
      raeburnmemory facts --subject Ana --as-of 2025-01-01
      raeburnmemory facts --predicate lives_in --all --json
    """
    at = None if as_of is None else time_or_seconds(as_of)
    with _existing(ctx, read_only=True) as memory:
        found = memory.facts(subject, predicate, thing, as_of=at, include_superseded=everything)
    if as_json:
        print_json([node.to_dict() for node in found])
    elif not found:
        tell("Note", f"No fact in {memory.db_path!r} fits.")
    else:
        print_facts(found)


@app.command()
def why(
    ctx: typer.Context,
    node_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a fact or another node.")],
    as_json: _Json = False,
) -> None:
    """Explain a node: who said it, when, in which session, what it was derived from, what superseded it.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json why r1
      raeburnmemory why r1 --json
    """
    with _existing(ctx, read_only=True) as memory:
        found = memory.why(node_id)
    if as_json:
        print_json(found.to_dict())
    else:
        print_text(str(found))


@app.command()
def evaluate(
    ctx: typer.Context,
    questions: Annotated[str, typer.Argument(metavar="QUESTIONS", help="A file of questions, in JSON.")],
    top_k: Annotated[int, _option("How many hits count as the answer.", "--top-k", "-k", min=1)] = 10,
    as_json: _Json = False,
) -> None:
    """Measure what is found of what a file of questions expects.

    The file is a JSON list of objects, or has one per line, each with "question", "expected" (ids), and perhaps
    "class" and options of recall, such as "session". Prints a table, and the questions that failed.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json evaluate questions.json
      raeburnmemory evaluate questions.jsonl -k 5 --json
    """
    from .evaluate import read_questions

    with _existing(ctx, read_only=True) as memory:
        found = memory.evaluate(read_questions(os.path.expanduser(questions)), top_k)
    if as_json:
        print_json(found.to_dict())
    else:
        print_text(str(found))


@app.command()
def stats(ctx: typer.Context, as_json: _Json = False) -> None:
    """Show what the memory holds: counts, model, size.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json stats
      raeburnmemory --db graph.json --namespace ana stats --json
    """
    with _existing(ctx, read_only=True) as memory:
        found = memory.stats()
    (print_json if as_json else print_fields)(found.to_dict())


@app.command()
def export(
    ctx: typer.Context,
    output: Annotated[str | None, _option("Write to this file.", "--output", "-o", metavar="FILE")] = None,
    all_namespaces: Annotated[bool, _option("The other namespaces too.", "--all-namespaces")] = False,
    as_json: _Json = False,
) -> None:
    """Write the graph as node-link JSON.

    Without --output a JSON memory brings its own file up to date, and a SQLite memory writes one with .json added to
    its name; --json prints it instead. The file can be opened as a memory; it holds no vectors, reindex makes them.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json export --output export.json
      raeburnmemory --db graph.json export --json
    """
    with _existing(ctx, read_only=output is not None or as_json) as memory:
        path: str | bool | None = False if as_json else None
        if output is not None:
            path = os.path.realpath(os.path.expanduser(output))
            if path == memory.db_path:
                raise InvalidInput(f"{output!r} is the memory itself. Leave --output out, or name another file.")
        data = memory.export(path, all_namespaces=all_namespaces)
        beside = ".json" if memory.storage_backend == "sqlite" else ""
    if as_json:
        print_json(data)
    else:
        print_text(f"Exported {memory.db_path} to {path or memory.db_path + beside}")


# --- showing itself ---------------------------------------------------------------------------------------------


@app.command()
def demo(
    ctx: typer.Context,
    model: Annotated[str | None, _option("The embedding model; if left out, builtin.")] = None,
    as_json: _Json = False,
) -> None:
    """Record Python's own help topics, ask three questions, and show what is found.

    The memory is left where --db says, or else in a new temporary folder; RAEBURN_DB is left alone. It takes seconds
    and needs no network.

    [bold]Examples[/bold]

      raeburnmemory demo
      raeburnmemory --db demo.json demo --json
    """
    from .demo import demonstrate

    target: _Target = ctx.obj
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
    command = _command(done.path)
    print_text(
        f"\nThe memory is in {done.path}\nTry next:\n"
        f'  {command} similar --text "checking my assumptions while debugging"\n  {command} stats'
    )


def _offline_model(target: _Target) -> dict[str, Any]:
    """Choose the model that needs no network, but for a memory that has vectors, which keeps to its own."""
    if target.exists():
        with target.open(read_only=True) as memory:
            if memory.stats().embedder is not None:
                return {}
    return {"embedding_model": "builtin"}


if __name__ == "__main__":
    app(prog_name="raeburnmemory")
