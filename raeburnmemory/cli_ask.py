"""The command that answers a question from a memory, by a model, with citations."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import typer

from ._target import Json, existing, option
from ._terminal import clean, one_line, print_json, print_text, tell
from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .hub.asking import Answer, Citation

__all__ = ["register"]

_QUOTE = 100  # characters of a quote that are shown


def ask(
    ctx: typer.Context,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to answer.")],
    model: Annotated[
        str | None,
        option("Who answers: a local model, a GGUF file, or openai:URL#MODEL; if left out, the only local chat model."),
    ] = None,
    session: Annotated[str | None, option("The conversation that it goes on with, and is recorded in.")] = None,
    top_k: Annotated[int, option("How many texts to look at.", "--top-k", "-k", min=1)] = 8,
    kind: Annotated[list[str] | None, option("Look only at nodes of this kind; may be repeated.")] = None,
    collection: Annotated[list[str] | None, option("Look only at this collection; may be repeated.")] = None,
    min_similarity: Annotated[
        float | None, option("From which cosine similarity on a text supports an answer.")
    ] = None,
    min_coverage: Annotated[
        float | None, option("From which share of the question's words on a text supports an answer.")
    ] = None,
    max_tokens: Annotated[int, option("How long the answer may be.", min=1, metavar="TOKENS")] = 512,
    context: Annotated[
        int | None, option("The model's context, where it does not tell.", min=1, metavar="TOKENS")
    ] = None,
    no_record: Annotated[bool, option("Do not record the question and the answer.", "--no-record")] = False,
    as_json: Json = False,
) -> None:
    """Answer a question from what the memory holds, and say where that stands.

    What supports no answer gets none: it says what was looked at, and asks no model. A local model is started if it
    does not run, and ends with the command. The key for a server is OPENAI_API_KEY.

    [bold]Examples[/bold]

      raeburnmemory --db memory.db ask "What must Ana avoid?" --model tiny-chat
      raeburnmemory ask "Since when?" --session s1 --model openai:http://[::1]/v1
    """
    options: dict[str, Any] = {"session_id": session, "k": top_k, "max_tokens": max_tokens, "context": context}
    options |= {"min_similarity": min_similarity, "min_coverage": min_coverage, "record": not no_record}
    if kind:
        options["kinds"] = kind
    if collection:
        options["collection"] = collection
    from .hub.asking import ask as asked

    with existing(ctx, read_only=no_record) as memory, _client(model) as client:
        if as_json:
            print_json(asked(memory, question, client, **options).to_dict())
            return
        with asked(memory, question, client, stream=True, **options) as stream:
            if stream.query != question:
                tell("Note", f"Looked for: {stream.query}")
            for piece in stream:
                _print_piece(piece)
            answer = stream.answer
    print_text("")
    _print_citations(answer)


@contextlib.contextmanager
def _client(model: str | None) -> Iterator[Any]:
    """Give the model that was named, or the only one that there is."""
    if model is not None and (model.startswith("openai:") or model.lower().endswith(".gguf")):
        from .hub.models.open_client import open_client

        client = open_client(model)
        with contextlib.closing(client):
            yield client
        return
    from .hub import LlamafileManager

    with LlamafileManager() as manager:
        if model is None:
            known = [spec.name for spec in manager.list() if spec.kind == "chat"]
            if len(known) != 1:
                there = f"There are {len(known)}: {', '.join(known)}." if known else "There is none in the folder."
                raise InvalidInput(
                    f"Name a model with --model: a local one, or openai:URL. {there} See: raeburnmemory models list"
                )
            model = known[0]
        with manager.client(model) as local:
            yield local


def _print_piece(piece: str) -> None:
    if sys.stdout is not None:
        sys.stdout.write(clean(piece))
        sys.stdout.flush()


def _print_citations(answer: Answer) -> None:
    by_number: dict[int, list[Citation]] = {}
    for citation in answer.citations:
        by_number.setdefault(citation.number, []).append(citation)
    if by_number:
        print_text("")
    for number, some in sorted(by_number.items()):
        for citation in some:
            quote = one_line(citation.quote)
            quote = f"{quote[: _QUOTE - 1]}…" if len(quote) > _QUOTE else quote
            print_text(f"[{number}] {one_line(_where(citation))}" + (f"  {quote}" if quote else "  (not verified)"))
    for problem in answer.problems:
        tell("Warning", problem)


def _where(citation: Citation) -> str:
    """Return where a citation stands, as editors and terminals open it: a path from here, and the line."""
    parts = urlsplit(citation.uri or "")
    if parts.scheme != "file":
        return str(citation)
    path = url2pathname(parts.path)
    near = os.path.relpath(path)
    path = near if len(near) < len(path) else path
    if citation.lines is not None:
        return f"{path}:{citation.lines[0]}"
    return f"{path} p. {citation.pages[0]}" if citation.pages is not None else path


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to *app*, under a heading of its help."""
    app.command(rich_help_panel=panel)(ask)
