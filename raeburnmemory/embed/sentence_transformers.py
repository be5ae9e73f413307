"""Any model that the package sentence-transformers loads, by name or from a folder."""

from __future__ import annotations

import importlib
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelUnavailable
from ._models import (
    DOCUMENT_PROMPTS,
    QUERY_PROMPTS,
    announce,
    ask,
    cached_folder,
    first_prompt,
    folder_of,
    repository,
    require,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["SentenceTransformersEmbedder"]

PACKAGE = "sentence_transformers"
WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "0_StaticEmbedding/model.safetensors",
)


class SentenceTransformersEmbedder:
    """A sentence encoder through sentence-transformers and torch.

    *model* is a folder, or a name on the Hugging Face hub (`all-MiniLM-L6-v2`, `ORGANISATION/NAME`). A model
    that lies in a folder or in the hub's cache is loaded at the first embedding; any other is fetched and
    loaded now. *name* is what stores record, by default the model's own.

    Raises:
        MissingDependency: sentence-transformers is not installed.
        ModelUnavailable: The model is not there and cannot be fetched.
    """

    def __init__(self, model: str | os.PathLike[str], *, name: str | None = None, device: str | None = None) -> None:
        require(PACKAGE, extra="sentence-transformers")
        self._lock = threading.Lock()
        self._model: Any = None
        self._device = device
        self._dim: int | None = None
        folder = folder_of(model) if isinstance(model, str) else Path(model).absolute()
        if folder is not None:
            if not folder.is_dir():
                raise ModelUnavailable(f"There is no folder {str(folder)!r} with a model in it.")
            self.name = name or str(folder)
            self._source = str(folder)
            return
        self.name = name or str(model).removeprefix("sentence-transformers/")
        found = self.find(str(model))
        self._source = str(found or repository(str(model)))
        if found is None:
            answer = ask(self._source, WEIGHTS)
            if answer is None:
                raise ModelUnavailable(f"{self._source!r} has no weights for sentence-transformers.")
            announce(self._source, *answer)
            self._load()

    @staticmethod
    def find(name: str) -> Path | None:
        """Return the folder in the hub's cache that holds the model called *name*, or None."""
        return cached_folder(repository(name), WEIGHTS, ("modules.json",))

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        if self._dim is None:
            self._dim = int(self.embed([""]).shape[1])  # the method that tells has two names by now
        return self._dim

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each text, shape (n, dim), behind the model's prompt for documents if any.

        Raises:
            ModelUnavailable: The files of the model cannot be loaded.
        """
        return self._encoded("encode_document", DOCUMENT_PROMPTS, texts)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each question, shape (n, dim), behind the model's prompt for queries if any.

        Raises:
            ModelUnavailable: The files of the model cannot be loaded.
        """
        return self._encoded("encode_query", QUERY_PROMPTS, texts)

    def _encoded(self, method: str, prompts: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dim), np.float32)
        model = self._load()
        # Named by us: left to itself, `encode_document` takes no prompt of a model that calls it "passage".
        rows = getattr(model, method)(
            list(texts),
            prompt=first_prompt(model.prompts, prompts),
            batch_size=32,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        return np.asarray(rows, np.float32)

    def __repr__(self) -> str:
        return f"<SentenceTransformersEmbedder: {self.name}>"

    def _load(self) -> Any:
        with self._lock:
            if self._model is None:
                from sentence_transformers import SentenceTransformer

                try:
                    with _quiet():
                        self._model = SentenceTransformer(self._source, device=self._device)
                except Exception as exc:  # whatever torch, transformers and the hub raise
                    raise ModelUnavailable(
                        f"sentence-transformers cannot load {self._source!r} ({type(exc).__name__}: {exc}). "
                        f"If it lies in the cache, delete it there, so that it is fetched again."
                    ) from exc
            return self._model


@contextmanager
def _quiet() -> Iterator[None]:
    """Load without progress bars: what a terminal shows is for the program to say, not for a library."""
    logging = importlib.import_module("transformers.utils.logging")  # comes with sentence-transformers
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
