"""Sentence encoders without torch: onnxruntime computes, tokenizers cuts, huggingface-hub fetches.

A model is a folder as sentence-transformers writes it, with an ONNX export beside: `onnx/model.onnx` (or
`model.onnx`), `config.json`, `tokenizer.json`, and, where they exist, `modules.json`,
`sentence_bert_config.json` and `1_Pooling/config.json`. What cannot be computed here exactly as
sentence-transformers does it, is refused.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelUnavailable
from ._models import DOCUMENT_PROMPTS, QUERY_PROMPTS, cached_folder, fetch, first_prompt, folder_of, repository, require

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["OnnxEmbedder", "onnx_file"]

PACKAGES = ("onnxruntime", "tokenizers")
HUB_PACKAGE = "huggingface_hub"
WEIGHTS = ("onnx/model.onnx", "model.onnx")
REQUIRED = ("config.json", "tokenizer.json")
OTHERS = (
    *REQUIRED,
    "tokenizer_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)

_BATCH = 32
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_STATES = ("last_hidden_state", "token_embeddings")  # as transformers and as sentence-transformers name them


def onnx_file(folder: Path) -> Path | None:
    """Return the ONNX file of the model in *folder*, or None if it has none."""
    return next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)


class OnnxEmbedder:
    """A sentence encoder on the CPU through onnxruntime.

    *model* is a folder, or a name on the Hugging Face hub (`all-MiniLM-L6-v2`, `ORGANISATION/NAME`): taken
    from the cache, or else fetched into it now. *name* is what stores record, by default the model's own. The
    runtime is loaded at the first embedding.

    Raises:
        MissingDependency: onnxruntime, tokenizers or (for a name) huggingface-hub is not installed.
        ModelUnavailable: The model is not there, cannot be fetched, or cannot be computed by this class.
    """

    def __init__(self, model: str | os.PathLike[str], *, name: str | None = None) -> None:
        require(*PACKAGES, extra="embeddings")
        folder = folder_of(model) if isinstance(model, str) else Path(model).absolute()
        if folder is not None:
            self.name = name or str(folder)
        else:
            self.name = name or str(model).removeprefix("sentence-transformers/")
            require(HUB_PACKAGE, extra="embeddings")
            repo = repository(str(model))
            folder = self.find(str(model)) or fetch(repo, WEIGHTS, OTHERS)
            if folder is None:
                raise ModelUnavailable(
                    f"{repo!r} has no ONNX file ({' or '.join(WEIGHTS)}). "
                    f"To run it with torch: pip install 'raeburnmemory[sentence-transformers]'"
                )
        self.folder = folder
        self._settings = _Settings(folder)
        self._lock = threading.Lock()
        self._encoder: _Encoder | None = None

    @staticmethod
    def find(name: str) -> Path | None:
        """Return the folder in the hub's cache that holds all of the model called *name*, or None."""
        return cached_folder(repository(name), WEIGHTS, OTHERS)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self._load().dim

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each text, shape (n, dim), behind the model's prompt for documents if any.

        Raises:
            ModelUnavailable: The files of the model cannot be loaded.
        """
        return self._embed(self._settings.document, texts)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each question, shape (n, dim), behind the model's prompt for queries if any.

        Raises:
            ModelUnavailable: The files of the model cannot be loaded.
        """
        return self._embed(self._settings.query, texts)

    def _embed(self, prompt: str, texts: Sequence[str]) -> NDArray[np.float32]:
        encoder = self._load()
        rows = np.empty((len(texts), encoder.dim), np.float32)
        # Texts of about one length share a batch, or most of the work would be padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            rows[batch] = encoder.encode([prompt + texts[index] for index in batch])
        return rows

    def __repr__(self) -> str:
        return f"<OnnxEmbedder: {self.name}>"

    def _load(self) -> _Encoder:
        with self._lock:
            if self._encoder is None:
                self._encoder = _Encoder(self.folder, self._settings)
            return self._encoder


class _Settings:
    """What the small files of a model folder say about how to use it."""

    def __init__(self, folder: Path) -> None:
        absent = [file for file in REQUIRED if not (folder / file).is_file()]
        if onnx_file(folder) is None:
            absent.insert(0, WEIGHTS[0])
        if absent:
            raise ModelUnavailable(
                f"The model folder {str(folder)!r} has no {' and no '.join(absent)}. Save the model there "
                f"with sentence-transformers, backend='onnx', or run it with torch: "
                f"pip install 'raeburnmemory[sentence-transformers]'"
            )
        config = _json(folder / "config.json")
        tokenizer = _json(folder / "tokenizer_config.json")
        sentence = _json(folder / "sentence_bert_config.json")
        modules = {str(module["type"]).rpartition(".")[2]: module for module in _json(folder / "modules.json")}
        where = modules.get("Pooling", {}).get("path") or "1_Pooling"
        pooling = _json(folder / where / "config.json")
        self.pooling = _pooling(pooling)
        prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
        self.document = first_prompt(prompts, DOCUMENT_PROMPTS)
        self.query = first_prompt(prompts, QUERY_PROMPTS)
        others = sorted(modules.keys() - {"Transformer", "Pooling", "Normalize"})
        for beyond, there in (
            (f"the pooling {self.pooling!r}", self.pooling not in {"mean", "cls"}),
            (f"the modules {', '.join(others)}", others),
            (
                "a prompt that is left out of the pooling",
                (self.document or self.query) and not pooling.get("include_prompt", True),
            ),
            ("a lower-casing of its own", sentence.get("do_lower_case")),
        ):
            if there:
                raise ModelUnavailable(
                    f"The model in {str(folder)!r} uses {beyond}, which is not computed without torch. "
                    f"To run it with torch: pip install 'raeburnmemory[sentence-transformers]'"
                )
        # The limit that sentence-transformers applies; tokenizer.json may tell a shorter one.
        limits = (
            sentence.get("max_seq_length") or tokenizer.get("model_max_length"),
            config.get("max_position_embeddings"),
        )
        self.length = min((int(limit) for limit in limits if limit), default=512)
        pad = tokenizer.get("pad_token")
        self.pad: str | None = pad.get("content") if isinstance(pad, dict) else pad  # in full, in older files


def _json(path: Path) -> Any:
    """Return the contents of *path*, an empty object if there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ModelUnavailable(f"The model file {str(path)!r} cannot be read ({exc}). Fetch it again.") from exc


def _pooling(config: dict[str, Any]) -> str:
    """Return how token states become one vector, the ways joined by + if there are several.

    sentence-transformers has one flag per way before version 6 (`pooling_mode_mean_tokens`), one name since.
    """
    mode = config.get("pooling_mode") or [name for flag, name in _POOLINGS.items() if config.get(flag)]
    return mode if isinstance(mode, str) else "+".join(mode) or "mean"


class _Encoder:
    """The loaded model: the texts of one batch to unit rows."""

    def __init__(self, folder: Path, settings: _Settings) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: it warns of processors that it cannot identify
        # Threads that spin for more work triple the CPU time of a single text, and gain nothing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(
                str(onnx_file(folder)), options, providers=["CPUExecutionProvider"]
            )
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as exc:  # each raises exceptions of its own making
            raise ModelUnavailable(
                f"The model in {str(folder)!r} cannot be loaded ({str(exc).strip() or type(exc).__name__}). "
                f"If it lies in the cache, delete it there, so that it is fetched again."
            ) from exc
        self.inputs = {entry.name for entry in self.session.get_inputs()}
        outputs = [entry.name for entry in self.session.get_outputs()]
        states = next((name for name in _STATES if name in outputs), None)
        if states is None:
            raise ModelUnavailable(
                f"The ONNX file in {str(folder)!r} answers with {', '.join(outputs)}, not with one state for "
                f"each token ({' or '.join(_STATES)}). Save it with sentence-transformers, backend='onnx'."
            )
        self.states: str = states
        self.pooling = settings.pooling
        pad = settings.pad or (self.tokenizer.padding or {}).get("pad_token") or "[PAD]"
        self.tokenizer.enable_truncation(max_length=settings.length)
        self.tokenizer.enable_padding(pad_id=self.tokenizer.token_to_id(pad) or 0, pad_token=pad)
        self.dim = int(self.encode([""]).shape[1])

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        encodings = self.tokenizer.encode_batch([text.strip() for text in texts])
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
            "attention_mask": mask,
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings], np.int64),
        }
        (states,) = self.session.run([self.states], {name: feed[name] for name in self.inputs & feed.keys()})
        states = np.asarray(states, np.float32)
        # The sum points where the mean does.
        rows = states[:, 0] if self.pooling == "cls" else np.einsum("ntd,nt->nd", states, mask.astype(np.float32))
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
