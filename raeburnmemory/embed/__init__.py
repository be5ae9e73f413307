"""Text to unit vectors.

`Embedder` is the contract, `open_embedder` and `open_default` choose one, and all embedding goes through
`checked_embed`, which lets nothing pass that is no vector.
"""

from __future__ import annotations

import os
import re
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..errors import (
    EmbedderFallbackWarning,
    EmbeddingError,
    InvalidInput,
    MissingDependency,
    ModelUnavailable,
    UnknownBackend,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "BUILTIN",
    "DEFAULT_MODEL",
    "PROBE",
    "Embedder",
    "checked_embed",
    "is_address",
    "is_elsewhere",
    "model_name",
    "open_default",
    "open_embedder",
    "same_model",
]

DEFAULT_MODEL = "all-MiniLM-L6-v2"
BUILTIN = "builtin"

PROBE = "Yesterday the doctor asked about the password of her garden computer, and nobody remembered it."
"""The text whose vector tells one model from another. Stores record that vector: this can never change."""

SAME = 0.999  # cosine of two probes of one model, whatever the runtime: torch and onnx agree within 1e-6

_RUNTIMES = ("onnx", "sentence_transformers")
_SERVER = "openai"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)


@runtime_checkable
class Embedder(Protocol):
    """Whatever turns texts into vectors of one length, the same text always into the same vector.

    A model that was trained to read questions in another way than texts has a second method of the same form,
    `embed_queries`, for the questions of `recall`.
    """

    name: str
    """The model's name as it is recorded in stores, without the runtime that computes it."""

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each text, shape (n, dim); a row of zeros means *no vector*."""


# --- names --------------------------------------------------------------------------------------------------


def model_name(spec: str | None) -> str:
    """Return the name under which the model that *spec* names is recorded.

    None and `"none"` mean `"builtin"`. The runtime (`onnx:`, `sentence_transformers:`) and the organisation
    `sentence-transformers/` are no part of the name. The name of a folder is its absolute path, that of a
    server `openai:URL` or `openai:URL#MODEL`, without a password.

    Raises:
        InvalidInput: *spec* is empty, or its URL is none.
    """
    if spec is None:
        return BUILTIN
    runtime, name = _split(spec)
    if runtime == _SERVER:
        from .openai import name_of

        return name_of(name)
    if name == BUILTIN:
        return BUILTIN
    from ._models import folder_of

    folder = folder_of(name)
    return str(folder) if folder else canonical(name)


def canonical(name: str) -> str:
    """Return *name* without what is no part of a model's name: its runtime, the usual organisation."""
    runtime, rest = _split(name)
    return name.strip() if runtime == _SERVER else rest.removeprefix("sentence-transformers/")


def is_address(spec: str | None) -> bool:
    """Tell whether *spec* says where a model is, a folder or a server, and not what it is called.

    The same model may be in two places, so that two addresses do not tell two models apart.
    """
    runtime, name = (None, BUILTIN) if spec is None else _split(spec)
    if runtime is None and name == BUILTIN:
        return False
    return runtime == _SERVER or os.path.exists(os.path.expanduser(name))


def is_elsewhere(spec: str) -> bool:
    """Tell whether embedding with *spec* sends the texts to another machine."""
    runtime, name = _split(spec)
    if runtime != _SERVER:
        return False
    from .openai import is_local

    return not is_local(name)


def _split(spec: str) -> tuple[str | None, str]:
    """Return the runtime that *spec* asks for, if it does, and the rest."""
    runtime, colon, rest = spec.strip().partition(":")
    if not colon or runtime not in {*_RUNTIMES, _SERVER}:
        runtime, rest = "", spec.strip()
    if not rest:
        raise InvalidInput(f"{spec!r} names no embedding model. Leave it out for the default, or say 'builtin'.")
    if not runtime and rest.lower() in {"none", BUILTIN}:
        return None, BUILTIN
    return runtime or None, rest


# --- opening ------------------------------------------------------------------------------------------------


def open_embedder(spec: object = None) -> Embedder:
    """Return the embedder that *spec* names or is.

    None, `"none"` and `"builtin"` give the one that ships; `"onnx:NAME"` and `"sentence_transformers:NAME"`
    choose the runtime; a bare name or folder takes the runtime that has the model already, or else one that
    can fetch it. `"openai:URL"` and `"openai:URL#MODEL"` ask a server, see `openai.OpenAIEmbedder`. For objects
    see `adapters.adapt`. When this returns, a model's files are on this machine, and its runtime may load later;
    a server has answered.

    Raises:
        InvalidInput: *spec* is empty, an object of another shape, or its URL is none.
        UnknownBackend: *spec* asks for a runtime that does not exist.
        MissingDependency: The packages for it are not installed.
        ModelUnavailable: The model cannot be had here.
        EmbeddingError: The server answered with something that is no vector.
    """
    if spec is not None and not isinstance(spec, str):
        from .adapters import adapt

        return adapt(spec)
    runtime, name = (None, BUILTIN) if spec is None else _split(spec)
    if runtime is None and name == BUILTIN:
        from .builtin import BuiltinEmbedder

        return BuiltinEmbedder()
    if runtime == _SERVER:
        from .openai import OpenAIEmbedder, split

        server = OpenAIEmbedder(*split(name))
        _ = server.dim  # asks it: whoever names a server wants that one, and learns here if it cannot be had
        return server
    return _open_model(runtime, name, fetch=True)


_fell_back = False


def open_default() -> Embedder:
    """Return all-MiniLM-L6-v2 if it is here or can be fetched, else the embedder that ships.

    The first time in a process that it comes to the latter, one `EmbedderFallbackWarning` says why and what
    to do. From then on nothing is fetched any more, so that a machine without a network waits once.
    """
    global _fell_back  # noqa: PLW0603 - once per process, as the warning is
    try:
        return _open_model(None, DEFAULT_MODEL, fetch=not _fell_back)
    except MissingDependency as exc:
        if not _fell_back:
            _fell_back = True
            ready = isinstance(exc, ModelUnavailable)
            note = " (The packages, raeburnmemory[embeddings], are installed.)" if ready else ""
            warnings.warn(
                f"{DEFAULT_MODEL} is not available; 'builtin' embeds instead, which knows words but "
                f"not their order. {exc}{note} To choose it without this warning: "
                f"embedding_model='builtin' or RAEBURN_EMBED_MODEL=builtin.",
                EmbedderFallbackWarning,
                stacklevel=2,
            )
        return open_embedder(BUILTIN)


def _open_model(runtime: str | None, name: str, *, fetch: bool) -> Embedder:
    """Open the model called *name*, or in the folder *name*; without *fetch*, only from this machine."""
    from . import _models, onnx
    from . import sentence_transformers as st

    folder = _models.folder_of(name)
    if folder is None and not _MODEL_NAME.fullmatch(name):
        before, colon, _ = name.partition(":")
        if colon:
            choices = ", ".join((BUILTIN, *_RUNTIMES, _SERVER))
            hint = f" A URL goes after {_SERVER + ':'!r}." if before in {"http", "https"} else ""
            raise UnknownBackend(f"No embedder is called {before!r}. Choose one of: {choices}.{hint}")
        raise ModelUnavailable(f"{name!r} is neither a folder with a model nor the name of one.")
    if runtime == "onnx":
        return onnx.OnnxEmbedder(name)
    if runtime == "sentence_transformers":
        return st.SentenceTransformersEmbedder(name)
    if folder is not None:
        return _open_folder(folder)

    by_onnx = _models.missing(*onnx.PACKAGES, onnx.HUB_PACKAGE) is None
    by_torch = _models.missing(st.PACKAGE) is None
    if not by_onnx and not by_torch:
        raise MissingDependency(
            f"The packages that run {name!r} are not installed. "
            f"Install them with: pip install 'raeburnmemory[embeddings]'"
        )
    cached = by_torch and st.SentenceTransformersEmbedder.find(name) is not None
    if by_onnx:
        found = onnx.OnnxEmbedder.find(name)
        if found is None and fetch and not cached:
            found = _models.fetch(_models.repository(name), onnx.WEIGHTS, onnx.OTHERS)
        if found is not None:
            try:
                return onnx.OnnxEmbedder(found, name=canonical(name))
            except ModelUnavailable:  # a kind that only torch computes
                if not by_torch:
                    raise
    if cached or (by_torch and fetch):
        return st.SentenceTransformersEmbedder(name)
    raise ModelUnavailable(
        f"{name!r} has no ONNX file. To run it with torch: pip install 'raeburnmemory[sentence-transformers]'"
        if fetch
        else f"{name!r} is not in the cache, and could not be fetched before."
    )


def _open_folder(folder: Path) -> Embedder:
    from . import _models, onnx
    from . import sentence_transformers as st

    if not folder.is_dir():
        raise ModelUnavailable(f"There is no folder {str(folder)!r}, so no model in it. Check the path.")
    if _models.missing(*onnx.PACKAGES) is not None and _models.missing(st.PACKAGE) is not None:
        raise MissingDependency(
            f"The packages that run the model in {str(folder)!r} are not installed. "
            f"Install them with: pip install 'raeburnmemory[embeddings]'"
        )
    exported = onnx.onnx_file(folder) is not None
    trained = any((folder / file).is_file() for file in st.WEIGHTS)
    by_torch = (trained or not exported) and _models.missing(st.PACKAGE) is None
    if not by_torch:
        return onnx.OnnxEmbedder(folder)  # or its word on what is missing: a package, a file
    if exported and _models.missing(*onnx.PACKAGES) is None:
        with suppress(ModelUnavailable):  # a kind that only torch computes
            return onnx.OnnxEmbedder(folder)
    return st.SentenceTransformersEmbedder(folder)


# --- embedding ----------------------------------------------------------------------------------------------


def checked_embed(embedder: Embedder, texts: Sequence[str], *, queries: bool = False) -> NDArray[np.float32]:
    """Return one row of length 1 for each text, shape (n, dim), in an array of its own.

    With *queries* the texts are questions, which some models read in another way. A row shorter than 1e-12 becomes
    exactly zero: *no vector*. An embedder's own errors pass through.

    Raises:
        EmbeddingError: It answered with something else: NaN, ragged rows, the wrong count or length.
    """
    import numpy as np

    from .adapters import as_rows, unit_rows

    if not texts:
        return np.empty((0, embedder.dim), np.float32)
    embed = getattr(embedder, "embed_queries", embedder.embed) if queries else embedder.embed
    rows = as_rows(embed(texts), embedder.name, texts)
    if rows.shape[1] != embedder.dim:
        raise EmbeddingError(
            f"The embedder {embedder.name!r} answered with rows of {rows.shape[1]} numbers; its dim is {embedder.dim}."
        )
    return unit_rows(rows, embedder.name, texts)


def same_model(probe_a: NDArray[np.float32], probe_b: NDArray[np.float32]) -> bool:
    """Tell whether two vectors of `PROBE` come from one model, whatever the runtime: cosine >= 0.999."""
    import numpy as np

    a, b = np.asarray(probe_a, np.float64), np.asarray(probe_b, np.float64)
    if a.shape != b.shape:
        return False
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return lengths > 0 and float((a * b).sum()) / lengths >= SAME
