"""A store in JSON files: `graph.json`, a journal of what came since, and the vectors beside them.

A write appends one line to the journal and costs the same at any size. Now and then the whole is *folded*: a new
`graph.json` and new vector files are written beside the old ones without the lock; then, under it, what came
meanwhile goes into a new journal, and all are renamed into place. The order of the renames (description of the
vectors, graph, vectors, journal) and the versions in each file make every state in between readable.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
import time
import uuid
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from .._collector import no_collections
from ..errors import LockTimeout, MemoryGraphError, ReadOnly, StoreCorrupt, StoreError, StoreMissing, StoreWriteFailed
from ..lock import StoreLock
from ..nodes import DEFAULT_NAMESPACE, PROMPT, Batch
from ._copies import Copies, asked
from ._files import SupersededError, copy_file, discard, now, settled, sweep, sync_folder, write_failed
from ._packed import ID, NAMESPACE, ROW, TEXT
from .contract import ERASING, Erased
from .group_commit import Section, runs
from .journal import Journal, boot, decode_batch, encode_batch, version_of
from .json_assembly import Assembled, assembled, expect
from .memory import MemoryStore
from .snapshot import GraphFile, Snapshot, file_stamp
from .state import State
from .vector_files import VectorFiles, text_checksum

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from ..nodes import Changes
    from .contract import VectorChanges

__all__ = ["JsonStore"]

log = logging.getLogger("raeburnmemory")

_SMALL = 4 << 20  # a journal and a graph below this are folded on close()
_LEAST = 1 << 20  # a journal below this is never folded while adding
_TRIES = 50  # how often a reader starts over while others fold


class JsonStore(MemoryStore):
    """The `Store` contract over `graph.json` and its neighbours."""

    name = "json"

    def __init__(self, path: Path, *, read_only: bool = False, timeout: float = 30.0, durability: str = "full") -> None:
        if not hasattr(os, "pread"):  # nor can a fold put new files in the place of those that somebody has open there
            raise StoreWriteFailed(
                errno.ENOTSUP,
                f"{str(path)!r} would be JSON files, which need a POSIX system: use WSL here, or a file that ends in "
                f".db, which SQLite keeps",
            )
        super().__init__()
        self.durability = durability
        self._boot = None if durability == "full" else boot()
        self.read_only = read_only
        self.location = self._path = str(path)
        self._journal_path = self._path + ".journal"
        self._vectors = VectorFiles(self._path)
        self._journal: Journal | None = None
        self._stamp = (0, 0, 0)  # of graph.json as we know it
        self._snapshot_bytes = 0  # of graph.json and the vectors: what the next fold will write anew
        self._journal_floor = 0  # after a failed fold: try again only once the journal is longer than this
        self._foreign = False  # graph.json was written by something else; fold before appending
        self._lost: str | None = None
        self._fields: set[str] = set()  # those that the files said there are vectors of, lost ones too
        self._midst: FrameType | None = None  # what changes the state now, where a signal handler may interrupt it
        self._marked = False  # the files say themselves that vectors are lost
        self._opened = False
        self._waiting: list[tuple[Batch, int]] = []  # with their versions: in the journal's buffer, not in the state
        self._ahead = False  # the state has what is not in the file yet
        self._section = Section(self, self._mutex)
        self._folding = False  # a thread of this process is at it, because the journal has grown
        self._pid = os.getpid()
        self._lock = None if read_only else self._new_lock(timeout)
        try:
            settled(self._path)
            if not os.path.exists(self._path):
                if read_only:
                    raise StoreMissing(
                        2, f"There is no memory at {self._path!r}. Check the path, or create it by writing to it"
                    )
                self._create()
            with self._mutex.lock:
                self._load()
        except BaseException:
            if self._lock is not None:
                self._lock.close()
            raise

    # --- being current ------------------------------------------------------------------------------------------

    def _current(self) -> State:
        if self._closed:
            super()._current()  # says so
        if os.getpid() != self._pid:
            self._after_fork()
        elif self._section.mine:
            if self._waiting and (self._midst is None or not self._amidst()):
                self._apply_waiting()
            elif self._journal is None:  # it was left after an interruption, perhaps
                self._look()
        else:
            if self._section.pending:
                self._section.settle()
            if not (self._section.busy or self._held):
                self._look()
        return self._state

    def _apply_waiting(self) -> None:
        for batch, version in self._waiting:
            self._state.apply(batch, version)
        self._waiting, self._ahead = [], True

    def _amidst(self) -> bool:
        """Tell whether this is called, by a signal handler perhaps, while the same thread changes the state."""
        return runs(self._midst, sys._getframe())  # noqa: SLF001

    def _new_lock(self, timeout: float) -> StoreLock:
        from pathlib import Path

        self._section.lock = StoreLock(Path(self._path), timeout, self._section.settle, self._follow)
        return self._section.lock

    def _follow(self) -> None:
        """Take in what another process writes while this thread waits for it to let go of the lock."""
        if not self._mutex.take(0.0):  # a reader has it, perhaps for longer than this thread may wait
            return
        try:
            if self._opened and not (self._closed or self._held):
                self._look()
        except (MemoryGraphError, OSError):
            pass  # whoever enters the section looks again, and says so
        finally:
            self._mutex.lock.release()

    def _look(self) -> bool:
        """Catch up with what others committed; the mutex is held. Tell whether nothing stands after what was known."""
        if self._midst is not None and self._amidst():
            return True
        try:
            self._midst = sys._getframe()  # noqa: SLF001
            return self._catch_up()
        except Exception:
            raise
        except BaseException:
            self._start_anew()
            raise
        finally:
            self._midst = None

    def _start_anew(self) -> None:
        """Read all of it the next time: an interruption left it half read, or half written."""
        self._waiting, self._ahead = [], False
        journal, self._journal, self._stamp = self._journal, None, (0, 0, 0)
        if journal is not None:
            journal.close()

    def _catch_up(self) -> bool:
        journal = self._journal
        try:
            graph = os.stat(self._path)
            entry = os.stat(self._journal_path) if journal else None
        except OSError:
            self._load()
            return False
        if journal is None or entry is None:
            if file_stamp(graph) != self._stamp or os.path.exists(self._journal_path):
                self._load()
        elif entry.st_ino != journal.inode or file_stamp(graph) != self._stamp:
            self._switch()
        elif entry.st_size < journal.offset:
            self._start_over()
        elif entry.st_size == journal.offset:
            if self._section.mine or journal.as_read(entry.st_ctime_ns):  # in a section its last line was looked at
                return True
            self._start_over()
        else:
            try:
                self._replay(journal, self._state)
            except StoreCorrupt:  # or a line that was read before was taken back, as its sync failed
                self._start_over()
        return False

    def _taken_back(self) -> bool:
        """Tell whether the last line is not there any more: its sync failed, or a copy was put in its place."""
        return self._journal is not None and not self._journal.stands()

    def _start_over(self) -> None:
        """Read everything, and let everybody do so who knows of a version of which a line was taken back."""
        before = self._state.version
        self._load()
        state = self._state
        state.known_since = state.known_vectors_since = max(before, state.version) + 1

    def _after_fork(self) -> None:
        # The file descriptors are shared with the parent, and so would be its lock.
        self._pid, self._waiting, self._ahead, self._midst = os.getpid(), [], False, None
        self._section.renew()
        if self._lock is not None:
            self._lock = self._new_lock(self._lock.timeout)
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._load()

    def _switch(self) -> None:
        """Go on with the journal that a fold put in place, if it continues what is in memory."""
        old, fresh, state, taken_back = self._journal, None, self._state, False
        if not self._foreign and self._lost is None:
            fresh = Journal.open(self._journal_path, read_only=self.read_only)
        try:
            if old is not None and fresh is not None and fresh.store == self.id and old.base < fresh.base:
                self._replay(old, state)  # it has a name no more, but all its lines
                taken_back = not old.stands()
                # What was erased is to leave the memory of this process, too.
                if not taken_back and fresh.base <= state.version and ERASING not in state.meta:
                    self._stamp = file_stamp(os.stat(self._path))
                    self._note_sizes(self._stamp[1])
                    self._replay(fresh, state)
                    self._journal, fresh = fresh, None
                    old.close()
                    return
        except StoreCorrupt:  # where a line that was read before was taken back, others stand in its place
            taken_back = True
        finally:
            if fresh is not None:
                fresh.close()
        self._start_over() if taken_back else self._load()

    def _replay(self, journal: Journal, state: State) -> None:
        for fields in journal.lines():
            version = fields["version"]
            if version > state.version:
                expect(self._journal_path, version, state.version + 1)
                state.apply(decode_batch(fields), version)

    def _load(self) -> None:
        """Read everything from the files."""
        for attempt in range(_TRIES):
            settled(self._path)
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            journal = Journal.open(self._journal_path, read_only=self.read_only)
            try:
                with no_collections():
                    graph = GraphFile.read(self._path, None if journal is None else journal.digest)
                    if self._same_file(journal):
                        described = self._vectors.stamp()
                        made = assembled(graph, journal, self._vectors)
                        # A fold replaces the header before the vectors: those of the next one do not fit this one.
                        if made.lost is None or self._vectors.stamp() == described:
                            self._take(made, graph)
                            self._journal, journal = journal, None
                            return
            except FileNotFoundError as exc:
                what = "its journal is still there" if journal else "it was there a moment ago"
                raise StoreMissing(2, f"{self._path!r} is missing; {what}. Put it back, or remove both") from exc
            except StoreCorrupt:
                if attempt:  # once more: the files may just have been exchanged for those of another store
                    raise
            except MemoryGraphError:
                raise  # some of ours are OSErrors, too
            except OSError as exc:
                raise write_failed("read", exc.filename or self._path, exc) from exc
            finally:
                if journal is not None:
                    journal.close()
            time.sleep(0.001 * attempt)  # somebody folds right now: the files belong to two generations
        raise StoreCorrupt(f"{self._journal_path!r} is replaced again and again by another program. Stop that one.")

    def _same_file(self, journal: Journal | None) -> bool:
        try:
            inode = os.stat(self._journal_path).st_ino
        except FileNotFoundError:
            return journal is None
        return journal is not None and inode == journal.inode

    def _take(self, made: Assembled, graph: GraphFile) -> None:
        self.id = made.store or self.id
        self._state, self._foreign, self._stamp = made.state, made.foreign, graph.stamp
        self._lost, self._marked, self._fields = made.lost, made.marked, made.fields
        self._note_sizes(graph.size)
        if not self._opened and not made.foreign:
            # Nobody can have asked this process for an earlier version: what is known of one was saved, with its mark.
            made.state.known_since = made.since
        self._opened = True

    def _note_sizes(self, graph_size: int) -> None:
        self._snapshot_bytes = graph_size + sum(vectors.dim * 4 * len(vectors) for vectors in self._state.sets.values())

    # --- writing ------------------------------------------------------------------------------------------------

    def exclusive(self) -> Section:
        """Keep other writers, in any thread or process, out of the block."""
        if self._lock is None:
            raise ReadOnly(f"{self._path!r} was opened with read_only=True. Open it without to change it.")
        if self._closed or os.getpid() != self._pid:
            with self._mutex.lock:
                super()._current()
                self._after_fork()
        return self._section

    def _begin_section(self) -> None:
        if self._closed:
            super()._current()  # says so
        if self._section.pending:
            return
        if self._taken_back():
            self._start_over()  # a line appended to another one than is there would be damage
        if (self._held or not self._look()) and self._journal is not None:
            self._cut(self._journal)

    def _cut(self, journal: Journal) -> None:
        """Cut off what a crash left behind the last whole line of *journal*."""
        rest = journal.rest()
        if rest and journal.power_failed():
            aside = f"{self._journal_path}.damaged-{now(self._path, 'damaged')}"
            try:
                copy_file(self._journal_path, aside)
            except OSError as exc:
                raise write_failed("write", aside, exc) from exc
            log.warning(
                "A power cut took the newest changes of %r, which were written with durability='process': %d bytes "
                "after version %d cannot be read. They are kept in %r",
                self._path,
                rest,
                self._state.version,
                aside,
            )
        if rest:
            journal.cut()

    def _after_section(self) -> None:
        if not self._fold_due():
            return
        self._folding = True
        try:
            self.fold()
        except (StoreError, LockTimeout) as exc:
            # What was written is safe in the journal; only its tidying has to wait.
            log.warning("%s (the changes are safe in %r)", exc, self._journal_path)
            with self._mutex.lock:
                self._journal_floor = 2 * self._journal.offset if self._journal else 0
        finally:
            self._folding = False
            with self._mutex.lock:
                if self._journal is not None:
                    self._journal.release()

    def _commit(self, batch: Batch, state: State) -> int:
        self._section.may_write()
        try:
            return self._append(batch, state)
        except Exception:
            raise
        except BaseException:
            self._section.interrupted()
            raise

    def _append(self, batch: Batch, state: State) -> int:
        journal = self._journal
        if journal is None or self._foreign or not (self._section.pending or journal.intact()):
            # The lock is held, so another one's lines are there only where somebody deleted its file.
            self._look()
            if self._foreign or self._journal is None:
                self._adopt()
            if self._state is not state:
                state = self._state
            state.check(batch)
            journal = self._journal
            if journal is None:  # somebody put files there while ours were written, without the lock
                raise StoreCorrupt(f"Files of {self._path!r} are replaced by another program. Stop that one.")
        version = state.version + 1
        journal.add(encode_batch(batch, version, unsynced=self._boot, joined=self._section.pending is not None))
        self._waiting.append((batch, version))
        self._section.wrote()
        return version

    def _sync_pending(self) -> None:
        if not (self._waiting or self._ahead):
            return
        journal = self._journal
        assert journal is not None
        try:
            journal.flush(sync=self._boot is None)
        except Exception:
            ahead, self._waiting, self._ahead = self._ahead, [], False
            if ahead:
                self._load()  # without what is not in the file
            raise
        try:
            self._midst = sys._getframe()  # noqa: SLF001
            for batch, version in self._waiting:
                self._state.apply(batch, version)
            self._waiting, self._ahead = [], False
        finally:
            self._midst = None

    def _adopt(self) -> None:
        """Make files that something else wrote ours, keeping a copy of the graph; the lock is held."""
        if self._foreign:
            copy = self._path + ".original"
            if not os.path.exists(copy):
                try:
                    copy_file(self._path, copy)
                except OSError as exc:
                    raise write_failed("write", copy, exc) from exc
                log.warning("%r was not written by this version; it is kept as %r", self._path, copy)
            self._foreign = False
        self.fold()

    def _fold_due(self) -> bool:
        journal = self._journal  # without the mutex: who folds takes it, and looks again
        if journal is None or self._closed or self._folding or journal.offset <= _LEAST:
            return False
        least = max(_LEAST, self._snapshot_bytes // 2, self._journal_floor)
        if journal.offset <= least:
            return False
        with self._mutex.lock:
            journal = self._journal
            # One process does it for all, unless it takes as long as this: it may be stopped.
            return journal is not None and (journal.claim() or journal.offset > 2 * least)

    def fold(self, *, mended: bool = False) -> None:
        """Write everything into `graph.json` and the vector files, and start a new journal.

        Vectors that were lost stay marked as lost until somebody who made them again says that they are *mended*.

        Raises:
            StoreWriteFailed: The disk refused; the store is as it was.
        """
        if self._lock is None:
            raise ReadOnly(f"{self._path!r} was opened with read_only=True. Open it without to change it.")
        suffix = f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        if self._section.mine:
            self._section.sync()
        with self._mutex.lock:
            state = self._current()
            snapshot = Snapshot.of(state, self.id)
            journal = self._journal
            inode = journal.inode if journal else None
            base = (self._journal.base if self._journal else 0) if self._lost is None else None
        rows = {node[ROW]: node for node in snapshot.nodes}

        @cache  # a long text has many vectors
        def crc(row: int) -> int:
            return text_checksum(rows[row][TEXT])

        temporary = [self._path + suffix, self._journal_path + suffix]
        begin = partial(self._still_wanted, inode)
        try:
            digest, size = snapshot.write(temporary[0], begin)
            pairs = self._vectors.prepare(
                self.id,
                snapshot.version,
                snapshot.fields,
                crc,
                lambda row: rows[row][ID] if rows[row][NAMESPACE] == DEFAULT_NAMESPACE else None,
                snapshot.meta.get("embedder"),
                base,
                None if mended else self._lost,
                suffix,
                begin,
            )
            with self._lock(), self._mutex.lock:
                self._current()
                if self._journal is not journal or self._taken_back():
                    return  # somebody else folded meanwhile, or not all that is in this snapshot stayed
                later = self._payloads_after(snapshot.version)
                mark = self._journal.mark(snapshot.version) if self._journal else None
                Journal.write_new(temporary[1], self.id, snapshot.version, digest, later, mark)
                self._set_aside()
                sweep(self._path)
                before = self._vectors.described(self.id)
                final = [pairs[0], (temporary[0], self._path), *pairs[1:], (temporary[1], self._journal_path)]
                if self._journal is not None:
                    self._journal.sync()  # until it is replaced, it has to reach as far as the new graph
                try:
                    self._put_in_place(final)
                finally:
                    # Cut short, it has perhaps put our graph in place. That is nothing new to this process.
                    self._stamp = file_stamp(os.stat(self._path))
                kept = {name for _, name in pairs}
                self._vectors.remove_stale(kept, {*snapshot.fields, *state.sets, *before, PROMPT})
                fresh = Journal.open(self._journal_path, read_only=False)  # if that fails, the old one leads to it
                if self._journal is not None:
                    self._journal.close()
                self._journal = fresh
                assert self._journal is not None
                for _ in self._journal.payloads():
                    pass  # all of it is in memory
                self._stamp, self._journal_floor = file_stamp(os.stat(self._path)), 0
                self._lost = None if mended else self._lost
                self._marked = self._lost is not None
                self._note_sizes(size)
        except SupersededError:
            return
        except MemoryGraphError:
            raise  # some of ours are OSErrors, too
        except OSError as exc:
            raise write_failed("write", self._path, exc) from exc
        finally:
            for name in [self._path, self._journal_path, *self._vectors.names(set(snapshot.fields))]:
                discard(name + suffix)

    def _still_wanted(self, inode: int | None) -> None:
        """Raise SupersededError if the journal is not the one with *inode* any more.

        Called after a temporary file was made and before anything is written to it. Whoever erases replaces the
        journal first and then deletes all temporary files: so none is missed, whoever comes first.
        """
        try:
            now: int | None = os.stat(self._journal_path).st_ino
        except FileNotFoundError:
            now = None
        if now != inode:
            raise SupersededError

    def erase(self, batch: Batch, *, backups: bool = False, timeout: float | None = None) -> Erased:  # noqa: ARG002
        """Apply *batch*, and leave nothing in any file of the nodes that it, or an older batch, removes."""
        with self.exclusive():
            mark = asked(self.meta(ERASING), batch, backups=backups)
            self.write(replace(batch, meta={**batch.meta, ERASING: mark}))
            self._section.sync()
            try:
                return self._erase(mark)
            except MemoryGraphError:
                raise  # some of ours are OSErrors, too
            except OSError as exc:
                raise write_failed("rewrite", exc.filename or self._path, exc) from exc

    def _erase(self, mark: dict[str, Any]) -> Erased:
        """Bring every file to where nothing is in it any more of the nodes in *mark*; the lock is held."""
        with self._mutex.lock:
            self._set_aside()
        before = self._vectors.beside()
        copies = Copies(
            self._path,
            self.id,
            [tuple(key) for key in mark["nodes"]],
            backups=mark["backups"],
            timeout=0.0 if self._lock is None else self._lock.timeout,
        )
        copies.clean()
        # From here on nothing needs to know any more what it was; what follows is done again if it is cut short.
        self.write(Batch(meta={ERASING: {"nodes": [], "backups": False}}))
        self.fold()
        suffix = f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            self._put_in_place(self._vectors.prepare_settled(self.id, suffix))
        except OSError as exc:
            raise write_failed("rewrite", self._path, exc) from exc
        finally:
            discard(self._vectors.header_path + suffix)
        after = self._vectors.existing({*self._vectors.described(self.id), PROMPT})
        for name in self._vectors.beside():  # of fields that are gone, which a crash may have brought back
            if name not in after:
                os.unlink(name)
        copies.sweep(indexes=True)
        copies.sync()
        with self._mutex.lock:
            self._load()
        self.write(Batch(meta={ERASING: None}))
        found = copies.found()
        ours = [self._path, self._journal_path, self._vectors.header_path, *after]
        gone = [name for name in before if name not in after]
        return Erased((*ours, *found.rewritten), (*gone, *found.deleted), found.left)

    def _set_aside(self) -> None:
        """Keep vector files that were found damaged, instead of replacing them."""
        if self._lost is not None and not self._marked:  # marked: set aside already, by the fold that wrote the mark
            when = now(self._path, "damaged")
            fields = {*self._state.sets, *self._fields, PROMPT}
            for name in [*self._vectors.existing(fields), self._vectors.header_path]:
                if os.path.exists(name):
                    os.replace(name, f"{name}.damaged-{when}")
                    log.warning(
                        "%r belongs to vectors that were lost; it is kept as %r", name, f"{name}.damaged-{when}"
                    )

    def _payloads_after(self, version: int) -> list[bytes]:
        """Return the lines of the present journal that are newer than *version*."""
        if self._journal is None:
            return []
        again = Journal.open(self._journal_path, read_only=True)
        assert again is not None
        try:
            return [line for line in again.payloads() if version_of(line) > version]
        finally:
            again.close()

    def _put_in_place(self, pairs: list[tuple[str, str]]) -> None:
        folder = os.path.dirname(self._path)
        for temporary, final in pairs:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(os.stat(final).st_mode))  # whoever shares a file goes on sharing it
            os.replace(temporary, final)
            sync_folder(folder)  # each rename on disk before the next: a power cut must not reorder them

    def _create(self) -> None:
        assert self._lock is not None
        with self._lock():
            if os.path.exists(self._path):
                return
            if os.path.exists(self._journal_path):
                raise StoreMissing(
                    2,
                    f"{self._path!r} is missing, but {self._journal_path!r} is there. Put it back, or remove both",
                )
            temporary = f"{self._path}.tmp-{os.getpid()}"
            journal = self._journal_path + f".tmp-{os.getpid()}"
            try:
                digest, _ = Snapshot.of(State(), self.id).write(temporary)
                Journal.write_new(journal, self.id, 0, digest, [])
                self._put_in_place([(temporary, self._path), (journal, self._journal_path)])
            except MemoryGraphError:
                raise
            except OSError as exc:
                raise write_failed("write", self._path, exc) from exc
            finally:
                for name in (temporary, journal):
                    discard(name)

    # --- the rest -----------------------------------------------------------------------------------------------

    # Caches go by these. None may learn of what is not on disk: it would have it still after the sync failed.

    def version(self) -> int:
        """Return the number of the last committed batch."""
        self._settle_own()
        return super().version()

    def changes(self, since: int) -> Changes:
        """Return what happened to nodes and edges after version *since*."""
        self._settle_own()
        return super().changes(since)

    def vectors(self, field: str, since: int) -> VectorChanges:
        """Return what happened to the vectors of *field* after version *since*."""
        self._settle_own()
        return super().vectors(field, since)

    def _settle_own(self) -> None:
        if self._section.pending and self._section.mine:
            self._section.sync()

    def cache_path(self, field: str) -> str | None:
        """Return where the words of a namespace may be saved; vectors are read as they are, and need no cache."""
        return f"{self._path}.{field}.index" if field.startswith("words") else None

    def mark(self, version: int) -> str | None:
        """Return the checksum of the line that made *version*, or what stands for it."""
        with self._mutex.lock:
            self._current()
            return self._journal.mark(version) if self._journal is not None and not self._foreign else None

    def remembers(self, version: int) -> bool:
        """Tell whether the journal reaches back to *version*, and goes on when this is closed."""
        with self._mutex.lock:
            known = self._current().known_since
            journal = self._journal
            return journal is not None and max(journal.base, known) <= version and not self._worth_folding()

    def vectors_lost(self) -> str | None:
        """Say which file with vectors is gone or damaged."""
        with self._mutex.lock:
            self._current()
            return self._lost

    def checkpoint(self, *, mended: bool = False) -> None:
        """Fold the journal into `graph.json`."""
        with self._mutex.lock:
            self._current()
            nothing_new = self._journal is not None and self._state.version == self._journal.base
            if self._foreign or (nothing_new and not (mended and self._lost)):
                return
        self.fold(mended=mended)

    def size(self) -> int:
        """Return the bytes of all files of the store."""
        folder, name = os.path.split(self._path)
        total = 0
        for entry in os.scandir(folder):
            if entry.name == name or entry.name.startswith(name + "."):
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total

    def close(self) -> None:
        """Fold a small or much-changed store, and give back the files."""
        with self._mutex.lock:
            if self._closed:
                return
        try:
            if self._lock is not None and os.getpid() == self._pid and self._worth_folding():
                self.fold()
        except (StoreError, LockTimeout) as exc:
            log.warning("%s (the changes are safe in %r)", exc, self._journal_path)
        finally:
            with self._mutex.lock, contextlib.ExitStack() as files:
                if self._lock is not None:
                    files.callback(self._lock.close)
                self._section.settle()
                super().close()
                journal, self._journal = self._journal, None
                if journal is not None:
                    files.callback(journal.close)
                    if self._lock is not None and os.getpid() == self._pid:
                        journal.sync()

    def _worth_folding(self) -> bool:
        with self._mutex.lock:
            state = self._current()
            journal = self._journal
            if journal is None or self._foreign or state.version == journal.base:
                return False
            small = journal.offset < _SMALL and self._stamp[1] < _SMALL
            return small or journal.offset > self._snapshot_bytes // 2
