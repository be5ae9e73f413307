"""The commands that read: they find, show and measure, and change nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ._target import Json, existing, option
from ._terminal import (
    attributes,
    print_facts,
    print_fields,
    print_hits,
    print_json,
    print_said,
    print_text,
    tell,
    time_or_seconds,
)
from .nodes import PROMPT

__all__ = ["register"]

# What several commands take.
NodeId = Annotated[str, typer.Argument(metavar="ID", help="The id of a node.")]
Sessions = Annotated[list[str] | None, option("Only what was said in this session; may be repeated.")]
Agents = Annotated[list[str] | None, option("Only what this agent said or was asked; may be repeated.")]
Speakers = Annotated[list[str] | None, option("Only what this one said; may be repeated.")]
Since = Annotated[str | None, option("Only from this time on.", metavar="TIME")]
Until = Annotated[str | None, option("Only before this time.", metavar="TIME")]
Attributes = Annotated[list[str] | None, option("Only with this attribute; may be repeated.", metavar="KEY=VALUE")]
Questions = Annotated[str, typer.Argument(metavar="QUESTIONS", help="A file of questions, in JSON.")]


def _filters(
    session: list[str] | None,
    agent: list[str] | None,
    speaker: list[str] | None,
    since: str | None,
    until: str | None,
    where: list[str] | None,
) -> dict[str, Any]:
    return {
        "session": session,
        "agent": agent,
        "speaker": speaker,
        "since": None if since is None else time_or_seconds(since),
        "until": None if until is None else time_or_seconds(until),
        "where": attributes(where) if where else None,
    }


def _warn(skipped: Mapping[str, str]) -> None:
    for leg, reason in skipped.items():
        tell("Warning", f"The {leg} search did not run: {reason}.")


def _print(found: Any, *, as_json: bool) -> None:
    """Print what can be shown as JSON and as text."""
    if as_json:
        print_json(found.to_dict())
    else:
        print_text(str(found))


def recall(
    ctx: typer.Context,
    question: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    top_k: Annotated[int, option("How many to show at most.", "--top-k", "-k", min=0)] = 10,
    kind: Annotated[list[str] | None, option("Only nodes of this kind; may be repeated.")] = None,
    session: Sessions = None,
    agent: Agents = None,
    speaker: Speakers = None,
    since: Since = None,
    until: Until = None,
    where: Attributes = None,
    leg: Annotated[list[str] | None, option("Search with this leg only; may be repeated.")] = None,
    min_similarity: Annotated[float | None, option("Leave out hits below this cosine similarity.")] = None,
    min_coverage: Annotated[float | None, option("Leave out hits with less of the question's words.")] = None,
    recency: Annotated[float, option("The share of newness in the score, from 0 to 1.")] = 0.0,
    diversity: Annotated[float, option("How much hits should differ, from 0 to 1.")] = 0.0,
    fold: Annotated[bool, option("Join near-copies.", "--fold")] = False,
    explain: Annotated[bool, option("Show what each leg gave.", "--explain")] = False,
    as_json: Json = False,
) -> None:
    """Find what matters for a question: by meaning, words, what stands around it, and time.

    Prints rank, score, id and the beginning of the text. A value after --where is JSON, or else text; operators such
    as gte, in and contains go into an object.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db recall "What must Ana avoid?"
      raeburnmemory recall "What did we choose last week?" --speaker Ana --explain
      raeburnmemory recall refunds --where 'stars={"gte": 4}' --since 2026-01-01
    """
    with existing(ctx, read_only=True) as memory:
        hits = memory.recall(
            question,
            top_k,
            kinds=kind,
            **_filters(session, agent, speaker, since, until, where),
            legs=leg,
            min_similarity=min_similarity,
            min_coverage=min_coverage,
            recency=recency,
            diversity=diversity,
            fold=fold,
        )
    _warn(hits.skipped)
    if as_json:
        print_json({"hits": [hit.to_dict() for hit in hits], "legs": list(hits.legs), "skipped": hits.skipped})
    elif explain:
        print_text(hits.explain())
    elif not hits:
        tell("Note", f"Nothing in {memory.db_path!r} fits.")
    else:
        print_hits(hits)


def similar(
    ctx: typer.Context,
    text: Annotated[str, option("What to look for.")],
    top_k: Annotated[int, option("How many to show at most.", "--top-k", "-k", min=0)] = 5,
    kind: Annotated[list[str] | None, option("Texts of this kind instead of prompts; may be repeated.")] = None,
    session: Sessions = None,
    agent: Agents = None,
    speaker: Speakers = None,
    since: Since = None,
    until: Until = None,
    where: Attributes = None,
    as_json: Json = False,
) -> None:
    """Find the prompts nearest in meaning to a text.

    Prints rank, score (cosine similarity: 1 is the same direction), id and the beginning of the text.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json similar --text "Hello"
      raeburnmemory similar --text "password reset" -k 10 --json
      raeburnmemory similar --text "refunds" --kind response --since 2026-01-01
    """
    filters = _filters(session, agent, speaker, since, until, where)
    with existing(ctx, read_only=True) as memory:
        hits = memory.similar(text, top_k, kinds=kind or PROMPT, **filters)
    _warn(hits.skipped)
    if as_json:
        print_json({"hits": [hit.to_dict() for hit in hits], "skipped": hits.skipped})
    elif not hits and not hits.skipped and top_k:
        asked = kind or any(value is not None for value in filters.values())
        tell(
            "Note",
            f"Nothing in {memory.db_path!r} fits." if asked else f"There are no prompts in {memory.db_path!r} yet.",
        )
    else:
        print_hits(hits)


def matching(
    ctx: typer.Context,
    words: Annotated[str, typer.Argument(help="The words to look for.", show_default=False)],
    top_k: Annotated[int, option("How many to show at most.", "--top-k", "-k", min=0)] = 10,
    every: Annotated[bool, option("Only texts that hold all of the words.", "--every")] = False,
    kind: Annotated[list[str] | None, option("Only nodes of this kind; may be repeated.")] = None,
    session: Sessions = None,
    agent: Agents = None,
    speaker: Speakers = None,
    since: Since = None,
    until: Until = None,
    where: Attributes = None,
    as_json: Json = False,
) -> None:
    """Find the texts that hold some words, as they are written.

    Nothing but the words counts: no meaning, no related words. For names, numbers and messages of errors.
    Prints rank, score, id and the beginning of the text.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db matching "ECONNREFUSED 5432"
      raeburnmemory matching "Ana allergy" --every --json
    """
    with existing(ctx, read_only=True) as memory:
        hits = memory.matching(
            words, top_k, every=every, kinds=kind, **_filters(session, agent, speaker, since, until, where)
        )
    _warn(hits.skipped)
    if as_json:
        print_json({"hits": [hit.to_dict() for hit in hits], "skipped": hits.skipped})
    elif not hits and not hits.skipped and top_k:
        tell("Note", f"Nothing in {memory.db_path!r} fits.")
    else:
        print_hits(hits)


def context(
    ctx: typer.Context,
    question: Annotated[str, typer.Argument(help="What the text should be about.", show_default=False)],
    budget: Annotated[int, option("How many tokens it may have, as estimated.", min=0)] = 1000,
    top_k: Annotated[int, option("How many hits to take it from.", "--top-k", "-k", min=0)] = 20,
    neighbours: Annotated[int, option("How many turns on each side of a hit may come along.", min=0)] = 1,
    order: Annotated[str, option("conversation, or score: the best first.")] = "conversation",
    session: Sessions = None,
    agent: Agents = None,
    speaker: Speakers = None,
    since: Since = None,
    until: Until = None,
    where: Attributes = None,
    as_json: Json = False,
) -> None:
    """Print what matters for a question as cited text for a prompt, within a number of tokens.

    Tokens are estimated. Hits that did not fit are counted on stderr, and listed with --json.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db context "What must Ana avoid?" --budget 500
      raeburnmemory context "refunds" --session s1 --order score --json
    """
    with existing(ctx, read_only=True) as memory:
        found = memory.context(
            question,
            budget,
            k=top_k,
            neighbours=neighbours,
            order=order,
            **_filters(session, agent, speaker, since, until, where),
        )
    _warn(found.skipped)
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


def get(
    ctx: typer.Context,
    node_id: NodeId,
    as_json: Json = False,
) -> None:
    """Show one node: its type, text and attributes.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json get p1
      raeburnmemory get p1 --json
    """
    with existing(ctx, read_only=True) as memory:
        node = memory.get(node_id)
    (print_json if as_json else print_fields)(node.to_dict())


def thread(
    ctx: typer.Context,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The id of the session.")],
    as_json: Json = False,
) -> None:
    """Show what was said in a session, in order.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json thread s1
      raeburnmemory thread s1 --json
    """
    with existing(ctx, read_only=True) as memory:
        said = memory.thread(session)
    if as_json:
        print_json([node.to_dict() for node in said])
    else:
        print_said(said)


def facts(
    ctx: typer.Context,
    subject: Annotated[str | None, option("Only those about this.")] = None,
    predicate: Annotated[str | None, option("Only those that say this.")] = None,
    thing: Annotated[str | None, option("Only those with this value.", "--object")] = None,
    as_of: Annotated[str | None, option("What held then, in ISO 8601; now if left out.", metavar="TIME")] = None,
    everything: Annotated[bool, option("Those that ended by then, too.", "--all")] = False,
    as_json: Json = False,
) -> None:
    """List the facts that hold: since when, until when, id and fact.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json facts
      raeburnmemory facts --subject Ana --as-of 2025-01-01
      raeburnmemory facts --predicate lives_in --all --json
    """
    at = None if as_of is None else time_or_seconds(as_of)
    with existing(ctx, read_only=True) as memory:
        found = memory.facts(subject, predicate, thing, as_of=at, include_superseded=everything)
    if as_json:
        print_json([node.to_dict() for node in found])
    elif not found:
        tell("Note", f"No fact in {memory.db_path!r} fits.")
    else:
        print_facts(found)


def why(
    ctx: typer.Context,
    node_id: NodeId,
    as_json: Json = False,
) -> None:
    """Explain a node: who said it, when, in which session, what it was derived from, what superseded it.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json why r1
      raeburnmemory why r1 --json
    """
    with existing(ctx, read_only=True) as memory:
        found = memory.why(node_id)
    _print(found, as_json=as_json)


def trace(
    ctx: typer.Context,
    node_id: NodeId,
    depth: Annotated[int | None, option("How many steps to go back; all if left out.", min=0)] = None,
    as_json: Json = False,
) -> None:
    """Follow a node back to all that it comes from, and show it as a tree.

    From facts to their sources and the facts before and after them, from responses to their prompts and agents, from
    prompts to their sessions.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json trace r1
      raeburnmemory trace r1 --depth 1 --json
    """
    with existing(ctx, read_only=True) as memory:
        found = memory.trace(node_id, depth)
    if as_json:
        print_json(found.to_dicts())
    else:
        print_text(str(found))


def evaluate(
    ctx: typer.Context,
    questions: Questions,
    top_k: Annotated[int, option("How many hits count as the answer.", "--top-k", "-k", min=1)] = 10,
    as_json: Json = False,
) -> None:
    """Measure what is found of what a file of questions expects.

    The file is a JSON list of objects, or has one per line, each with "question", "expected" (ids), and perhaps
    "class" and options of recall, such as "session". Prints a table, and the questions that failed.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json evaluate questions.json
      raeburnmemory evaluate questions.jsonl -k 5 --json
    """
    from .evaluate import read_questions

    with existing(ctx, read_only=True) as memory:
        found = memory.evaluate(read_questions(os.path.expanduser(questions)), top_k)
    _print(found, as_json=as_json)


def tune(ctx: typer.Context, questions: Questions, as_json: Json = False) -> None:
    """Fit the weights of recall to a file of questions, and say whether that is better by more than chance.

    The file is as for evaluate. The memory is not changed: with --json the "weights" are printed too, for a program
    to set as memory.weights.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json tune questions.json
      raeburnmemory tune questions.jsonl --json
    """
    from .evaluate import read_questions

    with existing(ctx, read_only=True) as memory:
        found = memory.tune(read_questions(os.path.expanduser(questions)))
    _print(found, as_json=as_json)


def stats(ctx: typer.Context, as_json: Json = False) -> None:
    """Show what the memory holds: counts, model, size.

    [bold]Examples[/bold]

      raeburnmemory --db graph.json stats
      raeburnmemory --db graph.json --namespace ana stats --json
    """
    with existing(ctx, read_only=True) as memory:
        found = memory.stats()
    (print_json if as_json else print_fields)(found.to_dict())


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to *app*, under the heading *panel* of its help."""
    for command in (recall, similar, matching, context, get, thread, facts, why, trace, evaluate, tune, stats):
        app.command(rich_help_panel=panel)(command)
