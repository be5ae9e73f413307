"""Folders in step with a memory: what is new, changed, moved, gone, left alone or broken, and nothing else."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ingesting import held, opened, rebuilt, write
from outside import Fake

from raeburnmemory.errors import InvalidInput, NodeNotFound
from raeburnmemory.hub.ingestor import Ingestor
from raeburnmemory.hub.reports import OUTCOMES
from raeburnmemory.memory_graph import MemoryGraph

every_store = pytest.mark.parametrize("store", ["m.json", "m.db"])

GUIDE = "# Guide\n\nRed wine stains.\n\n## Cleaning\n\nTake salt at once.\n"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "docs"


def outcomes(report):
    return {item.name or item.uri: item.outcome for item in report.items}


def by_name(ingestor):
    return {info.name: info for info in ingestor.list()}


# --- one thing after the other --------------------------------------------------------------------------------------


@every_store
def test_a_folder_comes_and_stays_as_it_is(tmp_path, folder, store):
    write(folder / "guide.md", GUIDE)
    write(folder / "deep/er/list.txt", "Bread\nButter\n")
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        report = ingestor.sync(folder)
        assert outcomes(report) == {"docs/guide.md": "added", "docs/deep/er/list.txt": "added"}
        assert (report.chunks_added, report.embeddings_computed) == (3, 3)
        assert report.bytes == len(GUIDE) + len("Bread\nButter\n")
        version = memory.version
        again = ingestor.sync(folder)
        assert outcomes(again) == {"docs/guide.md": "unchanged", "docs/deep/er/list.txt": "unchanged"}
        assert (again.chunks_added, again.chunks_kept, again.embeddings_computed, again.bytes) == (0, 3, 0, 0)
        assert memory.version == version, "nothing was written"
        assert held(memory) == rebuilt(folder)
    with opened(tmp_path / store) as memory:  # and it is on disk
        assert outcomes(Ingestor(memory).sync()) == outcomes(again)


@every_store
def test_what_stays_in_a_changed_file_keeps_its_nodes_and_vectors(tmp_path, folder, store):
    paragraphs = [f"# Part {number}\n\nIt is about thing {number}.\n\n" for number in range(6)]
    write(folder / "a.md", "".join(paragraphs))
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(folder)
        before = {node.text: node for node in memory.nodes("fragment")}
        write(folder / "a.md", "# New\n\nIt stands above all.\n\n" + "".join(paragraphs[:3] + paragraphs[4:]))
        report = ingestor.sync(folder)
        assert (report.chunks_added, report.chunks_kept, report.chunks_removed) == (1, 5, 1)
        assert report.embeddings_computed == 1
        after = {node.text: node for node in memory.nodes("fragment")}
        kept = set(before) & set(after)
        assert len(kept) == 5
        for text in kept:
            assert after[text] == before[text], "not even written again"
            assert memory.history(after[text].id) == []
        hit = memory.recall("thing 5", kinds="fragment")[0]
        assert hit.citation == "docs/a.md:21-23"
        assert held(memory) == rebuilt(folder)


@every_store
def test_a_file_that_moved_keeps_its_nodes(tmp_path, folder, store):
    write(folder / "old.md", GUIDE)
    write(folder / "note.txt", "Nothing about it.")
    write(folder / "other.txt", "Something else.")
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(folder)
        before = {node.id for node in memory}
        (folder / "new").mkdir()
        (folder / "old.md").rename(folder / "new/guide.md")
        (folder / "note.txt").rename(folder / "new/note-2.txt")
        report = ingestor.sync(folder)
        assert outcomes(report) == {
            "docs/new/guide.md": "renamed",
            "docs/new/note-2.txt": "renamed",
            "docs/other.txt": "unchanged",
        }
        assert {node.id for node in memory} == before
        assert report.embeddings_computed == report.chunks_added == report.chunks_removed == 0
        assert memory.recall("salt", kinds="fragment")[0].citation == "docs/new/guide.md:5-7"
        assert held(memory) == rebuilt(folder)
        write(folder / "old.md", "Another one.")  # where the old one was
        assert outcomes(ingestor.sync(folder))["docs/old.md"] == "added"
        assert held(memory) == rebuilt(folder)


@every_store
def test_a_file_that_moved_and_changed_is_another(tmp_path, folder, store):
    for name in ("a", "b", "c"):
        write(folder / f"{name}.txt", f"About {name}.")
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(folder)
        (folder / "a.txt").unlink()
        write(folder / "z.txt", "About z.")
        assert outcomes(ingestor.sync(folder)) == {
            "docs/a.txt": "pruned", "docs/b.txt": "unchanged", "docs/c.txt": "unchanged", "docs/z.txt": "added"
        }  # fmt: skip
        assert held(memory) == rebuilt(folder)


@every_store
def test_equal_texts_have_one_embedding_and_two_sources(tmp_path, folder, store):
    write(folder / "a.md", GUIDE)
    write(folder / "b.md", GUIDE)
    write(folder / "c.md", "# Other\n\nNo.\n\n# Guide\n\nRed wine stains.\n\n## Cleaning\n\nTake salt at once.\n")
    with opened(tmp_path / store) as memory:
        report = Ingestor(memory).sync(folder)
        assert (report.added, report.duplicates) == (3, 1)
        assert (report.chunks_added, report.embeddings_computed) == (7, 3)
        found = {hit.citation for hit in memory.recall("salt", kinds="fragment") if "salt" in hit.text}
        assert found == {"docs/a.md:5-7", "docs/b.md:5-7", "docs/c.md:9-11"}
        ingestor = Ingestor(memory)
        (folder / "a.md").unlink()
        ingestor.sync(folder)
        write(folder / "d.md", GUIDE)  # the first of them is gone; another one has the vector
        report = ingestor.sync(folder)
        assert (report.chunks_added, report.embeddings_computed) == (2, 0)
        assert held(memory) == rebuilt(folder)


def test_an_embedding_is_taken_from_the_model_in_use(tmp_path, folder):
    write(folder / "a.txt", "Red wine.")
    with MemoryGraph(tmp_path / "m.db", Fake()) as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(folder)
        memory.reembed(Fake("other", 16, "x"))
        write(folder / "b.txt", "Red wine.")
        report = ingestor.sync(folder)
        assert report.embeddings_computed == 0
        one, two = memory.vectors(node.id for node in memory.nodes("fragment")).values()
        assert one.tolist() == two.tolist()
        # Another model may read other lengths: what is there is looked at again, and stays where it is the same.
        assert outcomes(report) == {"docs/a.txt": "updated", "docs/b.txt": "added"}
        assert report.chunks_kept == 1


# --- what is not read -----------------------------------------------------------------------------------------------


def test_what_is_left_alone_is_named(tmp_path, folder):
    pytest.importorskip("pathspec", reason="ignore files are read with pathspec")
    write(folder / ".gitignore", "*.log\nbuild/\n!keep.log\n/top.txt\n")
    write(folder / "a.log", "no")
    write(folder / "keep.log", "yes")
    write(folder / "build/x.txt", "no")
    write(folder / "top.txt", "no")
    write(folder / "sub/top.txt", "yes")
    write(folder / "sub/.gitignore", "!deep.log\nsecret*\n")
    write(folder / "sub/deep.log", "yes")
    write(folder / "sub/secret.txt", "no")
    write(folder / "sub/.raeburnignore", "private/\n!secret.txt\n")
    write(folder / "sub/private/x.txt", "no")
    write(folder / ".git/config", "no")
    write(folder / "picture.png", b"\x89PNG\r\n\x1a\n" + bytes(100))
    write(tmp_path / "outside.txt", "no")
    (folder / "out").symlink_to(tmp_path / "outside.txt")
    (folder / "in").symlink_to(folder / "keep.log")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    with opened(folder / "memory.db") as memory:  # in the very folder
        report = Ingestor(memory).sync(folder)
        assert {item.name for item in report.of("added")} == {
            "docs/keep.log", "docs/sub/top.txt", "docs/sub/deep.log", "docs/sub/secret.txt"
        }  # fmt: skip
        assert report.failed == 0
        why = {os.path.relpath(item.name, folder): item.reason for item in report.of("skipped") if item.name[0] == "/"}
        assert why["a.log"] == why["build"] == why["top.txt"] == "ignored by .gitignore"
        assert why["sub/private"] == "ignored by .raeburnignore"
        assert "leads out of" in why["out"]
        assert "read where it lies" in why["in"]
        assert "read where it lies" in why["loop"]
        assert "pipe" in why["pipe"]
        assert why["memory.db"] == "a file of the memory itself"
        (picture,) = [item for item in report.items if item.name == "docs/picture.png"]
        assert (picture.outcome, picture.code) == ("skipped", "unsupported_type")
        assert {node.attributes["name"] for node in memory.nodes("document")} == {i.name for i in report.of("added")}


def test_an_ignore_file_is_read_as_git_reads_it(tmp_path, folder):
    pytest.importorskip("pathspec", reason="ignore files are read with pathspec")
    # The mark of an editor on Windows, and lines that are no patterns.
    write(folder / ".gitignore", b"\xef\xbb\xbfsecret.txt\r\nbuild\\\r\n[z-a]\r\n!\r\n*.log\r\n")
    for name in ("secret.txt", "build/x.txt", "a.log"):
        write(folder / name, name)
    with opened(tmp_path / "m.db") as memory:
        report = Ingestor(memory).sync(folder)
        assert [item.name for item in report.of("added")] == ["docs/build/x.txt"]


def test_what_is_ignored_from_now_on_goes(tmp_path, folder):
    pytest.importorskip("pathspec", reason="ignore files are read with pathspec")
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        write(folder / name, name)
    with opened(tmp_path / "m.db") as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(folder)
        write(folder / ".gitignore", "sub\n")
        report = ingestor.sync(folder)
        assert [item.name for item in report.of("pruned")] == ["docs/sub/c.txt"]
        assert held(memory) == rebuilt(folder)


def test_rules_of_the_folders_above_hold_within_a_working_tree(tmp_path, folder):
    pytest.importorskip("pathspec", reason="ignore files are read with pathspec")
    write(tmp_path / "repo/.gitignore", "*.tmp\n")
    write(tmp_path / "repo/docs/a.tmp", "no")
    write(tmp_path / "repo/docs/a.txt", "yes")
    with opened(tmp_path / "m.db") as memory:
        assert Ingestor(memory).sync(tmp_path / "repo/docs").added == 2
    (tmp_path / "repo/.git").mkdir()
    with opened(tmp_path / "n.db") as memory:
        assert Ingestor(memory).sync(tmp_path / "repo/docs").added == 1


def test_names_of_any_bytes(tmp_path, folder):
    folder.mkdir()
    odd = os.fsencode(folder) + b"/caf\xe9 100%.txt"
    with open(odd, "wb") as file:
        file.write(b"Coffee.")
    with opened(tmp_path / "m.db") as memory:
        ingestor = Ingestor(memory)
        assert ingestor.sync(folder).added == 1
        hit = memory.recall("coffee", kinds="fragment")[0]
        assert hit.citation == "docs/caf\ufffd 100%.txt:1"
        assert ingestor.verify_citation(hit).status == "valid"
        os.remove(odd)
        write(folder / "b.txt", "b")
        assert ingestor.sync(folder, force=True).pruned == 1


# --- what is gone ---------------------------------------------------------------------------------------------------


@every_store
def test_nothing_goes_without_evidence(tmp_path, folder, store):
    for name in ("a", "b", "c", "d"):
        write(folder / f"sub/{name}.txt", f"About {name}.")
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(folder)
        before = held(memory)
        folder.rename(tmp_path / "elsewhere")  # as a disk that is not there
        report = ingestor.sync(folder)
        assert [(item.outcome, item.code) for item in report.items] == [("failed", "missing")]
        assert held(memory) == before
        folder.mkdir()  # and one that is, but empty
        report = ingestor.sync()
        assert [item.code for item in report.of("skipped")] == ["kept"] * 4
        assert "4 of 4" in report.items[0].reason
        assert held(memory) == before
        write(folder / "sub/a.txt", "About a.")
        write(folder / "sub/b.txt", "About b.")
        write(folder / "sub/c.txt", "About c.")
        report = ingestor.sync(prune=False)
        assert outcomes(report)["docs/sub/d.txt"] == "skipped"
        assert len(held(memory)) == 4
        report = ingestor.sync()
        assert outcomes(report)["docs/sub/d.txt"] == "pruned"
        shutil.rmtree(folder / "sub")
        assert ingestor.sync(force=True).pruned == 3
        assert held(memory) == {}
        assert len(memory) == 0


def test_a_folder_that_may_not_be_read_keeps_what_is_known(tmp_path, folder, monkeypatch):
    for name in ("a.txt", "b.txt", "closed/c.txt"):
        write(folder / name, name)
    with opened(tmp_path / "m.db") as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(folder)
        (folder / "a.txt").unlink()
        real = os.scandir

        def refusing(path):
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr(os, "scandir", refusing)
        report = ingestor.sync(folder)
        assert [item.code for item in report.of("failed")] == ["unreadable"]
        assert "closed" in report.of("failed")[0].name
        assert len(held(memory)) == 3, "nothing goes while something could not be looked at"
        monkeypatch.undo()
        assert ingestor.sync(folder).pruned == 1


def test_two_folders_and_a_file(tmp_path):
    write(tmp_path / "one/a.txt", "About a.")
    write(tmp_path / "one/sub/b.txt", "About b.")
    write(tmp_path / "two/c.txt", "About c.")
    write(tmp_path / "d.txt", "About d.")
    with opened(tmp_path / "m.db") as memory:
        ingestor = Ingestor(memory)
        assert ingestor.sync([tmp_path / "one/sub", tmp_path / "one", tmp_path / "two", tmp_path / "d.txt"]).added == 4
        assert {info.root.rpartition("/")[2] for info in ingestor.list()} == {"sub", "one", "two", "d.txt"}
        report = ingestor.sync()
        assert report.counts["unchanged"] == 5, "b is in two of the folders"
        (tmp_path / "one/sub/b.txt").unlink()
        (tmp_path / "d.txt").unlink()
        assert ingestor.sync(tmp_path / "one", force=True).pruned == 1
        assert ingestor.sync(tmp_path / "d.txt", force=True).pruned == 1
        assert sorted(by_name(ingestor)) == ["one/a.txt", "two/c.txt"]


# --- what fails -----------------------------------------------------------------------------------------------------


@every_store
def test_a_failure_is_noted_and_tried_again_when_it_may_help(tmp_path, folder, store, monkeypatch):
    bad = b"\xff\xfe\x00\xd8\x41"  # UTF-16 by its mark, and none
    write(folder / "good.txt", "Good.")
    write(folder / "bad.txt", bad)
    tried = []

    def counting(*args, **kwargs):
        tried.append(kwargs["name"])
        return load(*args, **kwargs)

    from raeburnmemory.hub import intake

    load = intake.load
    monkeypatch.setattr(intake, "load", counting)
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        report = ingestor.sync(folder)
        assert outcomes(report) == {"docs/good.txt": "added", "docs/bad.txt": "failed"}
        assert report.of("failed")[0].code == "undecodable"
        info = by_name(ingestor)["docs/bad.txt"]
        assert (info.status, info.attempts, info.fragments) == ("failed", 1, 0)
        tried.clear()
        again = ingestor.sync(folder)
        assert outcomes(again) == {"docs/good.txt": "unchanged", "docs/bad.txt": "failed"}, "it is still no success"
        assert "not again before" in again.of("failed")[0].reason
        assert tried == []
        now = time.time()
        monkeypatch.setattr(intake.time, "time", lambda: now + 61)
        ingestor.sync(folder)
        ingestor.sync(folder)
        assert tried == ["bad.txt"]
        assert by_name(ingestor)["docs/bad.txt"].attempts == 2
        assert len(held(memory)) == 2, "one node, however often it fails"
        write(folder / "bad.txt", "Good after all.")
        assert outcomes(ingestor.sync(folder))["docs/bad.txt"] == "updated"
        assert held(memory) == rebuilt(folder)
        write(folder / "bad.txt", bad)  # what was read before stays, and is not taken for the new
        assert outcomes(ingestor.sync(folder))["docs/bad.txt"] == "failed"
        assert memory.recall("after all", kinds="fragment")[0].text == "Good after all."
        assert by_name(ingestor)["docs/bad.txt"].status == "failed"
        assert ingestor.list("failed") == [by_name(ingestor)["docs/bad.txt"]]


def test_an_empty_file_is_no_success(tmp_path, folder):
    write(folder / "a.txt", "Something.")
    with opened(tmp_path / "m.db") as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(folder)
        write(folder / "a.txt", "  \n\n")
        for _ in range(2):
            report = ingestor.sync(folder)
            assert [(item.outcome, item.code) for item in report.items] == [("empty", "no_text")]
        assert list(memory.nodes("fragment")) == [], "the file does not say that any more"
        assert by_name(ingestor)["docs/a.txt"].status == "empty"
        write(folder / "a.txt", "Something else.")
        assert outcomes(ingestor.sync(folder)) == {"docs/a.txt": "updated"}


def test_other_settings_read_everything_again(tmp_path, folder):
    write(folder / "a.md", "# A\n\n" + "One sentence after another. " * 60)
    with opened(tmp_path / "m.db") as memory:
        assert Ingestor(memory).sync(folder).chunks_added < 4
        smaller = Ingestor(memory, size=40, overlap=5)
        report = smaller.sync(folder)
        assert outcomes(report) == {"docs/a.md": "updated"}
        assert held(memory) == rebuilt(folder, size=40, overlap=5)
        assert outcomes(smaller.sync(folder)) == {"docs/a.md": "unchanged"}


# --- how it goes ----------------------------------------------------------------------------------------------------


def test_progress_cancel_and_dry_run(tmp_path, folder):
    for number in range(5):
        write(folder / f"{number}.txt", f"About {number}.")
    with opened(tmp_path / "m.db") as memory:
        ingestor = Ingestor(memory)
        report = ingestor.sync(folder, dry_run=True)
        assert (report.added, report.dry_run, len(memory)) == (5, True, 0)
        told = []
        stop = threading.Event()

        def progress(*what):
            told.append(what)
            if what[:2] == ("read", 2):
                stop.set()

        report = ingestor.sync(folder, progress=progress, cancel=stop)
        assert told[0][0] == "scan"
        assert [what[1:] for what in told[1:]] == [(n, 5, f"docs/{n}.txt") for n in range(3)]
        assert (report.cancelled, report.added) == (True, 3)
        assert "Cancelled" in str(report)
        assert len(held(memory)) == 3, "what is done stays"
        (folder / "0.txt").unlink()
        report = ingestor.sync(folder, dry_run=True)
        assert report.counts == {**dict.fromkeys(OUTCOMES, 0), "added": 2, "unchanged": 2, "pruned": 1}
        assert len(held(memory)) == 3
        assert ingestor.sync(folder).counts == report.counts
        assert held(memory) == rebuilt(folder)


def test_a_report_as_text_and_json(tmp_path, folder):
    write(folder / "a.txt", "Red wine.")
    write(folder / "b.txt", "")
    with opened(tmp_path / "m.db") as memory:
        report = Ingestor(memory).sync(folder)
    lines = str(report).splitlines()
    assert lines[0] == "1 added, 1 empty"
    assert lines[1].startswith("fragments: 1 added, 0 kept, 0 removed; 1 embedded; 9 bytes in ")
    assert lines[2:] == ["  empty      docs/b.txt: it holds no text"]
    said = report.to_dict()
    assert {outcome: said[outcome] for outcome in OUTCOMES} == report.counts
    assert [item["outcome"] for item in said["items"]] == ["added", "empty"]
    assert said["items"][0]["id"].startswith("document/documents/")


def test_sources_that_are_none(tmp_path):
    with opened(tmp_path / "m.db") as memory:
        ingestor = Ingestor(memory)
        for wrong in (3, b"x", [3], {"a": 1}, [""]):
            with pytest.raises(InvalidInput):
                ingestor.sync(wrong)
        with pytest.raises(InvalidInput):
            ingestor.sync(tmp_path, cancel=3)
        assert ingestor.sync([]).items == []


def test_namespaces_and_collections_keep_apart(tmp_path, folder):
    write(folder / "a.txt", "Red wine.")
    with opened(tmp_path / "m.db") as memory:
        one, other = Ingestor(memory, namespace="one"), Ingestor(memory, namespace="two", collection="mine")
        assert one.sync(folder).added == other.sync(folder).added == 1
        assert other.sync(folder).unchanged == 1
        assert len(memory) == 0
        assert memory.within("one").recall("wine")[0].node.attributes["collection"] == "documents"
        assert [hit.node.namespace for hit in memory.within("two").recall("wine")] == ["two"]
        third = Ingestor(memory, namespace="two")
        assert third.list() == []
        with pytest.raises(NodeNotFound):
            third.remove(other.list()[0].uri)
        (folder / "a.txt").unlink()
        assert one.sync(folder, force=True).pruned == 1
        assert len(other.list()) == 1


# --- any sequence ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a.md", "b.txt", "sub/c.md", "sub/d.txt", "sub/deep/e.md"])
PARTS = st.lists(
    st.sampled_from(["# One\n\n", "## Two\n\n", "Red wine stains.\n\n", "Take salt.\n\n", "salt\n", "   \n", "Ende. "]),
    max_size=6,
).map("".join)


class Edits(RuleBasedStateMachine):
    """Whatever happened to a folder, a sync leaves what a memory would hold that saw it for the first time."""

    store = ""

    @initialize()
    def begin(self):
        import tempfile
        from pathlib import Path

        self.place = Path(tempfile.mkdtemp(prefix="raeburn-sync-"))
        self.folder = self.place / "docs"
        self.folder.mkdir()
        self.memory = opened(":memory:" if not self.store else self.place / self.store)
        self.synced = False

    def files(self):
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    @rule(name=NAMES, content=PARTS)
    def write(self, name, content):
        write(self.folder / name, content)
        self.synced = False

    @precondition(lambda self: self.files())
    @rule(data=st.data(), name=NAMES)
    def rename(self, data, name):
        source = data.draw(st.sampled_from(self.files()))
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        source.rename(self.folder / name)
        self.synced = False

    @precondition(lambda self: len(self.files()) > 1)
    @rule(data=st.data())
    def swap(self, data):
        one, two = data.draw(st.lists(st.sampled_from(self.files()), min_size=2, max_size=2, unique=True))
        aside = self.folder / "aside"
        one.rename(aside)
        two.rename(one)
        aside.rename(two)
        self.synced = False

    @precondition(lambda self: self.files())
    @rule(data=st.data())
    def delete(self, data):
        data.draw(st.sampled_from(self.files())).unlink()
        self.synced = False

    @precondition(lambda self: self.files())
    @rule(data=st.data())
    def touch(self, data):
        path = data.draw(st.sampled_from(self.files()))
        write(path, path.read_bytes())
        self.synced = False

    @precondition(lambda self: (self.folder / "sub").exists())
    @rule()
    def delete_folder(self):
        shutil.rmtree(self.folder / "sub")
        self.synced = False

    @precondition(lambda self: not self.synced)
    @rule(reopen=st.booleans())
    def sync(self, reopen):
        if reopen and self.store:
            self.memory.close()
            self.memory = opened(self.place / self.store)
        before = {node.text: node.id for node in self.memory.nodes("fragment")}
        ingestor = Ingestor(self.memory)
        report = ingestor.sync(self.folder)
        if any(item.code == "kept" for item in report.items):
            report = ingestor.sync(self.folder, force=True)
        assert held(self.memory) == rebuilt(self.folder)
        assert report.embeddings_computed <= len({n.text for n in self.memory.nodes("fragment")} - set(before))
        assert report.failed == 0
        self.synced = True

    @precondition(lambda self: self.synced)
    @rule()
    def sync_again(self):
        version = self.memory.version
        report = Ingestor(self.memory).sync(self.folder)
        assert self.memory.version == version
        assert {item.outcome for item in report.items} <= {"unchanged", "empty"}

    @invariant()
    def nothing_is_left_open(self):
        assert not hasattr(self, "memory") or self.memory.version >= 0

    def teardown(self):
        if hasattr(self, "memory"):
            self.memory.close()
            shutil.rmtree(self.place)


class EditsInJson(Edits):
    store = "m.json"


class EditsInSqlite(Edits):
    store = "m.db"


TestEditsInJson = EditsInJson.TestCase
TestEditsInJson.settings = settings(max_examples=8, stateful_step_count=14)
TestEditsInSqlite = EditsInSqlite.TestCase
TestEditsInSqlite.settings = settings(max_examples=8, stateful_step_count=14)
