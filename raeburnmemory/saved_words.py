"""What recall knows of a namespace, saved beside the store: a cache, which the next process begins with.

It is of one version of the store, and used if the store remembers that version; what came since is caught up. One
file a namespace, checked before anything in it is used.
"""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import TYPE_CHECKING

from .corpus import made_by
from .errors import LockTimeout
from .index._columns import scratch_beside
from .index._parts_file import read_parts, write_parts
from .nodes import DEFAULT_NAMESPACE
from .related import RelatedWords

if TYPE_CHECKING:
    from .corpus import Corpus
    from .store import Store

__all__ = ["SavedWords", "saved_as"]

log = logging.getLogger("raeburnmemory")

_SAVE_AFTER, _SHARE = 1000, 10  # it is worth saving after so many new nodes, and one in ten


class SavedWords:
    """The saved words of one namespace of a store."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store, self._namespace = store, namespace
        self._path = store.cache_path(saved_as(namespace))
        self._version = 0  # that of what was saved

    def _stamp(self, corpus: Corpus) -> dict[str, object]:
        return {"store": self._store.id, "namespace": self._namespace, "made by": made_by(corpus.words)}

    def load(self, corpus: Corpus) -> RelatedWords | None:
        """Let *corpus* begin with what was saved, if it is of this store's past; return what came with it."""
        if self._path is None:
            return None
        scratch = scratch_beside(self._path, read_only=self._store.read_only)
        found = read_parts(self._path, self._stamp(corpus), scratch)
        if found is None:
            return None
        stamp, parts = found
        version, mark = stamp.get("version"), stamp.get("mark")
        if not isinstance(version, int) or not mark or mark != self._store.mark(version):
            return None
        try:
            related = RelatedWords(corpus.words, parts)
            corpus.begin(parts, version)
        except (KeyError, ValueError) as exc:
            log.warning("The cache %r is not used and will be made anew: it lacks a part (%s).", self._path, exc)
            return None
        related.index, self._version = corpus.words, version
        return related

    def worth_saving(self, corpus: Corpus) -> bool:
        """Tell whether so much came since it was saved, or nobody could tell what came since."""
        if self._path is None or self._store.read_only or not corpus.unsaved or len(corpus) <= _SAVE_AFTER:
            return False
        return corpus.unsaved > max(_SAVE_AFTER, len(corpus) // _SHARE) or not self._store.remembers(self._version)

    def save(self, corpus: Corpus, related: RelatedWords | None) -> None:
        """Save what is known, unless it may have been erased since the corpus caught up."""
        try:
            with self._store.exclusive():  # nobody may erase meanwhile what is written here
                mark = self._store.mark(corpus.version)
                if self._path is None or mark is None:
                    return
                if related is None or related.index is not corpus.words:
                    related = RelatedWords(corpus.words)
                stamp = {**self._stamp(corpus), "version": corpus.version, "mark": mark}
                write_parts(self._path, stamp, {**corpus.to_parts(), **related.to_parts()})
                corpus.unsaved, self._version = 0, corpus.version
        except LockTimeout as exc:
            log.warning("The words are not saved, and will be collected again: %s", exc)


def saved_as(namespace: str) -> str:
    """Return the name under which the words of *namespace* are saved: it may be called anything, a file may not."""
    if namespace == DEFAULT_NAMESPACE:
        return "words"
    return f"words-{sha256(namespace.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
