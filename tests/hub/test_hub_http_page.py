"""The page about the hub's HTTP names every route, with its scope, arguments and keys, and no other."""

import re
from pathlib import Path

import pytest
from hub_server import Access, Credentials, Hub, create_app

from raeburnmemory import MemoryGraph
from raeburnmemory.hub.models.manager import LlamafileManager

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "hub-http.md").read_text(encoding="utf-8")
OF_THE_SERVICE = ("/v1/", "/memory/")  # on a page of their own
OPENAI = ("/v1/chat/completions", "/v1/embeddings", "/v1/models")


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    credentials = Credentials(folder / "access.json")
    with MemoryGraph(":memory:", embedding_model="builtin") as memory:
        hub = Hub(memory, LlamafileManager(folder / "models", catalogue=[], idle_timeout=None), folder / "hub")
        made = create_app(hub, Access(credentials, 4444), hosts=frozenset({"testserver"}))
        token, _ = credentials.redeem(credentials.new_code(scopes=()), "nobody")
        yield made, token
        hub.close()


@pytest.fixture(scope="module")
def operations(application):
    described = application[0].openapi()
    return described["components"]["schemas"], {
        f"{method.upper()} {path}": operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if path in OPENAI or not path.startswith(OF_THE_SERVICE)
    }


@pytest.fixture(scope="module")
def told():
    rows = [re.split(r"\s*\|\s*", line)[1:5] for line in PAGE.splitlines() if line.startswith("| `")]
    return {route.strip("`"): (scope, takes) for route, scope, takes, _ in rows}


def wanted(names, required, mark=""):
    return {f"**`{mark}{name}`**" if name in required else f"`{mark}{name}`" for name in names}


def schema_of(schemas, schema):
    """Return the schema of a body that may be left out, or that has a name, itself."""
    for one in schema.get("anyOf", []):
        return schema_of(schemas, one)
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def test_every_route_is_there_with_its_arguments_and_keys(operations, told):
    schemas, there = operations
    assert set(told) == set(there)
    for route, operation in there.items():
        queries = [one for one in operation.get("parameters", []) if one["in"] == "query"]
        taken = wanted([one["name"] for one in queries], [one["name"] for one in queries if one.get("required")], "?")
        (content,) = operation.get("requestBody", {}).get("content", {"": {"schema": {}}}).values()
        schema = schema_of(schemas, content["schema"])
        taken |= wanted(schema.get("properties", {}), schema.get("required", []))
        assert set(told[route][1].split(", ")) - {""} == taken, route


def test_every_route_wants_the_scope_that_is_told(application, operations, told):
    """Somebody who may do nothing asks everything."""
    from fastapi.testclient import TestClient

    client = TestClient(application[0])
    headers = {"Authorization": f"Bearer {application[1]}"}
    for route in operations[1]:
        method, _, path = route.partition(" ")
        answer = client.request(method, re.sub(r"\{\w+\}", "1", path), headers=headers)
        named = re.search(r"needs the scope '(\w+)'", answer.text)
        assert (named[1] if named else "none") == told[route][0], (route, answer.status_code)
        assert (answer.status_code == 403) == (named is not None), route
