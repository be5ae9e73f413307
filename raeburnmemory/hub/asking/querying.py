"""What to search for: a question that leans on what was said before it, made one that stands by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...errors import NodeNotFound
from ...nodes import PROMPT, RESPONSE
from .quoting import cleaned

if TYPE_CHECKING:
    from ...index._words import Words
    from ...memory_graph import MemoryGraph
    from ..models.interface import ChatClient

__all__ = ["Query", "Turn", "earlier", "synthesised"]

_TURNS = 6  # of what was said before
_LONGEST = 400  # characters of one of them, and of a query
_FEW = 3  # words that mean something: a question with fewer leans on what came before
_RULES = (
    "Rewrite the last question of the conversation so that it can be understood by itself: put names in the place of "
    "words such as it, she or there. Keep its language. Do not answer it. Write only the question."
)
_LEANING = re.compile(
    r"\b(it|its|he|she|him|her|his|hers|they|them|their|this|that|these|those|there|then|one|ones|same|also|else|why"
    r"|instead)\b|^\s*(and|but|or|so|what about|how about)\b",
    re.IGNORECASE,
)


class Turn(NamedTuple):
    """Something that was said before: `role` is `"user"` or `"assistant"`."""

    role: str
    text: str


class Query(NamedTuple):
    """What is searched for, and who made it: the `"question"` itself, the `"model"`, or the `"history"`."""

    text: str
    source: str


def earlier(memory: MemoryGraph, session_id: str | None) -> list[Turn]:
    """Return the last turns of a session, the oldest first; nothing for one that there is not yet."""
    if session_id is None:
        return []
    try:
        nodes = memory.thread(session_id)
    except NodeNotFound:
        return []
    roles = {PROMPT: "user", RESPONSE: "assistant"}
    return [Turn(roles[node.kind], node.text) for node in nodes if node.kind in roles and node.text][-_TURNS:]


def synthesised(question: str, history: Sequence[Turn], client: ChatClient, words: Words, **params: object) -> Query:
    """Return what to search for.

    Without a history that is the question. With one, the model is asked to make it a question that stands by itself;
    what it answers is taken if it speaks of what the conversation speaks of. Else a question that leans on what was
    said before is put behind the question before it, and any other is taken as it is.
    """
    asked = [turn for turn in history if turn.role == "user"]
    if not asked:
        return Query(question, "question")
    reply = client.chat(_messages(question, history), **params)
    rewritten = _sensible(reply.text, question, history, words)
    if rewritten is not None:
        same = rewritten.casefold() == question.strip().casefold()
        return Query(question, "question") if same else Query(rewritten, "model")
    if _LEANING.search(question) or len(words.of(question)) < _FEW:
        return Query(f"{asked[-1].text[:_LONGEST]} {question}", "history")
    return Query(question, "question")


def _messages(question: str, history: Sequence[Turn]) -> list[dict[str, str]]:
    said = "\n".join(f"{turn.role}: {' '.join(cleaned(turn.text).text.split())[:_LONGEST]}" for turn in history)
    asked = (
        f"The conversation so far:\n{said}\n\nThe last question: {cleaned(question).text}\n\nThe question by itself:"
    )
    # One message: there are models whose template knows no role `system`.
    return [{"role": "user", "content": f"{_RULES}\n\n{asked}"}]


def _sensible(answer: str, question: str, history: Sequence[Turn], words: Words) -> str | None:
    """Return the question that a model wrote, None if it is no such thing.

    It must be of one line, not much longer than what it is made of, keep a word of the question (if that has any that
    mean something) and have at least half of its words from the conversation.
    """
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if not lines:
        return None
    line = re.sub(r"^(the )?(question|rewritten question|query)( by itself)?\s*:\s*", "", lines[0], flags=re.IGNORECASE)
    line = line.strip("\"'\u201c\u201d\u201e `*")
    made, own = words.of(line), set(words.of(_LEANING.sub(" ", question)))
    if not made or len(line) > max(_LONGEST, 2 * len(question)):
        return None
    known = {*words.of(question)} | {word for turn in history for word in words.of(turn.text)}
    if own and not own & set(made):
        return None
    return line if 2 * sum(word in known for word in made) >= len(made) else None
