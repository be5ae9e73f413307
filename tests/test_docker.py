"""The Docker files, as far as they can be tried without a daemon: what they name exists, and what they start starts."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("Dockerfile.*"))
ENTRY = DOCKER / "entrypoint.sh"

KNOWN = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "EXPOSE", "ENTRYPOINT", "CMD", "USER", "VOLUME", "HEALTHCHECK"}


def instructions(path):
    """Return the instructions of a Docker file: word and the rest, lines that go on joined, comments left out."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def the(path, word):
    return [rest for each, rest in instructions(path) if each == word]


def started(path):
    """Return what a container runs: the entry point, and the command for it."""
    return [json.loads((the(path, word) or ["[]"])[-1]) for word in ("ENTRYPOINT", "CMD")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_docker_file_is_one(path):
    words = [word for word, _ in instructions(path)]
    assert words[0] == "FROM"
    assert set(words) <= KNOWN
    for base in the(path, "FROM"):
        assert re.fullmatch(r"\S+:\S*\d\S*( AS \w+)?", base), "a base has a version"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_it_copies_exists_and_is_sent_to_the_daemon(path):
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    stages = {base.rpartition(" AS ")[2] for base in the(path, "FROM") if " AS " in base}
    for rest in the(path, "COPY"):
        *sources, _ = shlex.split(rest)
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source.removeprefix("./").partition("/")[0] in sent


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_it_installs_is_an_extra_of_ours(path):
    tomllib = pytest.importorskip("tomllib", reason="pyproject.toml is read with Python's own reader, from 3.11 on")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = re.findall(r"'\.\[([\w,]+)\]'", "\n".join(the(path, "RUN")))
    assert found
    assert {name for each in found for name in each.split(",")} <= extras.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_it_starts_exists(path):
    entry, command = started(path)
    if entry:
        assert entry == ["hub-entrypoint"]
        assert "docker/entrypoint.sh /usr/local/bin/hub-entrypoint" in the(path, "COPY")
        assert command[-2:] == ["hub", "--no-browser"]
        assert "raeburnmemory" in command
    else:
        program, script = command
        assert program == "python"
        assert (ROOT / script).is_file()


def test_the_entry_point_can_be_run_and_makes_up_a_token_where_none_is_set():
    shell = shutil.which("sh")
    assert ENTRY.stat().st_mode & 0o111
    told = [sys.executable, "-c", "import os; print(os.environ['RAEBURN_HUB_TOKEN'])"]
    folder = str(Path(sys.executable).parent)
    for given, length in ({}, 43), ({"RAEBURN_HUB_TOKEN": "x" * 24}, 24):
        environment = {"PATH": f"{folder}:/usr/bin:/bin", **given}
        done = subprocess.run([shell, str(ENTRY), *told], capture_output=True, text=True, env=environment, check=True)
        assert len(done.stdout.strip()) == length


def test_the_image_for_running_runs_without_root_and_looks_after_its_health():
    path = DOCKER / "Dockerfile.hub"
    after = instructions(path)
    words = [word for word, _ in after]
    last = len(words) - 1 - words[::-1].index("USER")
    assert after[last][1] not in {"root", "0"}
    assert f"useradd --uid 10001 --create-home --shell /usr/sbin/nologin {after[last][1]}" in " ".join(the(path, "RUN"))
    assert last < words.index("HEALTHCHECK")
    assert json.loads(the(path, "VOLUME")[0]) == ["/data"]
    settings = dict(pair.split("=", 1) for line in the(path, "ENV") for pair in shlex.split(line))
    assert all(settings[name].startswith("/data/") for name in ("RAEBURN_HUB_HOME", "LLAMAFILES_DIR"))
