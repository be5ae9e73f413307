"""What is given away: the wheel and the source archive, what is in them, and that the same source gives the same bytes."""

from __future__ import annotations

import csv
import email
import hashlib
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

import raeburnmemory

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "raeburnmemory"
SOURCE = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
VERSION = re.search(r'^version = "(.+)"$', SOURCE, re.MULTILINE)[1]
NOT_GIVEN = re.compile(r"__pycache__|\.pyc$|\.(db|lock|gate|index|log)$|node_modules|\.venv|/\.git/|~$|\.tmp")
DEVELOPMENT = {"test", "docs", "all", "bundle"}
NOT_EVERYWHERE = {"llama": "llama_cpp", "sentence-transformers": "sentence_transformers"}  # compiled; with torch
MODULES = {
    "faiss-cpu": "faiss", "pystemmer": "Stemmer", "langgraph-checkpoint": "langgraph.checkpoint.base",
    "llama-cpp-python": "llama_cpp", "mkdocs-material": "material", "psycopg": "psycopg",
}  # fmt: skip


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def source_of(target):
    """Copy what the archives are made from: what is edited meanwhile does not change it."""
    target.mkdir()
    listed = re.search(r"\[tool\.hatch\.build\.targets\.sdist\]\ninclude = \[(.*?)\n\]", SOURCE, re.DOTALL)[1]
    for name in [*re.findall(r'"/([^"]+)"', listed), "pyproject.toml", ".gitignore"]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        elif (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, target / name)
    return target


def build(kind, source, target):
    """Build with hatchling, as `python -m build --no-isolation` does, and return the file."""
    target.mkdir(exist_ok=True)
    code = f"import sys, hatchling.build as b; print(b.build_{kind}(sys.argv[1]))"
    env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=source, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    pytest.importorskip("hatchling", reason="building needs hatchling")
    folder = tmp_path_factory.mktemp("packaging")
    source = source_of(folder / "source")
    return build("wheel", source, folder / "dist"), build("sdist", source, folder / "dist"), source


def test_the_wheel_holds_the_package_and_nothing_else(given):
    wheel, _, source = given
    assert wheel.name == f"raeburnmemory-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        record = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(f"{info(names)}/RECORD").decode()))}
        for name in names - {f"{info(names)}/RECORD"}:
            digest = urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
            assert record[name] == [f"sha256={digest}", str(archive.getinfo(name).file_size)], name
    ours = {f"raeburnmemory/{name}" for name in files_of(source / "raeburnmemory")}
    about = {f"{info(names)}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    about |= {f"{info(names)}/licenses/{name}" for name in ("LICENSE", "NOTICE")}
    assert names == ours | about
    assert set(record) == names
    assert [name for name in names if NOT_GIVEN.search(name)] == []
    for name in ("py.typed", "embed/builtin.npz", "picture/page.js", "exporters/jsonl.schema.json"):
        assert f"raeburnmemory/{name}" in names
    assert wheel.stat().st_size < 12e6


def info(names):
    (found,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    return found


def test_the_metadata(given):
    with zipfile.ZipFile(given[0]) as archive:
        folder = info(archive.namelist())
        about = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        assert archive.read(f"{folder}/entry_points.txt").decode().splitlines() == [
            "[console_scripts]",
            "raeburnmemory = raeburnmemory.__main__:main",
        ]
        assert archive.read(f"{folder}/licenses/NOTICE") == (ROOT / "NOTICE").read_bytes()
    assert about["Version"] == VERSION == raeburnmemory.__version__
    assert about["License-Expression"] == "MIT AND Apache-2.0"  # PEP 639
    assert about.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert not [value for value in about.get_all("Classifier") if value.startswith("License ::")]
    assert about["Requires-Python"] == ">=3.10"
    assert set(about.get_all("Provides-Extra")) == set(extras())
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload(decode=True).decode() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_source_archive_holds_what_is_listed(given):
    _, sdist, source = given
    assert sdist.name == f"raeburnmemory-{VERSION}.tar.gz"
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isreg() or member.isdir() for member in members)
    names = {member.name.partition("/")[2] for member in members if member.isreg()}
    assert names == files_of(source) | {"PKG-INFO"}
    assert [name for name in names if NOT_GIVEN.search(name) and not name.startswith("tests/fixtures/")] == []
    assert {"tests/test_packaging.py", "CONTRIBUTING.md", ".github/workflows/test.yml", "examples/README.md"} <= names
    assert all(member.uid == member.gid == 0 for member in members)


def test_everything_that_git_knows_is_in_the_source_archive(given):
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no clone")
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known = {name for name in known.split("\0") if name and (ROOT / name).is_file()}
    assert known - files_of(given[2]) == set()


def test_the_same_source_gives_the_same_bytes(given, tmp_path):
    wheel, sdist, source = given
    source = Path(shutil.copytree(source, tmp_path / "elsewhere"))
    for path in source.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert build("wheel", source, tmp_path / "dist").read_bytes() == wheel.read_bytes()
    assert build("sdist", source, tmp_path / "dist").read_bytes() == sdist.read_bytes()


@pytest.mark.long
def test_the_source_archive_gives_the_same_wheel(given, tmp_path):
    wheel, sdist, _ = given
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build("wheel", tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "dist")
    assert again.read_bytes() == wheel.read_bytes()


@pytest.mark.long
def test_the_index_would_take_it(given):
    pytest.importorskip("twine", reason="the check is twine's")
    command = [sys.executable, "-m", "twine", "check", "--strict", str(given[0]), str(given[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the extras ------------------------------------------------------------------------------------------------


def extras():
    """Return the requirements of each extra; Python 3.10 cannot parse TOML."""
    table = SOURCE.partition("\n[project.optional-dependencies]\n")[2].partition("\n[project.scripts]")[0]
    table = re.sub(r" *#.*", "", table)
    return {
        name: re.findall(r'"([^"]+)"', listed)
        for name, listed in re.findall(r"^([\w-]+) = \[(.*?)\]$", table, re.MULTILINE | re.DOTALL)
    }


def module_of(requirement):
    name = re.match(r"[\w.-]+", requirement)[0]
    return MODULES.get(name.lower(), name.replace("-", "_"))


@pytest.mark.parametrize("extra", sorted(set(extras()) - {"all", "bundle"} - set(NOT_EVERYWHERE)))
def test_the_packages_of_an_extra_can_be_imported(extra):
    for requirement in extras()[extra]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs
            pytest.importorskip(
                module_of(requirement).partition(".")[0], reason=f"the extra {extra!r} is not installed"
            )
            importlib.import_module(module_of(requirement))


def test_all_is_every_extra_but_those_that_are_named():
    (everything,) = extras()["all"]
    assert set(re.search(r"\[(.*)\]", everything)[1].split(",")) == set(extras()) - DEVELOPMENT - set(NOT_EVERYWHERE)


def test_the_matrix_of_extras_names_their_packages():
    page = (ROOT / "docs" / "reference" / "installation.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", page.partition("## Extras")[2], re.MULTILINE))
    told = {extra: set(re.findall(r"`([\w.-]+)`", cell)) for extra, cell in rows.items()}
    named = {extra: {re.match(r"[\w.-]+", line)[0] for line in lines} for extra, lines in extras().items()}
    assert told == {extra: names for extra, names in named.items() if extra not in {"all", "bundle"}}


def test_the_size_of_an_installation(tmp_path):
    from benchmarks.install_size import size_of

    for name, version in (("one", "1.5"), ("two-more", "2"), ("pip", "26")):
        about = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_bytes(b"x" * 1000)
        (tmp_path / name / "code.pyc").write_bytes(b"x" * 1000)
    size = size_of(tmp_path)
    metadata = sum(path.stat().st_size for path in tmp_path.rglob("METADATA") if "pip" not in str(path))
    assert (size.distributions, size.bytes) == (2, 2000 + metadata)
    assert size.versions == {"one": "1.5", "two-more": "2"}
