"""What is installed: versions as the packages say them, what is missing, what is too old, and what stands instead."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from importlib import metadata
from pathlib import Path

import pytest

from raeburnmemory import doctor
from raeburnmemory import environment as module
from raeburnmemory.environment import CORE, EXTRAS, Package, environment

ROOT = Path(__file__).resolve().parent.parent


def declared(table):
    """Return the names of a table of arrays in pyproject.toml; Python 3.10 cannot parse it."""
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition(f"\n[{table}]\n")[2].partition("\n[")[0]


def test_every_package_of_the_core_and_every_extra_has_a_sentence():
    core = declared("project").partition("\ndependencies = [")[2].partition("\n]")[0]
    assert set(re.findall(r'^ +"([\w-]+)', core, re.MULTILINE)) == set(CORE)
    extras = set(re.findall(r"^([\w-]+) = \[", declared("project.optional-dependencies"), re.MULTILINE))
    assert extras - {"test", "docs", "all", "bundle"} == set(EXTRAS)


def test_what_is_installed_is_told_with_its_version():
    here = environment()
    told = {package.name: package for package in here.core}
    assert told["numpy"].version == metadata.version("numpy")
    assert sys.modules["numpy"].__version__ == told["numpy"].version
    assert here.sqlite == sqlite3.sqlite_version
    assert here.python.startswith(".".join(map(str, sys.version_info[:3])))
    assert here.index == ("faiss" if told["faiss-cpu"].installed else "exact")
    assert f"numpy{' ' * 18}{told['numpy'].version}" in str(here)


def test_what_is_missing_is_told_with_what_stands_instead(monkeypatch):
    for name in ("networkx", "faiss", "onnxruntime", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    here = environment()
    told = {package["name"]: package for package in here.to_dict()["core"]}
    assert not told["networkx"]["installed"]
    assert told["networkx"]["version"] is None
    assert told["networkx"]["instead"] == "a directed graph of our own"
    assert told["numpy"]["instead"] is None
    assert (here.index, here.model) == ("exact", "builtin")
    assert re.search(r"^  faiss-cpu +not installed; instead: the index 'exact'", str(here), re.MULTILINE)
    assert here.problems == ()


def test_without_numpy_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    here = environment()
    assert "numpy is not installed. Install it with: pip install numpy" in here.problems
    assert here.model == "none"


@pytest.mark.parametrize(
    ("version", "wanted", "old"),
    [
        ("1.26.4", ">=1.26", False),
        ("1.25.9", ">=1.26", True),
        ("1.9", ">=1.26", True),
        ("3", ">=3.0", False),
        ("3.0rc1", ">=3", False),
        ("2.0", "", False),
        (None, ">=1", False),
    ],
)
def test_too_old_is_by_numbers(version, wanted, old):
    assert Package("x", version is not None, version, wanted).too_old is old


def test_a_package_that_is_too_old_is_a_problem(monkeypatch):
    real = metadata.version
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=1.26", "pypdf>=6; extra == 'hub'"])
    monkeypatch.setattr(metadata, "version", lambda name: "1.2" if name == "numpy" else real(name))
    here = environment()
    assert any(text.startswith("numpy 1.2 is older than >=1.26.") for text in here.problems)
    assert [package.name for package in here.extras["hub"]] == ["pypdf"]


def test_what_runs_from_its_source_says_that_extras_are_not_known(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    here = environment()
    assert here.extras == {}
    assert {package.name for package in here.core} == set(CORE)
    assert any("is not installed: which packages its extras take" in note for note in here.notes)


def test_known_faults_of_sqlite_are_told(monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.40.1")
    assert "before 3.51.3" in module.sqlite_fault()
    assert module.sqlite_fault() in environment().notes
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    assert any("3.35 is needed" in text for text in environment().problems)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    assert module.sqlite_fault() == ""


def test_variables_are_named_without_their_values(monkeypatch):
    monkeypatch.setenv("RAEBURN_API_KEY", "a secret")
    monkeypatch.setenv("RAEBURN_EMBED_MODEL", "builtin")
    here = environment()
    assert here.variables == ("RAEBURN_API_KEY", "RAEBURN_EMBED_MODEL")
    assert here.model == "builtin"
    assert "a secret" not in str(here) + json.dumps(here.to_dict())
    monkeypatch.setenv("RAEBURN_EMBED_MODEL", " ")
    assert any(text.startswith("RAEBURN_EMBED_MODEL: ") for text in environment().problems)


def test_it_is_the_doctors():
    assert doctor.environment is environment
    assert isinstance(environment(), doctor.Environment)


def test_the_command(tmp_path, monkeypatch):
    pytest.importorskip("typer", reason="the command line needs typer")
    from commands import CliRunner

    from raeburnmemory import MemoryGraph
    from raeburnmemory.cli import app

    def run(*words):
        result = CliRunner().invoke(app, words, prog_name="raeburnmemory")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    monkeypatch.chdir(tmp_path)
    told = run("--db", "none.db", "doctor", "--env", "--json")
    assert json.loads(told.stdout) == environment().to_dict()
    assert told.exit_code == 0
    assert run("--db", "none.db", "doctor").stdout.splitlines()[-1] == "There is no memory at none.db"
    MemoryGraph("some.db", embedding_model="builtin").close()
    whole = json.loads(run("--db", "some.db", "doctor", "--json").stdout)
    assert whole["environment"] == environment().to_dict()
    assert whole["memory"]["sound"] is True
    shown = run("--db", "some.db", "doctor")
    assert shown.stdout.startswith(f"{environment()}\n")
    assert shown.stdout.endswith("\nsound\n")
    (tmp_path / "some.db").write_bytes(b"SQLite format 3\0" + b"?" * 5000)
    assert run("--db", "some.db", "doctor").exit_code == 1
    assert run("--db", "some.db", "doctor", "--env").exit_code == 0
    assert [path.name for path in tmp_path.glob("none*")] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_the_shells(shell):
    """The script for a shell is about this program, and the question that it asks is answered."""
    pytest.importorskip("typer", reason="the command line needs typer")
    from commands import CliRunner

    from raeburnmemory.cli import app

    source = {"_RAEBURNMEMORY_COMPLETE": f"source_{shell}"}
    shown = CliRunner().invoke(app, [], env=source, prog_name="raeburnmemory")
    assert shown.exit_code == 0, shown.output
    assert "_RAEBURNMEMORY_COMPLETE" in shown.stdout
    asked = {
        "_RAEBURNMEMORY_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "raeburnmemory ver",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "raeburnmemory ver",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    answered = CliRunner().invoke(app, [], env=asked, prog_name="raeburnmemory")
    assert "verify" in answered.stdout
    assert "backup" not in answered.stdout


def test_only_what_this_python_needs_is_told_and_as_it_is_spelt(monkeypatch):
    here = "{}.{}".format(*sys.version_info)
    lines = [
        f'pystemmer>=3.1; python_version >= "{here}"', f'snowballstemmer>=3.1; python_version < "{here}"', "numpy>=1.26",
        'httpx>=0.27; python_version >= "3.10" and extra == "fastapi"',
    ]  # fmt: skip
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    found = environment()
    assert [(package.name, package.wanted) for package in found.core] == [("PyStemmer", ">=3.1"), ("numpy", ">=1.26")]
    assert [package.name for package in found.extras["fastapi"]] == ["httpx"]
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    assert "words as they are written" in str(environment())
