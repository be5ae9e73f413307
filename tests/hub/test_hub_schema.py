"""The hub against its own OpenAPI document: no server error, and no answer that is not described there."""

import contextlib

import pytest
from hub_server import Access, Credentials, Hub, create_app
from outside import Fake
from scripted import scripted

pytest.importorskip("schemathesis", reason="requests by the document are made by schemathesis")
import hypothesis
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks

from raeburnmemory import MemoryGraph
from raeburnmemory.hub.fetching import UrlPolicy
from raeburnmemory.hub.models.manager import LlamafileManager

load_all_checks()
TOKEN = "a-long-random-text-of-letters"
# What a document cannot say: that a path is one of this machine, that a time must be one, which of four names is given.
BEYOND = ["positive_data_acceptance", "negative_data_rejection"]
SERVICE = ("/v1/", "/memory/")
OPENAI = {"/v1/chat/completions", "/v1/embeddings", "/v1/models"}


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(scripted())
        server.says("They are watered on Mondays [1].")
        server.on("/v1/embeddings", {"object": "list", "data": [{"index": 0, "embedding": [1.0]}]})
        server.on("/v1/models", {"object": "list", "data": [{"id": "scripted"}]})
        memory = stack.enter_context(MemoryGraph(folder / "memory.db", embedding_model=Fake()))
        memory.add_interaction(
            {"id": "p", "text": "Where is the key?"}, {"id": "r", "text": "Under the pot."}, "a", "s"
        )
        manager = LlamafileManager(folder / "models", catalogue=[], idle_timeout=None)
        hub = Hub(
            memory, manager, folder / "hub", completions_url=server.url, completions_model="scripted",
            url_policy=UrlPolicy(ports=(9,), seconds=1.0),
        )  # fmt: skip
        stack.callback(hub.close)
        hub.events.close()  # or their stream would not end
        hub.projects.create("A")
        access = Access(Credentials(folder / "hub" / "access.json"), 4444, fixed=TOKEN)
        yield create_app(hub, access, hosts=frozenset({"testserver"}))


def asked(application, examples, *, service):
    """Ask every route what its document allows, and what it does not."""
    document = schemathesis.openapi.from_dict(application.openapi())
    document.app = application
    headers = {"Authorization": f"Bearer {TOKEN}"}
    excluded = CHECKS.get_by_names(BEYOND)
    routes = 0
    for found in document.get_all_operations():
        operation = found.ok()
        if not service and operation.path.startswith(SERVICE) and operation.path not in OPENAI:
            continue
        routes += 1

        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def one(case):
            hypothesis.assume(not names_a_folder(case))
            case.call_and_validate(headers=headers, excluded_checks=excluded)

        one()
    return routes


def names_a_folder(case):
    """Tell whether a request names a directory that may be there: it would be read, with all that is below."""
    wanted = [(case.query or {}).get("path")] if isinstance(case.query, dict) else []
    wanted += [case.body.get("path")] if isinstance(case.body, dict) else []
    return any(str(path).startswith(("/", "~")) for path in wanted)


def test_every_route_but_those_of_the_service(application):
    assert asked(application, 2, service=False) > 60


@pytest.mark.long
def test_every_route_at_length(application):
    assert asked(application, 120, service=True) > 80
