"""Where models lie: folders, the Hugging Face cache, and the hub behind it.

Only `ask` and `fetch` touch the network. They ask the hub once, without retries, before anything is
downloaded, so that a machine without a network learns of it in seconds.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .._optional import installed
from ..errors import MissingDependency, ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "DOCUMENT_PROMPTS",
    "QUERY_PROMPTS",
    "announce",
    "ask",
    "cached_folder",
    "fetch",
    "first_prompt",
    "folder_of",
    "missing",
    "repository",
    "require",
]

# What models that read questions and texts in different ways call the words to be put before them, as
# sentence-transformers knows them.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
QUERY_PROMPTS = ("query",)

ORGANISATION = "sentence-transformers"
_PATIENCE = 5.0  # seconds to wait for each address of the hub

_logger = logging.getLogger("raeburnmemory")


def missing(*modules: str) -> str | None:
    """Return the first of *modules* that is not installed, or None; imports nothing."""
    return next((module for module in modules if not installed(module)), None)


def require(*modules: str, extra: str) -> None:
    """Make sure that *modules* are installed, without importing them: some take seconds.

    Raises:
        MissingDependency: One is not; the message has the line that installs *extra*.
    """
    if module := missing(*modules):
        raise MissingDependency(f"{module!r} is not installed. Install it with: pip install 'raeburnmemory[{extra}]'")


def folder_of(spec: str) -> Path | None:
    """Return the folder that *spec* names, or None if it is the name of a model on the hub.

    What begins like a path is one; anything else is one only if a model lies there.
    """
    path = Path(os.path.expanduser(spec))  # unlike its namesake in `Path`, it lets an unknown ~user be
    begins = spec.startswith((".", "~", "/", "\\")) or path.is_absolute()
    if begins or any((path / file).is_file() for file in ("modules.json", "config.json", "tokenizer.json")):
        return Path(os.path.abspath(path))  # `resolve` follows links, which renames the model
    return None


def first_prompt(prompts: Mapping[str, str | None], names: Sequence[str]) -> str:
    """Return the first of the *prompts* of a model, called one of *names*, that says something; else nothing."""
    return next((prompt for name in names if (prompt := prompts.get(name))), "")


def repository(name: str) -> str:
    """Return the full name on the hub: a bare one belongs to sentence-transformers."""
    return name if "/" in name else f"{ORGANISATION}/{name}"


# --- the cache ----------------------------------------------------------------------------------------------
# Its layout is documented (huggingface.co/docs/huggingface_hub/guides/manage-cache), and read here as it lies
# on disk: importing the client for that takes longer than loading a model.


def cached_folder(repo: str, weights: Sequence[str], others: Sequence[str]) -> Path | None:
    """Return the cached folder of *repo* if nothing is left to fetch, or None.

    One of *weights* must be there, and each of *others* be there or be known not to exist: a model read
    without the file that tells its pooling would give wrong vectors.
    """
    folder = _snapshot(repo)
    if folder is None or not any((folder / file).is_file() for file in weights):
        return None
    absent = folder.parents[1] / ".no_exist" / folder.name
    return folder if all((folder / file).is_file() or (absent / file).is_file() for file in others) else None


def _snapshot(repo: str) -> Path | None:
    """Return the folder with what is cached of the main revision of *repo*, named after its commit."""
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE) / "--".join(["models", *repo.split("/")])
    try:
        commit = (home / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = home / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


# --- the hub ------------------------------------------------------------------------------------------------


def ask(repo: str, weights: Sequence[str], revision: str | None = None) -> tuple[str, int] | None:
    """Return the first of *weights* that *repo* has on the hub, and its size in bytes, or None if it has none.

    Raises:
        ModelUnavailable: The hub cannot be reached, may not be, or has no such model for us.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise ModelUnavailable(
            f"{repo!r} is not complete in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to "
            f"fetch it. Unset the variable, or name a folder that holds the model."
        )
    with _translated(repo):
        for file in weights:
            size = _size(repo, file, revision)
            if size is not None:
                return file, size
    return None


def announce(repo: str, file: str, size: int) -> None:
    """Log one line: what is being fetched, from where, to where."""
    from huggingface_hub import constants

    _logger.warning(
        "Fetching the embedding model %s (%s, %.0f MB) from %s to %s",
        *(repo, file, size / 1e6, constants.ENDPOINT, constants.HF_HUB_CACHE),
    )


def fetch(repo: str, weights: Sequence[str], others: Sequence[str]) -> Path | None:
    """Download the first of *weights* that *repo* has, and what it has of *others*, and return their folder.

    The first of *others* must exist. None if *repo* has none of *weights*.

    Raises:
        ModelUnavailable: The hub cannot be reached, may not be, or has no such model for us.
    """
    # What is there already decides on the revision, so that all files are of one.
    there = _snapshot(repo)
    revision = there.name if there else None
    answer = ask(repo, weights, revision)
    if answer is None:
        return None
    chosen, size = answer
    if there is None or not (there / chosen).is_file():
        announce(repo, chosen, size)
    with _translated(repo):
        first = _download(repo, others[0], revision)
        for file in (*others[1:], chosen):
            _download(repo, file, revision)
    if first is None:
        raise ModelUnavailable(f"{repo!r} has no {others[0]}: it is no model that can be used here.")
    return first.parent


def _size(repo: str, file: str, revision: str | None) -> int | None:
    """Return the size in bytes of *file* on the hub, or None if it has none such. Asks once, never again."""
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError

    try:
        url = hub.hf_hub_url(repo, file, revision=revision)
        return hub.get_hf_file_metadata(url, timeout=_PATIENCE).size or 0
    except EntryNotFoundError:
        return None


def _download(repo: str, file: str, revision: str | None) -> Path | None:
    """Return where *file* lies after its download, or None if the hub has none such (the cache notes it)."""
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hub.hf_hub_download(repo, file, revision=revision, etag_timeout=_PATIENCE))
    except LocalEntryNotFoundError:  # a kind of the next one, but it means that the network went
        raise
    except EntryNotFoundError:
        return None


@contextmanager
def _translated(repo: str) -> Iterator[None]:
    from huggingface_hub import constants

    try:
        yield
    except Exception as exc:  # of requests, httpx or httpx2, by the version of the hub's client
        first = str(exc).strip().partition("\n")[0]
        raise ModelUnavailable(
            f"{repo!r} could not be fetched from {constants.ENDPOINT} ({type(exc).__name__}: {first}). "
            f"Try again with a network, or name a folder that holds the model; the cache is "
            f"{constants.HF_HUB_CACHE}."
        ) from exc
