"""A GGUF model in this process, run by llama-cpp-python: the calls of `ModelClient`, without a server."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._optional import extra
from ...errors import InvalidInput
from ...records import checked_text, shown
from ._wire import Deltas, Teller, checked_rows, reply_of
from .errors import ContextExceeded, ModelLoadFailed, NotDownloaded, NotRunning, WrongKind
from .interface import ChatStream, Messages, Reply, Said, TokenCount, checked_messages

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = ["LlamaCppClient"]

_LONGEST = 2048  # tokens of a text to be embedded, unless a context is named
_PER_MESSAGE = 8  # tokens that a template puts around a message: rather too many


class LlamaCppClient:
    """Runs the GGUF file at *path* in this process; one call at a time, others wait.

    *context* is how many tokens prompt and answer may have together, 0 for what the model was trained with. *kind* is
    `"chat"` or `"embedding"`. *gpu_layers* is how many layers the graphics card computes, -1 for all. *threads* is how
    many compute, by default as many as llama.cpp thinks best. *options* go to `llama_cpp.Llama` as they are.

    Raises:
        MissingDependency: llama-cpp-python is not installed.
        ModelLoadFailed: The file is no model that it can run.
        NotDownloaded: There is no such file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        context: int = 0,
        kind: str = "chat",
        gpu_layers: int = 0,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        if kind not in {"chat", "embedding"}:
            raise InvalidInput(f"kind must be 'chat' or 'embedding', not {shown(kind)}.")
        with extra("llama", module="llama_cpp"):
            import llama_cpp
        path = os.fspath(path)
        self.model = os.path.basename(path)
        self.kind, self.name = kind, path
        if not os.path.isfile(path):
            raise NotDownloaded(f"There is no file {path!r}.", model=self.model, remedy="Check the path.")
        if kind == "embedding":
            # A model that says nothing of it gets the mean: without one, there is a vector for each token.
            options.setdefault("pooling_type", llama_cpp.LLAMA_POOLING_TYPE_MEAN)
            # A text must fit into one batch, and that into one that is computed at once (llama.cpp#12836).
            most = context or _LONGEST
            options.setdefault("n_batch", most)
            options.setdefault("n_ubatch", most)
        try:
            self._llama: Any = llama_cpp.Llama(
                model_path=path,
                n_ctx=context,
                n_gpu_layers=gpu_layers,
                n_threads=threads,
                embedding=kind == "embedding",
                verbose=options.pop("verbose", False),
                **options,
            )
        except (ValueError, RuntimeError, AssertionError) as exc:
            raise ModelLoadFailed(
                f"{path!r} could not be loaded: {exc}.", model=self.model, remedy="Check that it is a whole GGUF file."
            ) from exc
        self._lock = threading.Lock()
        self._teller = Teller(self.name, self.model)

    def __repr__(self) -> str:
        return f"<LlamaCppClient: {self.name}>"

    def chat(self, messages: Messages, **params: Any) -> Reply:
        """Return the answer to *messages*; see `ModelClient.chat`.

        Raises:
            ContextExceeded: The messages are longer than the context.
            NotRunning: It was closed.
            WrongKind: It is an embedding model.
        """
        given = checked_messages(messages)
        self._must_be("chat")
        if "stream" in params:
            raise InvalidInput("stream is no parameter here: stream_chat() streams, chat() does not.")
        llama = self._running()
        with self._lock:
            try:
                return reply_of(llama.create_chat_completion(messages=given, **params), self._teller)
            except ValueError as exc:
                raise self._refused(exc) from exc

    def stream_chat(self, messages: Messages, **params: Any) -> ChatStream:
        """Return the answer to *messages* piece by piece; see `chat`. Leaving the stream early stops the model."""
        given, said = checked_messages(messages), Said()
        self._must_be("chat")
        return ChatStream(self._pieces(given, {**params, "stream": True}, said), said)

    def _pieces(self, messages: list[dict[str, Any]], params: dict[str, Any], said: Said) -> Generator[str, None, None]:
        llama, deltas = self._running(), Deltas(said, self._teller)
        with self._lock:  # for the whole answer: there is one context
            try:
                for event in llama.create_chat_completion(messages=messages, **params):
                    yield from deltas.take(event)
            except ValueError as exc:
                raise self._refused(exc) from exc

    def complete(self, prompt: str, **params: Any) -> Reply:
        """Return how the model goes on after *prompt*; see `ModelClient.complete`."""
        checked_text(prompt, "a prompt")
        self._must_be("chat")
        llama = self._running()
        with self._lock:
            try:
                return reply_of(llama.create_completion(prompt, **params), self._teller)
            except ValueError as exc:
                raise self._refused(exc) from exc

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a row for each text; see `ModelClient.embed`."""
        self._must_be("embedding")
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InvalidInput(f"embed() takes a list of texts, not {shown(texts)}.")
        texts = [checked_text(text, "a text") for text in texts]
        if not texts:
            return np.zeros((0, 0), np.float32)
        llama = self._running()
        with self._lock:
            try:
                rows = llama.embed(texts, normalize=True, truncate=False)
            except ValueError as exc:
                raise self._refused(exc) from exc
        return checked_rows(rows, self._teller)

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of *text*, without those that a model puts around it."""
        llama = self._running()
        with self._lock:
            return list(llama.tokenize(checked_text(text, "a text").encode(), add_bos=False, special=False))

    def count_tokens(self, text: str) -> TokenCount:
        """Return how many tokens *text* has."""
        return TokenCount(len(self.tokenize(text)))

    def count_messages(self, messages: Messages) -> TokenCount:
        """Return about how many tokens the prompt has that *messages* become: their texts, and something for each."""
        given = checked_messages(messages)
        whole = sum(self.count_tokens(str(one.get("content") or "")) for one in given)
        return TokenCount(whole + _PER_MESSAGE * (len(given) + 1), estimated=True)

    def context_length(self) -> int | None:
        """Return how many tokens prompt and answer may have together."""
        return int(self._running().n_ctx())

    def models(self) -> list[str]:
        """Return the name of the file."""
        return [self.model]

    def close(self) -> None:
        """Give back the memory that the model takes."""
        with self._lock:
            if self._llama is not None:
                self._llama.close()
                self._llama = None

    def __enter__(self) -> LlamaCppClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> Any:
        if self._llama is None:
            raise NotRunning(f"{self.name} was closed.", model=self.model, remedy="Open it again.")
        return self._llama

    def _must_be(self, kind: str) -> None:
        if self.kind != kind:
            does = "makes no vectors" if kind == "embedding" else "says nothing"
            raise WrongKind(
                f"{self.name} was opened as a model of the kind {self.kind!r}, which {does}.",
                model=self.model,
                remedy=f'Open it with kind="{kind}".',
            )

    def _refused(self, exc: ValueError) -> Exception:
        text = str(exc).rstrip(".")
        if "exceed" in text.lower() or "context window" in text.lower():
            return ContextExceeded(
                f"{self.name} takes no more than its context: {text}.",
                room=int(self._llama.n_ctx()),
                model=self.model,
                remedy="Send less, or open it with a larger context.",
            )
        return self._teller.error(f"refuses: {text}")
