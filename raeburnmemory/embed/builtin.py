"""The embedder that ships with the package: numpy only, nothing to download, no model to load.

Every entry of the WordPiece vocabulary of all-MiniLM-L6-v2 has one vector, distilled once from that model by
`scripts/distil_builtin.py`, whose docstring has the recipe; the vector of a text is the sum of the vectors of
its pieces, scaled to length 1. It knows which words are alike, and nothing of their order.

`builtin.npz` holds one int8 row and one float32 scale for each entry, and the vocabulary as UTF-8 lines.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, cast

import numpy as np

from ..errors import EmbeddingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["BuiltinEmbedder", "wordpiece"]

FORMAT = 1  # scripts/distil_builtin.py writes this version
DIMENSIONS = 256

_BLOCK = 4096  # pieces whose rows are gathered at once: 4 MB as float32
_LONGEST_WORD = 100  # characters; BERT takes longer words as unknown
_CACHED_WORDS = 1 << 16
_CACHED_LENGTH = 40  # characters; longer ones hardly come back


class BuiltinEmbedder:
    """Static vectors of 256 numbers, the same on every machine. A text without a known word is all zeros."""

    name = "builtin"
    dim = DIMENSIONS

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each text, shape (n, 256); zeros for one in which no word is known.

        Raises:
            EmbeddingError: The data file of the package is missing or damaged.
        """
        rows, scales = _table()
        sums = np.zeros((len(texts), DIMENSIONS), np.float32)
        pieces: list[int] = []
        spans: list[tuple[int, int, int]] = []  # (text, first piece, last piece + 1)

        def flush() -> None:
            entries = np.array(pieces)
            gathered = rows[entries].astype(np.float32)
            gathered *= scales[entries]
            for index, start, end in spans:
                # Its own rows only, in their order: a text's vector does not depend on its neighbours.
                gathered[start:end].sum(axis=0, out=sums[index])
            pieces.clear()
            spans.clear()

        for index, text in enumerate(texts):
            ids = wordpiece(text)
            if len(ids) > _BLOCK:  # a book: each distinct piece once, or the rows would fill the memory
                distinct, counts = np.unique(ids, return_counts=True)
                sums[index] = (rows[distinct] * (scales[distinct] * counts[:, None])).sum(axis=0)
            elif ids:
                if len(pieces) + len(ids) > _BLOCK:
                    flush()
                spans.append((index, len(pieces), len(pieces) + len(ids)))
                pieces += ids
        if pieces:
            flush()
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums, dtype=np.float64))[:, None]
        np.divide(sums, lengths, out=sums, where=lengths > 0, casting="same_kind")
        return sums

    def __repr__(self) -> str:
        return "<BuiltinEmbedder: 256 numbers>"


# --- the data file ------------------------------------------------------------------------------------------


def _member(name: str) -> NDArray[np.generic]:
    """Return one array of the data file; reading it checks its CRC."""
    import zipfile  # with all that it imports, for those who embed something
    from importlib import resources

    path = resources.files(__package__).joinpath("builtin.npz")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            version, array = int(data["format"]), data[name]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as exc:
        raise _damaged(f"missing or damaged ({exc})") from exc
    if version != FORMAT:
        raise _damaged(f"of format {version}, not {FORMAT}")
    return cast("NDArray[np.generic]", array)


def _damaged(what: str) -> EmbeddingError:
    return EmbeddingError(
        f"The data file of the builtin embedder, builtin.npz, is {what}. "
        f"Install the package again: pip install --force-reinstall raeburnmemory"
    )


@cache
def _table() -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the rows (n, 256) and their scales (n, 1)."""
    rows, scales = _member("rows"), _member("scales")
    count = len(_vocabulary())
    if rows.shape != (count, DIMENSIONS) or rows.dtype != np.int8 or scales.shape != (count,):
        raise _damaged(f"damaged ({rows.dtype} rows of shape {rows.shape} for {count} entries)")
    return rows.astype(np.int8, copy=False), scales.astype(np.float32, copy=False)[:, None]


@cache
def _vocabulary() -> dict[str, int]:
    entries = _member("vocabulary").tobytes().decode().split("\n")
    return {entry: index for index, entry in enumerate(entries)}


@cache
def _longest_entry() -> int:
    return max(map(len, _vocabulary()))


# --- WordPiece ----------------------------------------------------------------------------------------------

_SPECIAL = re.compile(r"(\[(?:PAD|UNK|CLS|SEP|MASK)\])")
# Unicode's White_Space without the control characters that are dropped instead. `str.split` has other ones.
_CHUNK = re.compile(r"[^\t\n\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_ASCII_WORD = re.compile(r"[0-9a-z]+|[!-/:-@\[-`{-~]")
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")

_cache: dict[str, tuple[int, ...]] = {}


def wordpiece(text: str) -> list[int]:
    """Return the vocabulary indexes of *text*'s WordPieces, without [CLS] and [SEP] around them.

    Uncased BERT tokenisation, as the `tokenizers` package does it for all-MiniLM-L6-v2: control characters
    are dropped, Chinese characters stand alone, accents go (NFD), letters are lowered one by one, punctuation
    is split off, and each word is cut into the longest entries from the left; a word that cannot be is [UNK].

    Raises:
        EmbeddingError: The data file of the package is missing or damaged.
    """
    if "[" in text and len(parts := _SPECIAL.split(text)) > 1:
        vocabulary = _vocabulary()
        return [
            piece
            for index, part in enumerate(parts)
            for piece in ([vocabulary[part]] if index % 2 else wordpiece(part))
        ]
    chunks = _CHUNK.findall(text)
    found = [*map(_cache.get, chunks)]
    if None in found:
        found = [_chunk(chunk) if pieces is None else pieces for chunk, pieces in zip(chunks, found, strict=True)]
    return [*chain.from_iterable(cast("list[tuple[int, ...]]", found))]


def _chunk(chunk: str) -> tuple[int, ...]:
    """Return the pieces of what stands between two white spaces, from the cache if it was met before."""
    pieces = _cache.get(chunk)
    if pieces is None:
        pieces = tuple([piece for word in _words(chunk) for piece in _cut(word)])
        if len(chunk) <= _CACHED_LENGTH:
            if len(_cache) >= _CACHED_WORDS:
                _cache.clear()
            _cache[chunk] = pieces
    return pieces


def _words(chunk: str) -> list[str]:
    """Split a chunk into normalised words and punctuation."""
    if chunk.isascii():
        if not chunk.isprintable():
            chunk = "".join(filter(str.isprintable, chunk))
        return _ASCII_WORD.findall(chunk.lower())
    dropped = {"Cc", "Cf", "Co", "Cs"}
    kept = [char for char in chunk if char != "\ufffd" and unicodedata.category(char) not in dropped]
    apart = "".join(f" {char} " if _is_chinese(ord(char)) else char for char in kept)
    # Joined at the end: a word of a hundred thousand letters, of a script without spaces, would be copied with each.
    letters: list[str] = []
    for char in unicodedata.normalize("NFD", apart):
        category = unicodedata.category(char)
        if category[0] == "P" or char in _ASCII_PUNCTUATION:
            letters += [" ", char, " "]
        elif category != "Mn":
            letters.append(char.lower())  # alone: in a word, `lower` would know the final sigma, which BERT does not
    return [word for word in "".join(letters).split(" ") if word]


def _is_chinese(code: int) -> bool:
    """Tell whether *code* is in one of the blocks that BERT takes for Chinese."""
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x2A6DF
        or 0x2A700 <= code <= 0x2B81F
        or 0x2B920 <= code <= 0x2CEAF
        or 0x2F800 <= code <= 0x2FA1F
    )


def _cut(word: str) -> list[int]:
    """Cut *word* into the longest vocabulary entries from the left; [UNK] if that leaves a rest."""
    vocabulary = _vocabulary()
    whole = vocabulary.get(word)
    if whole is not None:
        return [whole]
    if len(word) > _LONGEST_WORD:
        return [vocabulary["[UNK]"]]
    pieces: list[int] = []
    start, longest = 0, _longest_entry()
    while start < len(word):
        mark = "##" if start else ""
        for end in range(min(len(word), start + longest), start, -1):
            piece = vocabulary.get(mark + word[start:end])
            if piece is not None:
                pieces.append(piece)
                start = end
                break
        else:
            return [vocabulary["[UNK]"]]
    return pieces
