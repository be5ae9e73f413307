"""Projects: numbers, directories, uploads, what files are called, and paths that lead elsewhere."""

import os
import re
from pathlib import Path

import pytest
from ingesting import opened, write

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import InvalidInput
from raeburnmemory.hub.errors import FolderMissing, NotThere, PathRefused
from raeburnmemory.hub.project_paths import checked_path, escaped_name
from raeburnmemory.hub.projects import Projects

CLIMBING = [
    "", "/", "../x", "a/../../x", "/etc/passwd", "..\\x", "a\\..\\..\\x", "C:\\x", "C:x", "\\\\host\\share", "a//b", "a/",
    "./x", "x\0y", "a\nb", "file:///etc/passwd", "nul", "a/CON.txt", "a.", " a", "\u202etxt.exe", "x" * 241, "a/" * 50 + "b",
    "half\ud800",
]  # fmt: skip


@pytest.fixture
def projects(tmp_path):
    with opened(tmp_path / "m.db") as memory:
        yield Projects(memory, tmp_path / "hub" / "files", private=tmp_path / "hub")


def test_numbers_are_never_used_again(projects, tmp_path):
    first, second = projects.create("A"), projects.create("A")
    projects.remove(second.id)
    assert (first.id, second.id, projects.create("B").id) == (1, 2, 3)
    with opened(tmp_path / "m.db") as other:  # somebody else, who has only the store to look at
        again = Projects(other, tmp_path / "hub" / "files")
        assert again.create("C").id == 4
        assert [one.name for one in again.list()] == ["A", "B", "C"]
        assert [one.is_removed for one in again.list(removed=True)] == [False, True, False, False]


def test_a_project_needs_a_name_that_can_be_seen(projects):
    assert projects.create("").name == projects.create("  ").name == "New Project"
    for name in ("a\0b", "a\nb", "x" * 201, "half\ud800"):
        with pytest.raises(InvalidInput):
            projects.create(name)
    assert projects.rename(1, "Ünïcode / name").name == "Ünïcode / name"


def test_what_is_removed_is_unknown(projects):
    project = projects.create("A")
    directory = projects.add_directory(project.id, "/somewhere")
    projects.remove_directory(directory.id)
    projects.remove(project.id)
    for call in (
        lambda: projects.get(1), lambda: projects.get(99), lambda: projects.rename(1, "x"), lambda: projects.remove(1),
        lambda: projects.directories(1), lambda: projects.directory(1), lambda: projects.remove_directory(1),
        lambda: projects.upload(1, "a", b""), lambda: projects.add_directory(1, "/x"), lambda: projects.named("A"),
    ):  # fmt: skip
        with pytest.raises(NotThere):
            call()


def test_a_name_that_several_have_names_none(projects):
    projects.create("A")
    projects.create("A")
    with pytest.raises(NotThere, match="Several"):
        projects.named("A")


@pytest.mark.parametrize("path", CLIMBING)
def test_uploads_stay_in_their_folder(projects, tmp_path, path):
    project = projects.create("A")
    before = sorted(str(each) for each in tmp_path.rglob("*"))
    with pytest.raises(PathRefused):
        projects.upload(project.id, path, b"x")
    assert sorted(str(each) for each in tmp_path.rglob("*")) == before


def test_uploads_follow_no_links(projects, tmp_path):
    project = projects.create("A")
    projects.upload(project.id, "a/b.txt", b"one")
    uploads = tmp_path / "hub" / "files" / "1" / "uploads"
    (tmp_path / "outside").mkdir()
    (uploads / "link").symlink_to(tmp_path / "outside")
    (uploads / "file").symlink_to(tmp_path / "outside" / "target")
    for path in ("link/x.txt", "file", "a", "a/b.txt/c"):
        with pytest.raises(PathRefused):
            projects.upload(project.id, path, b"x")
    assert list((tmp_path / "outside").iterdir()) == []
    assert projects.upload(project.id, "a\\b.txt", b"two") == "a/b.txt"
    assert (uploads / "a" / "b.txt").read_bytes() == b"two"
    assert list(projects.list_files(project.id)) == ["A/uploads/a/b.txt"]


def test_files_are_called_as_the_browser_client_expects(projects, tmp_path):
    pytest.importorskip("pathspec", reason="ignore files are read with pathspec")
    folder = tmp_path / "my notes"
    write(folder / "a.txt", "apples")
    write(folder / "sub" / "b__c.txt", "pears")
    write(folder / ".gitignore", "*.log\n")
    write(folder / "x.log", "noise")
    project = projects.create("Work__of / Ana")
    projects.add_directory(project.id, str(folder))
    assert projects.list_files(project.id) == {}
    assert projects.sync_files(project.id) == 2
    files = projects.list_files(project.id)
    for called, path in files.items():
        # What the client does: everything before the first "__" goes.
        shown = "/".join(called.split("__")[1:]).replace("b/c", "b__c")
        assert "/" + shown == path
    assert sorted(os.path.relpath(path, folder) for path in files.values()) == ["a.txt", "sub/b__c.txt"]
    projects.files.summarised(project.id, "notes/a.txt", "short")
    assert list(projects.list_files(project.id))[-1].endswith("/summaries/notes/a.txt.summary.md")
    projects.ingest(project.id)
    [hit] = projects.memory.similar("apples", 1, kinds="fragment", collection=project.collection)
    real = hit.place.uri.removeprefix("file://").replace("%20", " ")
    name = projects.files.called(projects.shown_name(project), project.id, projects.directories(project.id), real)
    assert files[name] == real == str(folder / "a.txt")


@pytest.mark.parametrize("name", ["a__b", "___", "..", ".", "a/b", "a\\b", "a_=5Fb", "ünï", "a%2e", " x ", "#?&", "__"])
def test_escaped_names_are_one_part_and_tell_names_apart(name):
    escaped = escaped_name(name)
    assert "__" not in escaped
    assert not set("/\\%#?") & set(escaped)
    assert escaped not in {".", ".."}
    back = re.sub(r"(=[0-9A-F]{2})+", lambda found: bytes.fromhex(found[0].replace("=", "")).decode(), escaped)
    assert back == name


def test_projects_of_one_name_have_files_of_their_own(projects):
    first, second = projects.create("A"), projects.create("A")
    for project in (first, second):
        projects.upload(project.id, "x.txt", str(project.id).encode())
    [(one, path)] = projects.list_files(first.id).items()
    [(two, other)] = projects.list_files(second.id).items()
    assert (one, two) == ("A/uploads/x.txt", "A=2/uploads/x.txt")
    assert [Path(each).read_text() for each in (path, other)] == ["1", "2"]


def test_documents_follow_files_and_directories(projects, tmp_path):
    project = projects.create("A")
    one, two = tmp_path / "one", tmp_path / "two"
    write(one / "a.txt", "apples")
    for name in ("b", "d", "e"):
        write(two / f"{name}.txt", {"b": "bread", "d": "dates", "e": "eggs"}[name])
    first = projects.add_directory(project.id, str(one))
    assert projects.add_directory(project.id, str(one)) == first
    projects.add_directory(project.id, str(two))
    projects.upload(project.id, "c.txt", b"cheese")
    assert projects.ingest(project.id).added == 5
    texts = lambda: sorted(node.text for node in projects.memory.nodes("fragment"))
    assert texts() == ["apples", "bread", "cheese", "dates", "eggs"]
    write(one / "a.txt", "apricots")
    assert projects.ingest(project.id).updated == 1
    projects.remove_directory(first.id)
    assert texts() == ["bread", "cheese", "dates", "eggs"]
    (two / "b.txt").unlink()
    projects.add_directory(project.id, str(tmp_path / "gone"))
    with pytest.raises(FolderMissing, match="gone"):
        projects.sync_files(project.id)
    assert projects.ingest(project.id).pruned == 1
    projects.remove(project.id)
    assert texts() == []
    assert (tmp_path / "hub" / "files" / "1" / "uploads" / "c.txt").exists()


def test_a_project_reads_none_of_the_hubs_own_files(projects, tmp_path):
    project = projects.create("A")
    write(tmp_path / "hub" / "access.json", "secret")
    write(tmp_path / "notes.txt", "mine")
    for path in (tmp_path / "hub", tmp_path / "hub" / "files", tmp_path / "hub" / ".." / "hub"):
        with pytest.raises(PathRefused):
            projects.add_directory(project.id, str(path))
    for path in ("", "  ", "relative", "~nobody-of-that-name/x", "a\0b"):
        with pytest.raises(PathRefused):
            projects.add_directory(project.id, path)
    projects.add_directory(project.id, str(tmp_path))
    projects.upload(project.id, "up.txt", b"upload")
    projects.sync_files(project.id)
    projects.ingest(project.id)
    names = {os.path.basename(path) for path in projects.list_files(project.id).values()}
    assert "notes.txt" in names
    assert "access.json" not in names
    assert "secret" not in {node.text for node in projects.memory.nodes("fragment")}


def test_namespaces_have_projects_of_their_own(tmp_path):
    with opened(tmp_path / "m.db") as memory:
        mine = Projects(memory, tmp_path / "files")
        theirs = Projects(memory.within("other"), tmp_path / "theirs")
        mine.create("A")
        assert theirs.list() == []
        assert theirs.create("B").id == 1


@pytest.mark.parametrize("name", ["m.json", "m.db", ":memory:"])
def test_every_store_keeps_them(tmp_path, name):
    path = name if name == ":memory:" else tmp_path / name
    with MemoryGraph(path, "builtin", vector_backend="exact") as memory:
        projects = Projects(memory, tmp_path / "files")
        projects.create("A")
        projects.add_directory(1, "/x")
        assert [one.path for one in projects.directories(1)] == ["/x"]


def test_plain_paths_are_taken_as_they_are():
    for path in ("a.txt", "__home__ana__notes/sub/b.txt", ".hidden", "-x", "~", "%2e%2e%2fx", "a=b", "ü/ß.md"):
        assert checked_path(path) == path
