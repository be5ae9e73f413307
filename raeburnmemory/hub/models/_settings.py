"""What the clients of a model's server are told, and what neither needs a connection for."""

from __future__ import annotations

import json
import os
import random
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._optional import extra
from ...embed.openai import KEY, place_of, wait_of
from ...errors import InvalidInput
from ...records import checked_text, shown
from ._wire import (
    AGAIN,
    MOST,
    Call,
    Endpoint,
    Teller,
)
from .errors import ClientError, ClientTimeout, WrongKind
from .interface import Messages, Said, TokenCount, checked_messages

if TYPE_CHECKING:
    import httpx
    from numpy.typing import NDArray

__all__ = ["MODELS", "PROPS", "TOKENIZERS", "Fixed", "Lease", "Refused", "Settings", "lacks"]

Lease = Callable[[], AbstractContextManager[Endpoint]]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0  # seconds between two tries
_PATIENCE = 20.0  # seconds that a server may ask to wait
_BATCH = 64  # texts in one request for vectors
_PER_MESSAGE = 8  # tokens that a template puts around a message, where nobody tells: rather too many
# Where text becomes tokens: llama.cpp's and vLLM's place, then that of llama-cpp-python.
TOKENIZERS = ("/tokenize", "/extras/tokenize")
PROPS, MODELS = Call("GET", "/props", native=True), Call("GET", "/models")
_NO_SUCH = frozenset({0, 400, 404, 405, 422, 501})  # 0: it answered 200, with a page for people


class Settings:
    """The part of both clients that makes no requests."""

    def __init__(
        self,
        base_url: str | None = None,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 300.0,
        retries: int = 3,
        kind: str | None = None,
        lease: Lease | None = None,
    ) -> None:
        if (base_url is None) == (lease is None):
            raise InvalidInput("A client needs base_url or lease, and not both.")
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise InvalidInput(f"model must be a name, not {shown(model)}. Leave it out if the server has only one.")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
            raise InvalidInput(f"timeout must be a number of seconds above 0, not {shown(timeout)}.")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidInput(f"retries must be a whole number, 0 or more, not {shown(retries)}.")
        if kind not in {None, "chat", "embedding"}:
            raise InvalidInput(f"kind must be 'chat' or 'embedding', not {shown(kind)}.")
        self.model = None if model is None else model.strip()
        self.kind = kind
        self._timeout, self._retries = float(timeout), retries
        self._tokenizer: str | None = None  # where text becomes tokens, once it is known; empty if nowhere
        self._keys: set[str] = set()  # those that were sent
        local = plain = True  # what somebody leases runs here
        if base_url is not None:
            endpoint, local = self._endpoint(base_url, api_key)
            plain = endpoint.base_url.startswith("http://")
            self.name = f"openai:{endpoint.base_url}" + ("" if self.model is None else f"#{self.model}")
            lease = Fixed(endpoint)
        else:
            self.name = self.model or "the model"
        assert lease is not None
        self._lease: Lease = lease
        with extra("hub", module="httpx"):
            import httpx
        self._httpx = httpx
        self._options: dict[str, Any] = {
            "timeout": httpx.Timeout(self._timeout, connect=min(self._timeout, 10.0)),
            "follow_redirects": False,  # the key is for this server alone
            "trust_env": not local,  # nothing that is said to this machine goes through another one
            "headers": {"User-Agent": "raeburnmemory"},
        }
        if plain:  # loading the certificates of all authorities takes longer than a small model takes to answer
            self._options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def _endpoint(self, base_url: str, api_key: str | None) -> tuple[Endpoint, bool]:
        place = place_of(base_url)
        if place.login is not None:
            raise InvalidInput("There is a user in the URL. Pass the key as api_key=.")
        if api_key is None and (place.local or place.scheme == "https"):
            api_key = os.environ.get(KEY, "").strip() or None
        elif api_key and not place.local and place.scheme == "http":
            raise InvalidInput(
                f"The key would travel to {place.url!r} for everybody on the way to read. Use https, or api_key=''."
            )
        if api_key and not re.fullmatch(r"[!-~]+", api_key):
            raise InvalidInput("The API key has spaces, or characters that no key has. Copy it again.")
        return Endpoint(place.url, api_key or None), place.local

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"

    # --- requests -----------------------------------------------------------------------------------------------

    def _chat(self, messages: Messages, params: Mapping[str, Any], *, stream: bool) -> Call:
        return self._asked("/chat/completions", {"messages": checked_messages(messages)}, params, stream=stream)

    def _completion(self, prompt: str, params: Mapping[str, Any], *, stream: bool = False) -> Call:
        return self._asked("/completions", {"prompt": checked_text(prompt, "a prompt")}, params, stream=stream)

    def _asked(self, path: str, what: dict[str, Any], params: Mapping[str, Any], *, stream: bool) -> Call:
        if self.kind == "embedding":
            raise WrongKind(
                f"{self.name} is an embedding model, which says nothing.",
                model=self.model,
                remedy='Start a chat model, with kind="chat".',
            )
        if "stream" in params:
            raise InvalidInput("stream is no parameter here: stream_chat() streams, chat() does not.")
        body = {**what, **{name: value for name, value in params.items() if value is not None}}
        if self.model is not None:
            body.setdefault("model", self.model)
        if stream:
            body["stream"] = True
            body.setdefault("stream_options", {"include_usage": True})
        return Call("POST", path, body)

    def _embedding(self, texts: Sequence[str]) -> list[tuple[Call, int]]:
        if self.kind == "chat":
            raise WrongKind(
                f"{self.name} is a chat model, which makes no vectors.",
                model=self.model,
                remedy='Start an embedding model, with kind="embedding".',
            )
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InvalidInput(f"embed() takes a list of texts, not {shown(texts)}.")
        texts = [checked_text(text, "a text") for text in texts]
        named = {} if self.model is None else {"model": self.model}
        return [
            (Call("POST", "/embeddings", {"input": some, "encoding_format": "float", **named}), len(some))
            for some in (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        ]

    def _tokens(self, text: str, path: str, *, template: bool) -> Call:
        # `content` is for llama.cpp, `prompt` for vLLM, `input` for llama-cpp-python; each ignores the others.
        body: dict[str, Any] = {"content": text, "prompt": text, "input": text}
        body |= {"add_special": template, "add_special_tokens": template, "parse_special": template}
        return Call("POST", path, body if self.model is None else {**body, "model": self.model}, native=True)

    def _request(self, call: Call, endpoint: Endpoint) -> dict[str, Any]:
        if endpoint.api_key:
            self._keys.add(endpoint.api_key)
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        given: dict[str, Any] = {"method": call.method, "url": call.url(endpoint.base_url), "headers": headers}
        return given if call.body is None else {**given, "json": call.body}

    @staticmethod
    def _templated(messages: Sequence[Mapping[str, Any]]) -> Call:
        return Call("POST", "/apply-template", {"messages": messages}, native=True)

    def _prompt_in(self, answer: Any) -> str:
        prompt = answer.get("prompt") if isinstance(answer, Mapping) else None
        if not isinstance(prompt, str):
            raise self._teller().nonsense(answer, "no 'prompt'")
        return prompt

    def _no_tokenizer(self) -> ClientError:
        return self._teller().error("has no tokenizer to ask", remedy="Use count_tokens, which estimates.")

    def _teller(self) -> Teller:
        return Teller(self.name, self.model, list(self._keys))

    # --- when something goes wrong ------------------------------------------------------------------------------

    def _pause(self, attempt: int, exc: Exception) -> float:
        """Return how many seconds to wait before the next try; raise what *exc* means if there is none."""
        if isinstance(exc, Refused):
            wait = wait_of(exc.retry_after)
            if exc.status not in AGAIN or attempt >= self._retries or wait > _PATIENCE:
                raise exc.meaning from None
        else:
            wait = 0.0
            broke = (
                self._httpx.NetworkError,  # no connection, or one that broke
                self._httpx.RemoteProtocolError,
                self._httpx.ConnectTimeout,
            )
            if not isinstance(exc, broke) or attempt >= self._retries:
                raise self._meaning(exc) from None
        longest: float = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        return max(wait, random.uniform(0.5, 1) * longest)  # noqa: S311 - no secret

    @staticmethod
    def _plainer(call: Call, exc: Exception) -> Call | None:
        """Return a call without what a strict server does not know, if that is what it refuses."""
        body = dict(call.body or {})
        if not isinstance(exc, Refused) or "stream_options" not in str(exc.meaning):
            return None
        return None if body.pop("stream_options", None) is None else call._replace(body=body)

    def _meaning(self, exc: Exception) -> Exception:
        """Return what an error of httpx's means; its own messages may hold what was sent."""
        timed_out = isinstance(exc, self._httpx.TimeoutException) and not isinstance(exc, self._httpx.ConnectTimeout)
        if timed_out:
            return self._teller().silent(self._timeout)
        try:
            where = str(exc.request.url.copy_with(query=None))  # type: ignore[attr-defined]
        except RuntimeError:  # it has none
            where = self.name
        return self._teller().unreachable(exc, where)

    def _parsed(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise self._teller().nonsense(body, "something that is no JSON") from None

    def _refused(self, call: Call, endpoint: Endpoint, response: httpx.Response, body: bytes) -> Refused:
        meaning = self._teller().refusal(
            response.status_code, body, embedding=call.path == "/embeddings", keyed=bool(endpoint.api_key)
        )
        return Refused(response.status_code, response.headers.get("Retry-After"), meaning)

    def _too_long(self) -> ClientError:
        return self._teller().error(f"answers with more than {MOST} bytes")

    def _broken(self, exc: Exception, said: Said) -> Exception:
        """Return the error that a stream broke off of which something came."""
        timed_out = isinstance(exc, self._httpx.TimeoutException)
        return self._meaning(exc) if timed_out else self._teller().broke_off(sum(map(len, said.parts)))

    def _together(self, rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        if not rows:
            return np.zeros((0, 0), np.float32)
        if len({part.shape[1] for part in rows}) > 1:
            raise self._teller().error(f"answered with vectors of {sorted({part.shape[1] for part in rows})} numbers")
        return np.concatenate(rows)

    @staticmethod
    def _estimated(messages: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> TokenCount:
        return TokenCount(sum(counts) + _PER_MESSAGE * (len(messages) + 1), estimated=True)


class Fixed:
    """The lease of a server that is where it is."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def __call__(self) -> AbstractContextManager[Endpoint]:
        return nullcontext(self.endpoint)


def lacks(exc: ClientError) -> bool:
    """Tell whether an error means that the server has no such place, and not that it could not answer now."""
    return not isinstance(exc, ClientTimeout) and exc.status in _NO_SUCH


class Refused(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, retry_after: str | None, meaning: Exception) -> None:
        super().__init__(status)
        self.status, self.retry_after, self.meaning = status, retry_after, meaning
