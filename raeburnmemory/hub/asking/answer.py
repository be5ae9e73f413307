"""What somebody who asks gets: an answer, whole or piece by piece, with its citations."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...nodes import Recorded
from .citing import Citation
from .sources import Source

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Answer", "AnswerStream"]


@dataclass(frozen=True)
class Answer:
    """An answer to a question. `str(answer)` is its text.

    `query` is what was searched for, and `query_from` who made that: the `"question"`, the `"model"` or the
    `"history"`. `sources` are what the model saw, by their numbers; `looked_at` what was found before anything was
    left out. `citations` are the places that statements rest on. `refused` says that there is no answer, and `reason`
    why: `"nothing supports it"` without asking the model, `"the model"` when it said so itself. `invented` are numbers
    of sources that the model made up, `problems` sentences about that and about citations that do not hold. `tokens`
    are those of prompt and answer, as far as anybody counted; `estimated` says that the prompt was not counted by the
    model's tokenizer. `recorded` are the ids under which the exchange was recorded.
    """

    question: str
    text: str
    query: str
    query_from: str = "question"
    citations: tuple[Citation, ...] = ()
    sources: tuple[Source, ...] = ()
    looked_at: tuple[Source, ...] = ()
    refused: bool = False
    reason: str | None = None
    invented: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    tokens: Mapping[str, int | None] = field(default_factory=dict)
    estimated: bool = False
    finish_reason: str | None = None
    model: str | None = None
    recorded: Recorded | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else f"{self.text[:59]}…"
        return f"<Answer: {text!r}, {len(self.citations)} citations{', refused' if self.refused else ''}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        recorded = self.recorded
        return {
            "question": self.question,
            "text": self.text,
            "query": self.query,
            "query_from": self.query_from,
            "citations": [citation.to_dict() for citation in self.citations],
            "sources": [source.to_dict() for source in self.sources],
            "looked_at": [source.to_dict() for source in self.looked_at],
            "refused": self.refused,
            "reason": self.reason,
            "invented": list(self.invented),
            "problems": list(self.problems),
            "tokens": dict(self.tokens),
            "estimated": self.estimated,
            "finish_reason": self.finish_reason,
            "model": self.model,
            "recorded": None if recorded is None else {"prompt": recorded.prompt, "response": recorded.response},
            "skipped": dict(self.skipped),
        }


class AnswerStream(Iterator[str]):
    """An answer piece by piece as it comes. What is searched for and found is known before the first piece.

    `answer` is there once the stream has come to its end. Leaving it before, with `close`, a `with` block or a loop
    that breaks off, stops the model; what it had said by then is recorded as `cancelled`.
    """

    def __init__(
        self,
        pieces: Generator[str, None, None],
        done: list[Answer],
        query: str,
        sources: tuple[Source, ...],
        held: ExitStack,
        stop: Callable[[], object],
    ) -> None:
        self._pieces, self._done, self._held, self._stop = pieces, done, held, stop
        self.query, self.sources = query, sources
        self.stopped = False

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def answer(self) -> Answer:
        """The whole answer; what was not read of the stream yet is read now."""
        for _ in self._pieces:
            pass
        if not self._done:
            raise RuntimeError("The stream was left before its end, so that there is no answer.")
        return self._done[0]

    def afterwards(self, function: Callable[[], object]) -> None:
        """Call *function* once the stream has ended or was left, and what was said is recorded."""
        self._held.callback(function)

    def stop(self) -> None:
        """Stop the model from another thread than the one that reads, which need not wait for the next word.

        The stream ends, and has no `answer`; what was said by then is recorded as `cancelled`.
        """
        self.stopped = True
        self._stop()

    def close(self) -> None:
        """Stop the model, if it still speaks."""
        self._pieces.close()
        self._held.__exit__(None, None, None)  # of a stream that nobody began to read

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
