"""A collection of Qdrant and whose it is: made, marked, filled, compared, deleted.

Its name is an alias; the collection behind it has a name that is never used again, so that whoever still searches one
that was replaced is told so, and does not find another memory's vectors. A point's id is its slot. One point without a
vector, the marker, says whose collection it is, which version of the store it is at, and which one it is being brought
to. The first is written after the points, the second before them: who finds a version there that the memory never had
is another copy of it, and makes a collection of its own. One that was left half full is compared with the store by the
checksums of its vectors, and completed.
"""

from __future__ import annotations

import logging
import re
import uuid
import weakref
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from qdrant_client import models

from ..errors import IndexMismatch, IndexUnavailable
from ._qdrant_place import LostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from . import Owner
    from ._qdrant_place import Connection
    from .qdrant import Qdrant

__all__ = ["VECTOR", "Collection"]

log = logging.getLogger("raeburnmemory")

VECTOR = "text"  # its name in every point: only named vectors may be absent, as the marker's is
_MARKER = str(uuid.uuid5(uuid.NAMESPACE_URL, "raeburnmemory marker"))
_FORMAT = 1  # of the marker and of points
_NUMBERS = 1 << 17  # in one request: some 2.5 MB as JSON; a server takes 32
_PAGE = 10_000  # ids in one request
_FEW = 1000  # payloads in one request
_INDEXED: dict[str, Any] = {
    "slot": models.PayloadSchemaType.INTEGER,
    # What is searched together lies together.
    "namespace": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "kind": models.PayloadSchemaType.KEYWORD,
    "session": models.PayloadSchemaType.KEYWORD,
    "agent": models.PayloadSchemaType.KEYWORD,
    "time": models.PayloadSchemaType.FLOAT,
}

At = tuple[int, "str | None"]  # a version, and its mark
NOWHERE: At = (-1, None)


class _Present(NamedTuple):
    """What is in a collection: ascending ids, and the checksum of each vector."""

    slots: NDArray[np.int64]
    sums: NDArray[np.int64]


class Collection:
    """The collection of an owner, or one that goes when this goes. Nothing is asked before it has to be."""

    def __init__(self, settings: Qdrant, connection: Connection, dim: int) -> None:
        self._settings, self._connection, self._dim = settings, connection, dim
        self.owner: Owner | None = None
        self.name: str | None = None  # behind the alias
        self.at: At = NOWHERE  # the version that is here
        self._aim: At | None = None  # the one that is on its way, and not announced yet
        self._announced: At = NOWHERE
        self._present: _Present | None = None  # what was there of one that was left half full, until it is full
        self._dropping: weakref.finalize[..., Any] | None = None

    @property
    def shown(self) -> str:
        """The collection, for messages."""
        name = "" if self.owner is None else f" {self._alias!r}"
        return f"The collection{name} of Qdrant {self._settings.place.shown}"

    @property
    def full(self) -> bool:
        """Whether it was caught up with the store once."""
        return self._present is None and self.at[0] >= 0

    def ask(self, method: str, **options: Any) -> Any:
        """Ask for something about this collection."""
        return self._connection.ask(method, self.name, **options)

    # --- points -------------------------------------------------------------------------------------------------

    def upload(self, slots: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Write points, but for those that are there already, in batches."""
        if self.name is None:
            self._create()
        self._announce()
        sums = np.array([zlib.crc32(row.tobytes()) for row in rows.astype("<f4", copy=False)], np.int64)
        if self._present is not None:
            new = ~_equal(self._present, slots, sums)
            slots, rows, sums = slots[new], rows[new], sums[new]
        step = self.at_once
        for start in range(0, len(slots), step):
            part = slice(start, start + step)
            about: Sequence[dict[str, Any]] = [{}] * len(slots[part])
            if self.owner is not None:
                about = self.owner.describe(slots[part])
            payloads = [
                {"slot": slot, "sum": total, **more}
                for slot, total, more in zip(slots[part].tolist(), sums[part].tolist(), about, strict=True)
            ]
            batch = models.Batch(ids=slots[part].tolist(), vectors={VECTOR: rows[part].tolist()}, payloads=payloads)
            self.ask("upsert", points=batch, wait=True)

    @property
    def at_once(self) -> int:
        """How many vectors go into one request."""
        return max(1, _NUMBERS // self._dim)

    def delete(self, slots: NDArray[np.int64]) -> None:
        """Delete those of *slots* that are there."""
        if self.name is None or not len(slots):
            return
        self._announce()
        for start in range(0, len(slots), _PAGE):
            some = models.PointIdsList(points=slots[start : start + _PAGE].tolist())
            self.ask("delete", points_selector=some, wait=True)

    def describe(self, slots: NDArray[np.int64]) -> None:
        """Write anew what the owner says about the texts of *slots*."""
        if not len(slots):
            return
        assert self.owner is not None
        self._announce()
        for start in range(0, len(slots), _FEW):
            some = slots[start : start + _FEW]
            operations = [
                models.SetPayloadOperation(set_payload=models.SetPayload(payload=more, points=[slot]))
                for slot, more in zip(some.tolist(), self.owner.describe(some), strict=True)
            ]
            self.ask("batch_update_points", update_operations=operations, wait=True)

    def count(self, last: int) -> int:
        """Return how many points there are up to slot *last*."""
        upto = models.FieldCondition(key="slot", range=models.Range(lte=last))
        return int(self.ask("count", count_filter=models.Filter(must=[upto]), exact=True).count)

    def compare(self) -> None:
        """See what is there: of that, `upload` writes nothing again, until `strangers` asks what was not uploaded."""
        ids: list[int] = []
        sums: list[int] = []
        offset = None
        while True:
            records, offset = self.ask("scroll", limit=_PAGE, offset=offset, with_payload=["sum"], with_vectors=False)
            there = [record for record in records if isinstance(record.id, int)]
            ids += [record.id for record in there]
            sums += [(record.payload or {}).get("sum", -1) for record in there]
            if offset is None:
                order = np.argsort(ids)
                self._present = _Present(np.array(ids, np.int64)[order], np.array(sums, np.int64)[order])
                return

    def strangers(self) -> NDArray[np.int64]:
        """Return what `compare` found that the store holds no more."""
        if self._present is None:
            return np.empty(0, np.int64)
        assert self.owner is not None
        there, self._present = self._present.slots, None
        # What others wrote is in the store before it is here, so that whatever is not there now is gone for good.
        return there[~np.isin(there, self.owner.slots())]

    # --- whose it is, and how far it has come -------------------------------------------------------------------

    @property
    def _alias(self) -> str:
        assert self.owner is not None
        first = self._settings.collection or f"raeburnmemory_{self.owner.store}"
        return f"{first}_{re.sub(r'[^0-9A-Za-z_-]', '-', self.owner.field)}"

    def find(self) -> int | None:
        """Look for the collection of the owner, and return the last slot in it if it can be gone on with.

        None if there is none, or if it has to be filled again, of which what is there is passed over.

        Raises:
            IndexMismatch: There is a collection of that name, and it is somebody else's.
        """
        marker = self._marker()
        if marker is None:
            return None
        if marker["dim"] != self._dim or not (self._same_past(marker["at"]) and self._same_past(marker["announced"])):
            log.info("%s is of another model or past of the memory, and is made anew.", self.shown)
            return None
        self.name = marker["collection"]
        version, mark = marker["at"]
        assert self.owner is not None
        if version < 0 or self.owner.mark(version) is None:
            self.compare()
            return None
        self.at, self._announced = (version, mark), tuple(marker["announced"])
        return int(marker["last"])

    def _marker(self) -> dict[str, Any] | None:
        """Return what is noted in the collection of the owner; None if there is no such collection."""
        owner = self.owner
        assert owner is not None
        try:
            records = self._connection.ask("retrieve", self._alias, [_MARKER], with_payload=True)
        except LostError:
            return None
        marker: dict[str, Any] = (records[0].payload if records else None) or {}
        if marker.get("made_by") != "raeburnmemory":
            raise IndexMismatch(
                f"{self.shown} was not made for a memory. Choose another name: Qdrant(…, collection=…)."
            )
        if marker["format"] > _FORMAT:
            raise IndexMismatch(f"{self.shown} was made by a newer version. Install it: pip install -U raeburnmemory")
        if marker["store"] != owner.store or marker["field"] != owner.field:
            raise IndexMismatch(
                f"{self.shown} holds vectors of another memory (its id is {marker['store']}, that of "
                f"{owner.location!r} is {owner.store}). Choose another name: Qdrant(…, collection=…); or delete the "
                f"collection there."
            )
        return marker

    def _same_past(self, at: Sequence[Any]) -> bool:
        """Tell whether the store may have been where the collection was: not if it is a copy that went its own way."""
        assert self.owner is not None
        version, mark = at
        known = self.owner.mark(version) if version >= 0 else None
        return bool(known == mark) if known is not None else version <= self.owner.version()

    def reaching(self, version: int, mark: str | None) -> None:
        """Note that what is written from now on leads to *version*."""
        self._aim = version, mark

    def _announce(self) -> None:
        """Say where it is about to be brought, before it is; make sure that it was not taken over by a copy."""
        if self._aim is None or self.owner is None:
            return
        marker = self._marker()
        if marker is None or marker["collection"] != self.name or not self._same_past(marker["announced"]):
            raise LostError(f"{self.shown} was taken over by a copy of {self.owner.location!r}")
        self._announced, self._aim = self._aim, None
        self._write_marker(marker["last"])

    def arrived(self, version: int, mark: str | None) -> None:
        """Note here that everything up to *version* is there."""
        self.at, self._aim = (version, mark), None

    def note(self, last: int) -> None:
        """Note it in the collection as well: what comes after slot *last* is not there yet."""
        if self.name is not None:
            self._write_marker(last)

    def _write_marker(self, last: int) -> None:
        assert self.owner is not None
        payload = {
            "made_by": "raeburnmemory",
            "format": _FORMAT,
            "store": self.owner.store,
            "field": self.owner.field,
            "dim": self._dim,
            "collection": self.name,
            "at": self.at,
            "announced": self._announced,
            "last": last,
        }
        self.ask("upsert", points=[models.PointStruct(id=_MARKER, vector={}, payload=payload)], wait=True)

    # --- made and deleted ---------------------------------------------------------------------------------------

    def _create(self) -> None:
        """Make a collection, and let the alias lead to it; one that led there before is deleted."""
        settings, ask = self._settings, self._connection.ask
        alias = "raeburnmemory_loose" if self.owner is None else self._alias
        name = f"{alias}_{uuid.uuid4().hex[:12]}"
        on_disk = True if settings.on_disk else None
        vectors = models.VectorParams(size=self._dim, distance=models.Distance.DOT, on_disk=on_disk)
        ask(
            "create_collection",
            name,
            vectors_config={VECTOR: vectors},
            shard_number=settings.shards,
            replication_factor=settings.replicas,
        )
        for key, kind in () if settings.place.local else _INDEXED.items():
            ask("create_payload_index", name, key, field_schema=kind, wait=True)
        self.name = name
        if self.owner is None:
            self._dropping = weakref.finalize(self, _forget, self._connection, name)
            return
        if self._aim is not None:
            self._announced, self._aim = self._aim, None
        self._write_marker(-1)
        remove = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))  # if there is one
        create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))
        ask("update_collection_aliases", [remove, create])
        # What a crash left behind before an alias led to it goes, too. Whoever is just making one begins again.
        left = re.compile(re.escape(alias) + "_[0-9a-f]{12}")
        for other in ask("get_collections").collections:
            if left.fullmatch(other.name) and other.name != name:
                self._connection.delete(other.name)

    def drop(self) -> None:
        """Delete the collection of the owner."""
        name = self.name
        if name is None and (marker := self._marker()) is not None:
            name = marker["collection"]
        if name is not None:
            self._connection.delete(name)
        self.name = self._present = None
        self.at = self._announced = NOWHERE


def _forget(connection: Connection, name: str) -> None:
    try:
        connection.delete(name)
    except IndexUnavailable as exc:
        log.info("The collection %r is left behind: %s", name, exc)


def _equal(present: _Present, slots: NDArray[np.int64], sums: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which of *slots* are present, with the same vector as far as checksums tell."""
    if not len(present.slots):
        return np.zeros(len(slots), np.bool_)
    at = np.minimum(np.searchsorted(present.slots, slots), len(present.slots) - 1)
    return np.asarray((present.slots[at] == slots) & (present.sums[at] == sums))
