"""The definitions for GitHub: they parse, their actions are pinned, and what they run exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def read(path):
    yaml = pytest.importorskip("yaml", reason="reading YAML needs PyYAML")

    class Loader(yaml.SafeLoader):
        """As GitHub reads it: `on` is a name and not true, and no key may be there twice."""

    Loader.yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def mapping(loader, node):
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{path.name}: a key is there twice: {keys}"
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return yaml.load(path.read_text(encoding="utf-8"), Loader)


def steps_of(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_are_those_that_are_promised():
    assert {path.name for path in WORKFLOWS} == {"docs.yml", "release.yml", "test.yml"}
    assert {path.name for path in FORMS} == {"bug.yml", "config.yml", "idea.yml"}


@every_workflow
def test_every_job_is_whole(path):
    workflow = read(path)
    assert set(workflow) <= {"name", "on", "permissions", "concurrency", "jobs"}
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert int(job["timeout-minutes"]) <= 60, name
        system = job["runs-on"]
        systems = job["strategy"]["matrix"]["os"] if "matrix.os" in system else [system]
        assert all(re.fullmatch(r"(ubuntu|macos|windows)-\d\d(\.04)?|windows-\d{4}", one) for one in systems)
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= set(workflow["jobs"])
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            for wanted in re.findall(r"matrix\.(\w+)", str(step)):
                assert wanted in job["strategy"]["matrix"], step


@every_workflow
def test_actions_are_pinned_to_a_commit(path):
    for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_action_has_one_version():
    used = {line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))}
    assert len({line.partition("@")[0] for line in used}) == len(used)


@every_workflow
def test_nothing_from_outside_is_put_into_a_shell(path):
    for step in steps_of(read(path)):
        assert "${{" not in step.get("run", ""), step
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] == "false"


def test_the_matrix_is_what_is_promised():
    workflow = read(ROOT / ".github" / "workflows" / "test.yml")
    matrix = workflow["jobs"]["matrix"]["strategy"]["matrix"]
    source = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert matrix["python"] == re.findall(r"Programming Language :: Python :: (3\.\d+)", source)
    assert [system.partition("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_a_release_is_published_without_a_token():
    workflow = read(ROOT / ".github" / "workflows" / "release.yml")
    publish = workflow["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"]["name"] == "pypi"
    assert publish["needs"] == "build"
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert workflow["on"] == {"push": {"tags": ["v*"]}}


@every_workflow
def test_what_is_run_is_there(path):
    for step in steps_of(read(path)):
        for script in re.findall(r"(?:^|python )((?:scripts|packaging|\.ci)/\S+)", step.get("run", ""), re.MULTILINE):
            if not script.startswith("packaging/") or (ROOT / "packaging").exists():
                assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name)
def test_forms_are_what_github_takes(path):
    form = read(path)
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for part in form["body"]:
        assert part["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert part["attributes"].get("label") or part["type"] == "markdown"


def test_the_citation():
    told = read(ROOT / "CITATION.cff")
    source = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert told["version"] == re.search(r'^version = "(.+)"$', source, re.MULTILINE)[1]
    assert told["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(told)
    assert " AND ".join(told["license"]) == re.search(r'^license = "(.+?)"', source, re.MULTILINE)[1]


def test_scripts_of_the_shell_can_be_run():
    for script in (ROOT / ".ci" / "run", ROOT / ".ci" / "long", ROOT / "scripts" / "wheel_tests"):
        assert script.stat().st_mode & 0o100, script.name
        subprocess.run(["bash", "-n", str(script)], check=True)
