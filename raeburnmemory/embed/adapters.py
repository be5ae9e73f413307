"""Foreign objects that turn texts into vectors, given the shape of our own embedders."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import EmbeddingError, InvalidInput
from . import PROBE, Embedder, canonical

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Adapter", "adapt", "as_rows", "unit_rows"]


class Adapter:
    """An embedder made of a function from a list of texts to one row of numbers for each, and of one for questions."""

    def __init__(
        self,
        name: str,
        function: Callable[[list[str]], object],
        questions: Callable[[list[str]], object] | None = None,
    ) -> None:
        self.name = name
        self._function = function
        self._questions = questions or function
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """How many numbers a vector has, learned from the first embedding."""
        if self._dim is None:
            self.embed([PROBE])
        return cast("int", self._dim)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return what the function answers as an array (n, dim); `checked_embed` brings the rows to length 1.

        Raises:
            EmbeddingError: The answer is not one row of numbers for each text.
        """
        if not texts:
            return np.empty((0, self.dim), np.float32)
        rows = as_rows(self._function(list(texts)), self.name, texts)
        if self._dim is None:
            self._dim = rows.shape[1]
        return rows

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the same for questions, where the source reads them in another way.

        Raises:
            EmbeddingError: The answer is not one row of numbers for each question.
        """
        return as_rows(self._questions(list(texts)), self.name, texts) if texts else self.embed(texts)

    def __repr__(self) -> str:
        return f"<Adapter: {self.name}>"


def adapt(source: object) -> Embedder:
    """Return *source* as an embedder.

    Taken: our own shape (`name`, `dim`, `embed`), LangChain's `Embeddings`, anything with `encode` as
    sentence-transformers has it, anything with `embed`, and plain functions from texts to rows. What has a way of its
    own for questions (`embed_query`, `encode_query`) is asked by it.

    Raises:
        InvalidInput: It is none of these.
    """
    if isinstance(source, type):
        raise InvalidInput(f"{source.__qualname__} is a class; an embedder is an instance of it: {source.__name__}(…)")
    own = getattr(source, "name", None)
    # Looked up without evaluating it: `dim` may have to load a model.
    has_dim = inspect.getattr_static(source, "dim", None) is not None
    if isinstance(own, str) and own and has_dim and callable(getattr(source, "embed", None)):
        return cast("Embedder", source)
    for method in ("embed_documents", "encode_document", "encode", "embed"):
        function = getattr(source, method, None)
        if callable(function):
            return Adapter(_name(source), function, _for_questions(source))
    if callable(source):
        return Adapter(_name(source), source)
    raise InvalidInput(
        f"A {type(source).__name__} is no embedder. Pass a model's name, or an object with embed(texts), "
        f"encode(texts) or embed_documents(texts), or a function from a list of texts to rows of numbers."
    )


def _for_questions(source: Any) -> Callable[[list[str]], object] | None:
    """Return what embeds questions with *source* as LangChain or sentence-transformers do it, if it has that."""
    if callable(getattr(source, "embed_query", None)) and callable(getattr(source, "embed_documents", None)):
        return lambda texts: [source.embed_query(text) for text in texts]
    several = getattr(source, "encode_query", None)
    return several if callable(several) else None


def _name(source: object) -> str:
    if callable(getattr(source, "embed_documents", None)):
        return _langchain_name(source)
    for attribute in ("name", "model_name", "model"):
        own = getattr(source, attribute, None)
        if isinstance(own, str) and own.strip():
            return canonical(own.strip())
    kind = source if hasattr(source, "__qualname__") else type(source)
    return f"{kind.__module__}.{kind.__qualname__}"


def _langchain_name(source: object) -> str:
    """Return the class of a LangChain embedder and its model: other classes may give other vectors of one model."""
    kind = type(source).__qualname__
    for attribute in ("model", "model_name", "model_id"):
        own = getattr(source, attribute, None)
        if isinstance(own, str) and own.strip():
            return f"{kind}({canonical(own.strip())})"
    return f"{type(source).__module__}.{kind}"


def as_rows(answer: Any, name: str, texts: Sequence[str]) -> NDArray[Any]:
    """Return *answer*, what embedder *name* gave for *texts*, as an array of numbers with one row per text.

    Lists of lists, generators of arrays and tensors are taken; numbers keep their type.

    Raises:
        EmbeddingError: It is something else; the message names the first text that has no proper row.
    """
    if not hasattr(answer, "__array__") and not isinstance(answer, (list, tuple)):
        if not isinstance(answer, Iterable) or isinstance(answer, (str, bytes, dict)):
            raise EmbeddingError(f"The embedder {name!r} answered with a {type(answer).__name__}, not with rows.")
        answer = list(answer)
    try:
        rows = np.asarray(answer)
    except (ValueError, TypeError, RuntimeError):  # ragged; or a tensor that is not on the CPU
        rows = None
    if rows is not None and rows.dtype.kind in "fiu" and rows.ndim == 2:
        if len(rows) != len(texts):
            raise EmbeddingError(f"The embedder {name!r} answered {len(texts)} texts with {len(rows)} rows.")
        if rows.shape[1] == 0:
            raise EmbeddingError(f"The embedder {name!r} answered with rows of no numbers.")
        return rows
    raise EmbeddingError(f"The embedder {name!r} answered {_complaint(answer, texts)}.")


def unit_rows(rows: NDArray[Any], name: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return *rows*, what embedder *name* gave for *texts*, brought to length 1, in an array of its own.

    A row shorter than 1e-12 becomes exactly zero: *no vector*.

    Raises:
        EmbeddingError: A number is not finite.
    """
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = int(finite.argmin())
        raise EmbeddingError(
            f"The embedder {name!r} answered text {bad} ({shorten(texts[bad])}) with numbers that are not finite."
        )
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    if not np.isfinite(lengths).all():  # numbers whose squares are beyond float64
        rows = rows / np.abs(rows).max(axis=1, initial=1)[:, None]
        lengths = np.linalg.norm(rows, axis=1)
    none = lengths < 1e-12
    lengths[none] = 1
    unit = np.empty(rows.shape, np.float32)
    np.divide(rows, lengths[:, None], out=unit, casting="same_kind")
    unit[none] = 0
    return unit


def _complaint(answer: Any, texts: Sequence[str]) -> str:
    """Say what is wrong with an *answer* that is no array of rows."""
    first = None
    for index, row in enumerate(answer if isinstance(answer, (list, tuple)) else ()):
        try:
            values = np.asarray(row)
        except (ValueError, TypeError, RuntimeError) as exc:
            return f"{_which(index, texts)} with something that is no row of numbers ({exc})"
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            what = "null" if row is None else f"a {type(row).__name__} that is no row of numbers"
            return f"{_which(index, texts)} with {what}"
        first = len(values) if first is None else first
        if len(values) != first:
            return f"{_which(index, texts)} with {len(values)} numbers, the one before with {first}"
    shape, kind = np.shape(answer), getattr(answer, "dtype", type(answer).__name__)
    return f"{len(texts)} texts with {kind} of shape {shape}, not with one row of numbers for each"


def _which(index: int, texts: Sequence[str]) -> str:
    return f"text {index} ({shorten(texts[index])})" if index < len(texts) else f"text {index} of {len(texts)}"


def shorten(text: str, width: int = 40) -> str:
    """Return *text* quoted, and cut if it is long."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")
