"""The page about HTTP names every route, argument and key that the service has, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raeburnmemory import MemoryGraph

pytest.importorskip("fastapi", reason="the service needs fastapi")
pytest.importorskip("prometheus_client", reason="the service needs prometheus-client")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "http.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def described():
    from raeburnmemory.api import create_app

    with MemoryGraph(":memory:", embedding_model="builtin") as memory:
        yield create_app(memory).openapi()


def table(heading):
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_route_is_there_with_its_arguments(described):
    told = {route: set(code(query)) for routes, query, *_ in table("Routes") for route in code(routes)}
    there = {
        f"{method.upper()} {path}": {
            parameter["name"]
            for parameter in operation.get("parameters", [])
            if parameter["in"] == "query" and parameter["name"] != "namespace"
        }
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    }
    assert told == there


def test_every_object_is_there_with_its_keys(described):
    rows = [*table("What goes in"), *table("What comes out")]
    told = {code(name)[0]: cell for name, cell in rows}
    schemas = described["components"]["schemas"]
    assert set(told) == set(schemas)
    for name, schema in schemas.items():
        named = set(code(told[name])) - set(schemas)
        assert named == set(schema["properties"]), name
    for name, cell in table("What goes in"):
        assert re.findall(r"\*\*`(\w+)`\*\*", cell) == schemas[code(name)[0]].get("required", []), name


def test_every_status_is_there(described):
    told = {status for row in rows_of("Problems") for status in re.findall(r"\d{3}", row.split("|")[1])}
    there = {
        status
        for operations in described["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
        if status >= "400"
    }
    assert told == there


def rows_of(heading):
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if re.match(r"\| \d", line)]
