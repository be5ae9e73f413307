"""The vectors of a JSON store beside its `graph.json`.

`graph.json.faiss` is a plain `IndexFlatL2` over unit rows, `graph.json.vectors.npy` the same rows where faiss is
not installed, `graph.json.map.json` maps prompt ids to rows of either: the files of the original. What they alone
cannot tell stands in `graph.json.vectors.json`: for each field the file, its length and SHA-256 (compared before
anything parses it), the model, and the slot, node row and text checksum of each row.

A field has up to two descriptions there, the newest first: the file that a fold was about to put in place, and
the one it replaces. Whichever matches is what a crash in between left.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._optional import installed
from ..errors import StoreCorrupt, StoreTooNew
from ..flat_vectors import read_faiss_flat, read_npy, write_faiss_flat, write_npy
from ..nodes import PROMPT
from ._files import at_once, beginning, open_regular, write_failed
from .nodelink import mended
from .state import VectorSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from .contract import VectorBlock

__all__ = ["FORMAT", "FieldSnapshot", "VectorFiles", "from_ranges", "to_ranges"]

FORMAT = 1
_NAMED = re.compile(r"(\.(?!(?:tmp|damaged|before-restore)-)[^.]+(?:\.passages)?(?:\.next)?)?\.(?:faiss|vectors\.npy)")
_WHOLE = np.array([0, 0, -1])  # the span of a vector that covers its whole text


def to_ranges(numbers: Any) -> list[list[int]]:
    """Write integers as `[first, count]` runs of consecutive ones."""
    values = np.asarray(numbers, np.int64)
    if not len(values):
        return []
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values) != 1) + 1))
    counts = np.diff(np.concatenate((starts, [len(values)])))
    return [[int(first), int(count)] for first, count in zip(values[starts], counts, strict=True)]


def from_ranges(ranges: Any) -> Iterator[int]:
    """Yield the integers that `to_ranges` wrote, one at a time: a damaged file may name any number of them."""
    for first, count in ranges:
        yield from range(first, first + count)


Description = dict[str, Any]  # of one file of vectors; docs/reference/files.md names its keys


class Header(NamedTuple):
    """What `graph.json.vectors.json` says: the descriptions of each field, and which vectors are lost, if any."""

    fields: dict[str, list[Description]]
    lost: str | None


@dataclass
class FieldSnapshot:
    """The live vectors of one field at one version."""

    dim: int
    next_slot: int
    block: VectorBlock


class VectorFiles:
    """Reads and writes the vector files of the graph at *path*."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.header_path = path + ".vectors.json"
        self.map_path = path + ".map.json"

    def file_of(self, field: str, *, faiss: bool) -> str:
        """Return the path of a field's file, in faiss's format or numpy's."""
        stem = self.path if field == PROMPT else f"{self.path}.{field}"
        return stem + (".faiss" if faiss else ".vectors.npy")

    # --- reading ------------------------------------------------------------------------------------------------

    def stamp(self) -> tuple[int, int, int] | None:
        """Return what changes whenever somebody replaces the header, None where there is none."""
        try:
            found = os.stat(self.header_path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def header(self, store: str) -> Header:
        """Return what describes the files, of nothing when there is no file for *store*.

        Raises:
            StoreCorrupt: The file is no JSON of ours; the message is a clause that says why.
        """
        try:
            with open_regular(self.header_path) as file:
                found = json.load(file)
            if found["format"] > FORMAT:
                raise StoreTooNew(
                    f"{self.header_path!r} has format {found['format']}, this version of raeburnmemory knows up to "
                    f"{FORMAT}. Install a newer one: pip install -U raeburnmemory"
                )
            if found["store"] != store:
                return Header({}, None)
            fields = {str(name): list(several) for name, several in found["fields"].items()}
            if text_checksum(json.dumps([fields, found["lost"]])) != found["crc32"]:
                raise ValueError("its checksum is wrong")
        except FileNotFoundError:
            return Header({}, None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise StoreCorrupt(f"{self.header_path!r} is damaged: {exc}") from exc
        return Header(fields, found["lost"])

    def described(self, store: str) -> dict[str, list[Description]]:
        """Return the descriptions for somebody who has the vectors: a damaged file describes nothing."""
        try:
            return self.header(store).fields
        except StoreCorrupt:
            return {}

    def read(
        self, field: str, descriptions: list[Description], versions: range, *, cut_short: bool
    ) -> tuple[VectorSet | None, Description]:
        """Return the vectors of *field* and the description that fits them, of one of *versions*.

        None instead of vectors: where a fold was *cut_short*, there was no file yet.

        Raises:
            StoreCorrupt: No file fits a description; the message is a clause that says why.
        """
        reasons = []
        for description in descriptions:
            try:
                version, form = description["version"], description["form"]
                if form is None:
                    if cut_short and version == versions.start:
                        return None, description
                    continue
                path = self.file_of(field, faiss=form == "faiss")
                _check(path, description)
                if version not in versions:
                    raise StoreCorrupt(f"{path!r} is of version {version}, the graph of {versions[-1]}")
                values = read_faiss_flat(path) if form == "faiss" else read_npy(path)
                return self._vectors(values, description), description
            except FileNotFoundError:
                reasons.append(f"{path!r} is missing")
            except (StoreCorrupt, KeyError, ValueError, TypeError) as exc:
                reasons.append(str(exc))
        raise StoreCorrupt(reasons[0] if reasons else f"{self.header_path!r} does not describe {field!r}")

    @staticmethod
    def _vectors(values: NDArray[np.float32], description: Description) -> VectorSet:
        slots = np.fromiter(itertools.islice(from_ranges(description["slots"]), len(values) + 1), np.int64)
        rows = np.array(description["rows"], np.int64)
        if not len(values) == len(slots) == len(rows) == len(description["texts"]):
            raise StoreCorrupt("a file of vectors and its description differ in length")
        spans = np.tile(_WHOLE, (len(rows), 1))
        for at, span in description["spans"].items():
            spans[int(at)] = span
        found = VectorSet(int(description["dim"]))
        found.append(values, rows, slots, spans, int(description["version"]))
        found.next_slot = int(description["next_slot"])
        return found

    def of_other_rows(
        self,
        field: str,
        vectors: VectorSet,
        description: Description,
        row_of: Callable[[str], int],
        text_crc: Callable[[int], int | None],
    ) -> VectorSet:
        """Return the *vectors* of *field* for a graph whose nodes were numbered anew, by the ids in the map.

        Only those stay whose text still has the checksum of the one they were made of. *row_of* gives the row of a
        prompt in the default namespace, -1 for one that is gone; the map knows no others.
        """
        ids: dict[int, str] = {}
        if field == PROMPT:
            with contextlib.suppress(OSError, ValueError, AttributeError), open_regular(self.map_path) as file:
                ids = {at: str(node) for node, at in json.load(file).items()}
        block = vectors.alive()
        rows = [row_of(ids[at]) if at in ids else row for at, row in enumerate(block.rows.tolist())]
        texts = description["texts"]
        kept = np.array([row if row >= 0 and text_crc(row) == texts[at] else -1 for at, row in enumerate(rows)])
        found = VectorSet(vectors.dim)
        found.append(block.values, kept.astype(np.int64), block.slots, block.spans, int(description["version"]))
        found.next_slot = vectors.next_slot
        return found

    def read_original(self, rows: Mapping[str, int]) -> tuple[VectorSet, int] | None:
        """Read the files as the original wrote them; *rows* gives the row of each prompt.

        Returns the vectors and how many were all zero, which is how its stand-in encoder said that it had none;
        None where there are no files.

        Raises:
            StoreCorrupt: The files are damaged or contradict each other; the message is a clause.
        """
        paths = [self.file_of(PROMPT, faiss=True), self.file_of(PROMPT, faiss=False)]
        path = next((path for path in paths if os.path.exists(path)), None)
        if path is None and not os.path.exists(self.map_path):
            return None
        if path is None:
            raise StoreCorrupt(f"{paths[0]!r} is missing")
        if not os.path.exists(self.map_path):
            raise StoreCorrupt(f"{self.map_path!r} is missing")
        values = read_faiss_flat(path) if path.endswith(".faiss") else read_npy(path)
        try:
            with open_regular(self.map_path) as file:
                where = {str(mended(node)): int(row) for node, row in json.load(file).items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as exc:
            raise StoreCorrupt(f"{self.map_path!r} is damaged: {exc}") from exc
        if any(not 0 <= row < len(values) for row in where.values()):
            raise StoreCorrupt(f"{self.map_path!r} names rows that {path!r}, with {len(values)}, does not have")
        if not np.isfinite(values).all():
            raise StoreCorrupt(f"{path!r} holds numbers that are not finite")
        norms = np.linalg.norm(values, axis=1)
        pairs = sorted((rows[node], row) for node, row in where.items() if node in rows)
        kept = [(node, row) for node, row in pairs if norms[row] > 1e-12]
        found = VectorSet(values.shape[1])
        if kept:
            at = np.array([row for _, row in kept])
            nodes = np.array([node for node, _ in kept], np.int64)
            found.append(values[at] / norms[at, None], nodes, np.arange(len(at)), np.tile(_WHOLE, (len(at), 1)), 0)
        return found, len(pairs) - len(kept)

    # --- writing ------------------------------------------------------------------------------------------------

    def prepare(
        self,
        store: str,
        version: int,
        fields: dict[str, FieldSnapshot],
        text_crc: Callable[[int], int],
        prompt_ids: Callable[[int], str | None],
        model: Any,
        base: int | None,
        lost: str | None,
        suffix: str,
        begin: Callable[[], None] = at_once,
    ) -> list[tuple[str, str]]:
        """Write every file under its name plus *suffix*, synced; *begin* is called once each is there, still empty.

        Returns (temporary, final) pairs in the order in which they must be put in place: the header before, the
        map after the files. What they replace stays described in the header. *base* is the version of the files that
        are there, None where vectors were lost; *lost* says so until they are made again.
        """
        faiss = installed("faiss")
        before = self.described(store)
        # A field without a file so far: a fold that is cut short leaves all its vectors to the journal.
        none_yet: list[Description] = [{"form": None, "version": base}] if base is not None else []
        described: dict[str, list[Description]] = {}
        files: list[tuple[str, str]] = []
        for name, snapshot in sorted(fields.items()):
            if not len(snapshot.block.slots):
                continue
            path = self.file_of(name, faiss=faiss)
            write = write_faiss_flat if faiss else write_npy
            size, digest = _write(path + suffix, partial(_fill, write, snapshot.block.values), begin)
            files.append((path + suffix, path))
            rows = snapshot.block.rows.tolist()
            described[name] = [
                {
                    "form": "faiss" if faiss else "npy",
                    "bytes": size,
                    "sha256": digest,
                    "version": version,
                    "model": model,
                    "dim": snapshot.dim,
                    "next_slot": snapshot.next_slot,
                    "slots": to_ranges(snapshot.block.slots),
                    "rows": rows,
                    "texts": [text_crc(row) for row in rows],
                    "spans": {
                        int(at): snapshot.block.spans[at].tolist()
                        for at in np.flatnonzero((snapshot.block.spans != _WHOLE).any(axis=1))
                    },
                },
                *(self._present(name, before[name]) if name in before else none_yet),
            ]
        for name, several in before.items():  # a field that goes: described until its file is gone
            described.setdefault(name, self._present(name, several))
        described = json.loads(json.dumps(described))  # keys become strings, as they will be read back
        self._write_header(store, described, lost, suffix, begin)
        pairs = [(self.header_path + suffix, self.header_path), *files]
        if PROMPT in fields and len(fields[PROMPT].block.slots):
            where: dict[str, int] = {}
            for at, row in enumerate(fields[PROMPT].block.rows.tolist()):
                node = prompt_ids(row)
                if node is not None:
                    where.setdefault(node, at)
            _write(self.map_path + suffix, lambda out: out.write(json.dumps(where).encode()), begin)
            pairs.append((self.map_path + suffix, self.map_path))
        return pairs

    def _write_header(
        self, store: str, described: dict[str, Any], lost: str | None, suffix: str, begin: Callable[[], None]
    ) -> None:
        crc = text_checksum(json.dumps([described, lost]))
        header = {"format": FORMAT, "store": store, "crc32": crc, "lost": lost, "fields": described}
        _write(self.header_path + suffix, lambda out: out.write(json.dumps(header).encode()), begin)

    def prepare_settled(self, store: str, suffix: str) -> list[tuple[str, str]]:
        """Write a header that describes the files that are there, none that they replaced, and return its pair."""
        header = self.header(store)
        described = {name: self._present(name, several) for name, several in header.fields.items()}
        described = {name: several for name, several in described.items() if self._fits(name, several[0])}
        self._write_header(store, described, header.lost, suffix, at_once)
        return [(self.header_path + suffix, self.header_path)]

    def _fits(self, field: str, description: Description) -> bool:
        # A file that cannot be read just now may fit all the same: that is for the caller.
        with contextlib.suppress(FileNotFoundError, StoreCorrupt, KeyError):
            if description["form"] is not None:
                _check(self.file_of(field, faiss=description["form"] == "faiss"), description)
                return True
        return False

    def _present(self, field: str, several: list[Description]) -> list[Description]:
        """Return the description of the file that is there; after a fold that was cut short it may be the second."""
        for description in several:
            with contextlib.suppress(OSError, StoreCorrupt, KeyError):
                _check(self.file_of(field, faiss=description["form"] == "faiss"), description)
                return [description]
        return several

    def existing(self, fields: set[str]) -> list[str]:
        """Return the files of *fields* that are there."""
        return [path for path in self.names(fields) if path != self.header_path and os.path.exists(path)]

    def beside(self) -> list[str]:
        """Return all files that are named as those of vectors are, whatever is known of their fields.

        None that belong to a memory with a longer name: `graph.json.b.faiss` is of `graph.json.b`, if that is there.
        """
        found = []
        for name in beginning(f"{self.path}."):
            field = _NAMED.fullmatch(name[len(self.path) :])
            if field is not None and not (field[1] and os.path.lexists(self.path + field[1])):
                found.append(name)
        return found

    def names(self, fields: set[str]) -> list[str]:
        """Return every path that *fields* may have, in either format, the map's and the header's."""
        paths = [self.file_of(field, faiss=faiss) for field in sorted(fields) for faiss in (True, False)]
        return [*paths, self.map_path, self.header_path]

    def remove_stale(self, kept: set[str], known: set[str]) -> None:
        """Remove the files of fields that are gone, and of the other format, once a fold is complete."""
        for path in self.existing(known):
            if path not in kept:
                os.unlink(path)


def _check(path: str, description: dict[str, Any]) -> None:
    size = os.stat(path).st_size
    if size != description["bytes"]:
        raise StoreCorrupt(f"{path!r} has {size} bytes instead of {description['bytes']}")
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != description["sha256"]:
        raise StoreCorrupt(f"{path!r} is damaged: its SHA-256 differs from the one recorded")


class _Digesting:
    """A file that digests what passes through it."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "wb", buffering=1 << 20)
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.sha256.update(view)
        self.size += len(view)
        return self._file.write(view)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _write(path: str, fill: Callable[[Any], Any], begin: Callable[[], None]) -> tuple[int, str]:
    """Write a file, synced; return its length and SHA-256. *begin* is called once it is there and still empty."""
    try:
        out = _Digesting(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        try:
            begin()
            fill(out)
        finally:
            out.close()
    except OSError as exc:
        raise write_failed("write", path, exc) from exc
    return out.size, out.sha256.hexdigest()


def _fill(write: Callable[[Any, Any], Any], values: Any, out: Any) -> None:
    write(out, values)


def text_checksum(text: str | None) -> int:
    """Return the CRC-32 of a text, by which a vector recognises what it was made of."""
    return zlib.crc32((text or "").encode("utf-8", "surrogatepass"))
