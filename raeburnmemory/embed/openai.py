"""A model behind a server that answers `/v1/embeddings`: llamafile, llama.cpp, Ollama, vLLM, OpenAI.

The standard library talks to it. What is asked and answered is OpenAI's "Create embeddings"
(platform.openai.com/docs/api-reference/embeddings), which the others follow, each with some liberty.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import ipaddress
import json
import logging
import os
import re
import time
import urllib.request
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.error import URLError
from urllib.parse import unquote, urlsplit

import numpy as np

from ..errors import EmbeddingError, InvalidInput, ModelUnavailable
from . import PROBE
from .adapters import as_rows, shorten, unit_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from numpy.typing import NDArray

__all__ = ["OpenAIEmbedder"]

KEY = "OPENAI_API_KEY"

_PAUSES = (0.25, 1.0)  # seconds before the second and the third attempt
_PATIENCE = 20.0  # seconds that a server may ask to wait
_AGAIN = (429, 503)
_MOST = 1 << 20  # bytes of an answer for each text: 4096 numbers take about a tenth of that
_CUT_TO = 64  # characters: a text that is cut that short and still refused is refused for something else
_PORTS = {"http": 80, "https": 443}
_EXAMPLE = "openai:http://127.0.0.1:8080/v1"
SECRET = re.compile(r"\bsk-[\w*-]{4,}")  # what OpenAI's own refusal of a key repeats of it
# How servers say that a text, or all texts of a request together, are more than they take at once.
TOO_MUCH = re.compile(
    r"context (length|size|window)|too (large|long|many (tokens|inputs))|batch size|maximum .{0,40}tokens"
    r"|less than \d+ tokens",
    re.IGNORECASE,
)

_logger = logging.getLogger("raeburnmemory")


class OpenAIEmbedder:
    """Texts to vectors by a server that speaks OpenAI's protocol; nothing needs to be installed.

    *base_url* is what comes before `/embeddings`, as in `http://127.0.0.1:8080/v1`. *model* is what the server
    calls the model; servers that have only one do without. *api_key* is sent as a bearer token; without it, the
    variable `OPENAI_API_KEY` is taken, but only if the URL is https or leads to this machine. A user and password
    in the URL are sent as such instead. *timeout* is in seconds, for each request; *batch* is how many texts go
    into one.

    The name is `openai:URL`, and `#MODEL` if there is one: as a string it opens the same again. It has no secrets.

    A request is made again twice, after a short pause, if the connection breaks or the server is busy (429, 503);
    if it says how long to wait, it is given that, up to 20 seconds. Redirects are not followed. Proxies of the
    environment are used unless the server is on this machine. A text that is too long for the server is embedded
    by its beginning, as other models do it. Empty texts are not sent: their rows are zeros.

    Raises:
        InvalidInput: An argument makes no sense: a URL without http:// or https://, with a query, with a fragment.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        batch: int = 64,
    ) -> None:
        place = place_of(base_url)
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise InvalidInput(f"model must be a name, not {model!r}. Leave it out if the server has only one.")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
            raise InvalidInput(f"timeout must be a number of seconds above 0, not {timeout!r}.")
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise InvalidInput(f"batch must be a number of texts, at least 1, not {batch!r}.")
        self._url = place.url + "/embeddings"
        self._model = None if model is None else model.strip()
        self.name = _name(place.url, self._model)
        self._timeout, self._batch = float(timeout), batch
        self._dim: int | None = None
        self._secrets: list[str] = []
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._authorise(place, api_key)
        # Nothing that is said to this machine goes through another one.
        proxies = urllib.request.ProxyHandler({} if place.local else None)
        self._opener = urllib.request.build_opener(proxies, _AsItIs)
        self._opener.addheaders = [("User-Agent", "raeburnmemory")]

    def _authorise(self, place: Place, api_key: str | None) -> None:
        if api_key is not None and place.login is not None:
            raise InvalidInput("There is an api_key, and a user in the URL as well. The server takes one of them.")
        if place.login is not None:
            packed = base64.b64encode(place.login.encode()).decode("ascii")
            self._secrets += [packed, place.login, place.login.partition(":")[2]]
            self._headers["Authorization"] = f"Basic {packed}"
            return
        if api_key is None and (place.local or place.scheme == "https"):
            api_key = os.environ.get(KEY, "").strip() or None
        if api_key is None:
            return
        if not isinstance(api_key, str) or not re.fullmatch(r"[!-~]+", api_key):
            raise InvalidInput("The API key is empty, or has spaces or characters that no key has. Copy it again.")
        self._secrets.append(api_key)
        self._headers["Authorization"] = f"Bearer {api_key}"

    @property
    def dim(self) -> int:
        """How many numbers a vector has, learned from the first answer."""
        if self._dim is None:
            self.embed([PROBE])
        return cast("int", self._dim)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each text, shape (n, dim); zeros for one that is empty.

        Raises:
            ModelUnavailable: The server cannot be reached, or will not do it: it is busy, failing, wants another
                key, or knows no such model.
            EmbeddingError: It answered with something else than one vector for each text, or refuses the texts.
        """
        texts = list(texts)
        told = [at for at, text in enumerate(texts) if text.strip()]
        blocks = [
            self._rows([texts[at] for at in told[start : start + self._batch]])
            for start in range(0, len(told), self._batch)
        ]
        rows = np.zeros((len(texts), self.dim), np.float32)
        if blocks:
            rows[told] = np.concatenate(blocks)
        return rows

    def __repr__(self) -> str:
        return f"<OpenAIEmbedder: {self.name}>"

    # --- one request ----------------------------------------------------------------------------------------------

    def _rows(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the rows of *texts*, none of them empty, in as many requests as the server wants them in."""
        try:
            status, body = self._post(texts)
            if status != http.HTTPStatus.OK:
                self._refuse(status, body)
            return self._checked(texts, body)
        except _TooMuchError as exc:
            if len(texts) > 1:
                half = len(texts) // 2
                return np.concatenate([self._rows(texts[:half]), self._rows(texts[half:])])
            beginning = _beginning(texts[0])
            if len(beginning) < _CUT_TO:
                raise EmbeddingError(str(exc)) from None
            _logger.info(
                "%s takes no text of %d characters: it gets the first %d.", self.name, len(texts[0]), len(beginning)
            )
            return self._rows([beginning])

    def _checked(self, texts: list[str], body: bytes) -> NDArray[np.float32]:
        """Return the rows in *body*, the answer for *texts*."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise EmbeddingError(
                f"{self._url} answered with something that is no JSON: {self._words(body)}. Check that the URL is that "
                f"of the API, which mostly ends with /v1."
            ) from None
        items = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise EmbeddingError(
                f"{self._url} answered without a list 'data' of embeddings: {self._words(body)}. Check that the URL is "
                f"that of the API, which mostly ends with /v1."
            )
        try:
            rows = unit_rows(as_rows(_in_order(items, self._url, texts), self.name, texts), self.name, texts)
        except EmbeddingError as exc:
            raise EmbeddingError(
                f"{exc} Check that the server runs an embedding model, and pools its output to one vector for a text."
            ) from None
        if self._dim is None:
            self._dim = rows.shape[1]
        if rows.shape[1] != self._dim:
            raise EmbeddingError(
                f"{self._url} answered with rows of {rows.shape[1]} numbers, and with {self._dim} before. Somebody "
                f"changed its model; start it with the one that it had."
            )
        return rows

    def _post(self, texts: list[str]) -> tuple[int, bytes]:
        """Return the status and the body of the answer for *texts*."""
        asked: dict[str, Any] = {"input": texts, "encoding_format": "float"}
        if self._model is not None:
            asked["model"] = self._model
        request = urllib.request.Request(  # noqa: S310 - place_of lets http and https pass, nothing else
            self._url, json.dumps(asked).encode("ascii"), self._headers, method="POST"
        )
        for pause in (*_PAUSES, None):
            wait = pause
            try:
                with self._opener.open(request, timeout=self._timeout) as response:
                    body = self._read(response, _MOST * len(texts))
                    if response.status not in _AGAIN or pause is None:
                        return response.status, body
                    wait = max(pause, wait_of(response.headers.get("Retry-After")))
                    if wait > _PATIENCE:
                        return response.status, body
            except (OSError, http.client.HTTPException) as exc:
                reason = exc.reason if isinstance(exc, URLError) else exc
                broke = isinstance(reason, (ConnectionError, http.client.IncompleteRead))
                broke = broke and not isinstance(reason, ConnectionRefusedError)
                if not broke or pause is None:
                    self._unreachable(reason)
            time.sleep(wait or 0)
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    def _read(self, response: http.client.HTTPResponse, most: int) -> bytes:
        """Return the body: the time-out of sockets is for each piece of it, ours for the whole."""
        until, whole = time.monotonic() + self._timeout, response.length
        body = b""
        while (whole is None or len(body) < whole) and (piece := response.read1(1 << 16)):
            body += piece
            if time.monotonic() > until:
                raise TimeoutError
            if len(body) > most:
                raise EmbeddingError(f"{self._url} answered with more than {most} bytes, which are no embeddings.")
        if whole is not None and len(body) < whole:  # read1 is silent where read raises
            raise http.client.IncompleteRead(body, whole - len(body))
        return body

    # --- refusals -------------------------------------------------------------------------------------------------

    def _unreachable(self, reason: object) -> NoReturn:
        if isinstance(reason, TimeoutError):
            raise ModelUnavailable(
                f"{self._url} did not answer within {self._timeout:g} seconds. See whether the server is busy, or pass "
                f"OpenAIEmbedder(…, timeout=…, batch=…) with more seconds or fewer texts."
            ) from None
        what = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason)
        raise ModelUnavailable(
            f"{self._url} cannot be reached ({self._hidden(what)}). Start the server, or check the URL."
        ) from None

    def _refuse(self, status: int, body: bytes) -> NoReturn:
        """Raise what an answer with *status*, which is not 200, means."""
        text = f"{self._url} answered with status {status}: {self._words(body)}."
        if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (
            status in {400, 422, 500} and TOO_MUCH.search(body.decode("utf-8", "replace"))
        ):
            raise _TooMuchError(f"{text} Start the server with a larger context and batch.")
        if 300 <= status < 400:
            raise ModelUnavailable(f"{text} Redirects are not followed; name the URL that it leads to.")
        if status in {401, 403, 407}:
            sent = "The key that was sent is refused." if "Authorization" in self._headers else "No key was sent."
            raise ModelUnavailable(
                f"{text} {sent} Set {KEY}, which is sent over https and on this machine, or pass "
                f"OpenAIEmbedder(…, api_key=…)."
            )
        if status in {404, 405}:
            known = "no model was named" if self._model is None else f"the model was {self._model!r}"
            raise ModelUnavailable(
                f"{text} Check the URL, which mostly ends with /v1, and the model after '#' ({known})."
            )
        if status in _AGAIN or status >= 500:
            raise ModelUnavailable(f"{text} Try again later, or see what the server's log says.")
        named = "" if self._model is not None else f" If it asks for a model, name it: {self.name}#MODEL."
        raise EmbeddingError(f"{text} It does not take these texts.{named}")

    def _words(self, body: bytes) -> str:
        """Return what the server said, shortened, and without what it repeats of a secret."""
        said = body.decode("utf-8", "replace")
        try:
            answer = json.loads(said)
        except (ValueError, RecursionError):
            answer = None
        for key in ("error", "message", "detail"):
            if isinstance(answer, dict) and answer.get(key):
                answer = answer[key]
        if isinstance(answer, str):
            said = answer
        said = " ".join(self._hidden(said).split())
        return shorten(said, 200) if said else "nothing"

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, "…")
        return SECRET.sub("…", text)


class _TooMuchError(EmbeddingError):
    """The server takes fewer texts, or shorter ones."""


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Every answer is an answer: no status is an error of urllib's, and no redirect is followed."""

    def http_response(
        self,
        request: urllib.request.Request,  # noqa: ARG002 - urllib's signature
        response: http.client.HTTPResponse,
    ) -> http.client.HTTPResponse:
        return response

    https_response = http_response


def _beginning(text: str) -> str:
    """Return the first half of *text*, which has more than white space, up to the end of a word if one is near."""
    text = text.strip()
    half = text[: len(text) // 2]
    end = half.rfind(" ")
    return half[:end] if end > len(half) // 2 else half


def _in_order(items: list[dict[str, Any]], url: str, texts: Sequence[str]) -> list[Any]:
    """Return what *items* say of each text, in the order of *texts*: servers may answer in any."""
    if len(items) != len(texts):
        raise EmbeddingError(f"{url} answered {len(texts)} texts with {len(items)} embeddings.")
    places: list[Any] = [item.get("index") for item in items]
    if any(place is not None for place in places):
        if not all(type(place) is int for place in places) or sorted(places) != list(range(len(items))):
            raise EmbeddingError(f"{url} numbered its {len(items)} embeddings {shorten(str(places))}.")
        items = sorted(items, key=lambda item: cast("int", item["index"]))
    return [_numbers(item.get("embedding"), url) for item in items]


def _numbers(embedding: object, url: str) -> object:
    """Return an embedding as numbers, if it is base64 of little-endian float32; some send nothing else."""
    if not isinstance(embedding, str):
        return embedding
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    except (binascii.Error, ValueError):
        raise EmbeddingError(f"{url} answered with text for an embedding: {shorten(embedding)}.") from None


def wait_of(retry_after: str | None) -> float:
    """Return how long the header asks to wait: it has seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return 0.0
    if re.fullmatch(r"\d{1,9}(\.\d+)?", retry_after.strip(), re.ASCII):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


# --- addresses --------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """What the base URL of a server says."""

    url: str  # without secrets, in one spelling
    scheme: str
    local: bool  # on this machine
    login: str | None  # user:password


def split(address: str) -> tuple[str, str | None]:
    """Return the URL and the model of an *address*, `URL` or `URL#MODEL`."""
    url, hash_, model = address.strip().partition("#")
    if hash_ and not model.strip():
        raise InvalidInput(f"{_shown(url) + '#'!r} names no model after '#'. Name one, or leave '#' out.")
    return url, model.strip() or None


def name_of(address: str) -> str:
    """Return the name under which the model at *address* is recorded: without secrets, in one spelling.

    Raises:
        InvalidInput: It is no http or https URL.
    """
    url, model = split(address)
    return _name(place_of(url).url, model)


def is_local(address: str) -> bool:
    """Tell whether what is sent to *address* stays on this machine."""
    return place_of(split(address)[0]).local


def _name(url: str, model: str | None) -> str:
    return f"openai:{url}" if model is None else f"openai:{url}#{model}"


def place_of(url: str) -> Place:
    """Return what the base URL of a server says.

    Raises:
        InvalidInput: It is no http or https URL, or has a query or a fragment.
    """
    if not isinstance(url, str):
        raise InvalidInput(f"A base URL is a string, not a {type(url).__name__}. One looks like {_EXAMPLE[7:]!r}.")
    url = url.strip()
    scheme = url.partition("://")[0].lower()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if scheme not in _PORTS or not host or re.search(r"[\s\x00-\x1f\x7f\\]", url):
            raise ValueError
        host.encode("ascii")
    except ValueError:
        raise InvalidInput(
            f"{_shown(url)!r} is no URL of a server. It begins with http:// or https://, as in {_EXAMPLE!r}."
        ) from None
    if "?" in url or "#" in url:
        raise InvalidInput(f"{_shown(url)!r} has more after the path. A base URL ends with it; a model goes by itself.")
    if not parts.path.isascii():
        raise InvalidInput(f"{_shown(url)!r} has characters that no URL has. Write them as %XX.")
    where = f"[{host}]" if ":" in host else host
    where += "" if port in {None, _PORTS[scheme]} else f":{port}"
    login = None
    if "@" in parts.netloc:
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return Place(f"{scheme}://{where}{parts.path.rstrip('/')}", scheme, _is_loopback(host), login)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(url: str) -> str:
    """Return a URL that was refused, without what may be a password or a key in it."""
    head, mark, _ = url.partition("?")
    return re.sub(r"^(\w+://)?.*@", r"\1…@", head, flags=re.DOTALL) + ("?…" if mark else "")
