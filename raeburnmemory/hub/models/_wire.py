"""What is asked of a model's server and what it answers; connections are made elsewhere.

The requests are OpenAI's (platform.openai.com/docs/api-reference), which llamafile, llama.cpp, Ollama and vLLM follow,
each with some liberty. `/tokenize`, `/apply-template` and `/props` are llama.cpp's own (tools/server/README.md there);
`/tokenize` is vLLM's as well, `/extras/tokenize` that of llama-cpp-python.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...embed.openai import SECRET, TOO_MUCH
from .errors import ClientError, ClientTimeout, ContextExceeded, NotRunning, WrongKind
from .interface import Reply, Said

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AGAIN",
    "MOST",
    "Call",
    "Deltas",
    "Endpoint",
    "Teller",
    "checked_rows",
    "context_of",
    "models_of",
    "reply_of",
    "rows_of",
    "tokens_of",
]

AGAIN = (429, 503)  # busy, or still loading: what another try may answer otherwise
MOST = 64 << 20  # bytes of an answer that is read at once; of a stream, of one of its lines
_CHAT_ONLY = re.compile(r"support embeddings|not.{0,20}embedding model|--embedding", re.IGNORECASE)
_NUMBERS = re.compile(r"\((\d+) tokens\)")
_EMBEDDING = 'Start an embedding model, with kind="embedding".'


class Endpoint(NamedTuple):
    """Where a server answers: what comes before `/chat/completions`, and the key that it wants."""

    base_url: str
    api_key: str | None = None


class Call(NamedTuple):
    """One request; a *native* one goes beside the API and not below it."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    native: bool = False

    def url(self, base_url: str) -> str:
        """Return where the request goes."""
        base_url = base_url.rstrip("/")
        return (base_url.removesuffix("/v1") if self.native else base_url) + self.path


# --- what is answered -------------------------------------------------------------------------------------------


def reply_of(answer: Any, teller: Teller) -> Reply:
    """Return what the answer to a chat, or to a completion, says."""
    choice = _first_choice(answer)
    message = choice.get("message") if choice is not None else None
    text = message.get("content") if isinstance(message, Mapping) else (choice or {}).get("text")
    if choice is None or not (text is None or isinstance(text, (str, list))):
        raise teller.nonsense(answer, "no 'choices' with a text")
    said = Said(finish_reason=choice.get("finish_reason"))
    _note(answer, said)
    said.parts.append(_text(text))
    return said.reply()


def _first_choice(answer: Any) -> Mapping[str, Any] | None:
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else None


def _text(content: Any) -> str:
    """Return the text of a message's content, of which some servers make a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _note(answer: Mapping[str, Any], said: Said) -> None:
    """Note what an answer tells about itself."""
    usage = answer.get("usage")
    if isinstance(usage, Mapping):
        for name in ("prompt_tokens", "completion_tokens"):
            if isinstance(usage.get(name), int):
                setattr(said, name, usage[name])
    if isinstance(answer.get("model"), str):
        said.model = answer["model"]


class Deltas:
    """Reads a stream of server-sent events (WHATWG HTML, 9.2) as it comes, and notes what it brought.

    Only CR, LF and both end a line there. `str.splitlines`, by which httpx cuts, ends one at U+2028 as well, which
    JSON may hold as it is.
    """

    def __init__(self, said: Said, teller: Teller) -> None:
        self._said, self._teller = said, teller
        self._rest = bytearray()
        self._done = False

    def feed(self, piece: bytes) -> Iterator[str]:
        """Yield the texts that *piece* completes."""
        *lines, rest = piece.split(b"\n")
        for line in lines:
            yield from self._line(bytes(self._rest + line).rstrip(b"\r"))
            self._rest.clear()
        self._rest += rest  # not all of it anew: it may be long
        if len(self._rest) > MOST:
            raise self._teller.error(f"sends a line of more than {MOST} bytes, which is no part of a chat")

    def end(self) -> Iterator[str]:
        """Yield what the last line completes, which no newline ended."""
        yield from self._line(bytes(self._rest).rstrip(b"\r"))

    @property
    def whole(self) -> bool:
        """Whether the answer came to its end, and not only the connection."""
        return self._done or self._said.finish_reason is not None

    def _line(self, line: bytes) -> Iterator[str]:
        field, colon, value = line.partition(b":")
        # llama.cpp used to tell an error under a name of its own.
        if not colon or field not in {b"data", b"error"} or self._done:
            return
        value = value.strip()
        if value == b"[DONE]":
            self._done = True
            return
        try:
            event = json.loads(value)
        except (ValueError, RecursionError):
            raise self._teller.nonsense(value, "an event that is no JSON") from None
        if not isinstance(event, Mapping):
            raise self._teller.nonsense(event, "an event that is no object")
        if field == b"error" or event.get("error"):
            raise self._teller.refusal(_status(event), value)
        yield from self.take(event)

    def take(self, event: Mapping[str, Any]) -> Iterator[str]:
        """Yield the text of one event, and note the rest."""
        _note(event, self._said)
        choice = _first_choice(event)
        if choice is None:
            return
        self._said.finish_reason = choice.get("finish_reason") or self._said.finish_reason
        delta = choice.get("delta")
        text = _text(delta.get("content") if isinstance(delta, Mapping) else choice.get("text"))
        if text:
            self._said.parts.append(text)
            yield text


def _status(event: Mapping[str, Any]) -> int:
    error = event.get("error", event)
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) else 500


def rows_of(answer: Any, count: int, teller: Teller) -> NDArray[np.float32]:
    """Return the vectors of an answer, in the order of the *count* texts that were sent."""
    items = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise teller.nonsense(answer, "no list 'data' of embeddings")
    if len(items) != count:
        raise teller.error(f"answered {count} texts with {len(items)} embeddings")
    order: list[Any] = [item.get("index", place) for place, item in enumerate(items)]
    if not all(type(place) is int for place in order) or sorted(order) != list(range(count)):
        raise teller.error(f"numbered its {count} embeddings {order[:8]}")
    return checked_rows([item.get("embedding") for _, item in sorted(zip(order, items, strict=True), key=_place)],
                        teller)  # fmt: skip


def _place(item: tuple[int, Any]) -> int:
    return item[0]


def checked_rows(vectors: Sequence[Any], teller: Teller) -> NDArray[np.float32]:
    """Return *vectors* as rows, if each is one list of finite numbers, and all have the same length.

    Raises:
        ClientError: They are not; llama.cpp has answered with nulls, after hours of work (llama.cpp#14812).
        WrongKind: There is a vector for each token, as models answer that pool nothing.
    """
    rows = []
    for place, vector in enumerate(vectors):
        if isinstance(vector, (list, tuple)) and vector and isinstance(vector[0], (list, tuple)):
            raise WrongKind(
                f"{teller.name} answers with a vector for each token, and not one for a text: it pools nothing, as "
                f"chat models do.",
                model=teller.model,
                remedy=_EMBEDDING,
            )
        if not isinstance(vector, (list, tuple, np.ndarray)) or not len(vector):
            raise teller.error(f"answered text {place} with {str(vector)[:60]}, which is no vector")
        if not isinstance(vector, np.ndarray) and any(
            isinstance(number, bool) or not isinstance(number, (int, float)) for number in vector
        ):
            raise teller.error(f"answered text {place} with a vector that has something else than numbers in it")
        rows.append(np.asarray(vector, np.float32))
        if not np.isfinite(rows[-1]).all():
            raise teller.error(f"answered text {place} with a vector that has infinite numbers, or none, in it")
        if len(rows[-1]) != len(rows[0]):
            raise teller.error(f"answered with vectors of {len(rows[0])} and of {len(rows[-1])} numbers")
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def models_of(answer: Any, teller: Teller) -> list[str]:
    """Return the names in a list of models."""
    items = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(items, list):
        raise teller.nonsense(answer, "no list 'data' of models")
    return [str(item["id"]) for item in items if isinstance(item, Mapping) and "id" in item]


def context_of(answer: Any, model: str | None) -> int | None:
    """Return how many tokens fit, as the answer to `/props` or to `/v1/models` says it, or None.

    llama.cpp says it as `n_ctx`, vLLM as `max_model_len`, others as `context_length`. What a model was trained with
    (`n_ctx_train`) is not what a server gave it, and is not taken.
    """
    if not isinstance(answer, Mapping):
        return None
    settings = answer.get("default_generation_settings")
    places: list[Any] = [settings]
    items = [item for item in answer.get("data") or () if isinstance(item, Mapping)]
    for item in [item for item in items if item.get("id") == model] or items[:1]:
        places += [item.get("meta"), item]
    for place in places:
        for name in ("n_ctx", "max_model_len", "context_length", "context_window"):
            found = place.get(name) if isinstance(place, Mapping) else None
            if isinstance(found, int) and not isinstance(found, bool) and found > 0:
                return found
    return None


def tokens_of(answer: Any, teller: Teller) -> list[int]:
    """Return the tokens of an answer to `/tokenize`."""
    tokens = answer.get("tokens") if isinstance(answer, Mapping) else None
    if isinstance(tokens, list):
        ids: list[Any] = [token.get("id") if isinstance(token, Mapping) else token for token in tokens]
        if all(type(token) is int for token in ids):
            return ids
    raise teller.nonsense(answer, "no list 'tokens' of numbers")


# --- what goes wrong --------------------------------------------------------------------------------------------


class Teller:
    """Makes errors of what servers answer, which name the model, say what to do, and never hold a key."""

    def __init__(self, name: str, model: str | None = None, secrets: Sequence[str | None] = ()) -> None:
        self.name, self.model = name, model
        self._secrets = [secret for secret in secrets if secret]

    def error(self, what: str, *, status: int = 0, remedy: str = "See what its log says.") -> ClientError:
        """Return the error that the model did *what*."""
        return ClientError(self._hidden(f"{self.name} {what}."), status=status, model=self.model, remedy=remedy)

    def nonsense(self, answer: Any, lacking: str) -> ClientError:
        """Return the error that an answer is none, because of what it is *lacking*, or has instead."""
        said = answer if isinstance(answer, bytes) else json.dumps(answer, default=str)[:2000].encode()
        return self.error(
            f"answered with {lacking}: {self._words(said)}",
            remedy="Check that the URL is that of the API, which mostly ends with /v1.",
        )

    def broke_off(self, characters: int) -> NotRunning:
        """Return the error that the answer ended in the middle, after so many characters."""
        return NotRunning(
            f"{self.name} broke off its answer after {characters} characters.",
            model=self.model,
            remedy="See whether it was stopped, or what its log says.",
        )

    def unreachable(self, reason: BaseException, where: str) -> NotRunning:
        """Return the error that nobody answers."""
        what = f"{type(reason).__name__}: {reason}" if str(reason) else type(reason).__name__
        return NotRunning(
            self._hidden(f"{self.name} cannot be reached at {where!r} ({what})."),
            model=self.model,
            remedy="Start it, or check the URL.",
        )

    def silent(self, seconds: float | None) -> ClientTimeout:
        """Return the error that nothing came for too long."""
        return ClientTimeout(
            f"{self.name} said nothing for {seconds:g} seconds." if seconds else f"{self.name} said nothing.",
            model=self.model,
            remedy="See whether it is busy, or pass a larger timeout.",
        )

    def refusal(self, status: int, body: bytes, *, embedding: bool = False, keyed: bool = False) -> Exception:
        """Return the error that an answer with *status*, which is not 200, means."""
        words = body.decode("utf-8", "replace")
        text = f"answered with status {status}: {self._words(body)}"
        if embedding and (status == 501 or _CHAT_ONLY.search(words)):
            return WrongKind(
                self._hidden(f"{self.name} makes no vectors; it {text}."), model=self.model, remedy=_EMBEDDING
            )
        if status == 413 or (status in {400, 422, 500} and TOO_MUCH.search(words)):
            return self._too_long(text, words)
        if 300 <= status < 400:
            return self.error(text, status=status, remedy="Redirects are not followed; name the URL that it leads to.")
        if status in {401, 403, 407}:
            sent = "The key that was sent is refused." if keyed else "No key was sent."
            return self.error(text, status=status, remedy=f"{sent} Pass api_key=.")
        if status in {404, 405}:
            known = "no model was named" if self.model is None else f"the model was {self.model!r}"
            return self.error(
                text, status=status, remedy=f"Check the URL, which mostly ends with /v1, and the model ({known})."
            )
        return self.error(text, status=status, remedy="Try again later." if status in AGAIN else "See what it says.")

    def _too_long(self, text: str, words: str) -> ContextExceeded:
        try:
            told = json.loads(words)
            told = told.get("error", told)
            need, room = told.get("n_prompt_tokens"), told.get("n_ctx")
        except (ValueError, AttributeError, RecursionError):
            need = room = None
        found = [int(number) for number in _NUMBERS.findall(words)]
        if not isinstance(need, int) or not isinstance(room, int):
            need, room = (found[0], found[1]) if len(found) == 2 else (0, 0)
        return ContextExceeded(
            self._hidden(f"{self.name} {text}."),
            need=need,
            room=room,
            model=self.model,
            remedy="Send less, or start it with a larger context and batch.",
        )

    def _words(self, body: bytes) -> str:
        """Return what the server said, shortened."""
        said = body.decode("utf-8", "replace")
        try:
            answer = json.loads(said)
        except (ValueError, RecursionError):
            answer = None
        for key in ("error", "message", "detail"):
            if isinstance(answer, Mapping) and answer.get(key):
                answer = answer[key]
        said = " ".join((answer if isinstance(answer, str) else said).split())
        said = self._hidden(said)  # before it is cut, so that no half of a key is left
        return (said[:199] + "…" if len(said) > 200 else said) if said else "nothing"

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return SECRET.sub("…", text)
