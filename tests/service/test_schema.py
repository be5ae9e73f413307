"""The service against its own OpenAPI document: no server error, and no answer that is not described there."""

from __future__ import annotations

import pytest
from outside import Fake

pytest.importorskip("fastapi", reason="the service needs fastapi")
pytest.importorskip("prometheus_client", reason="the service needs prometheus-client")
pytest.importorskip("schemathesis", reason="requests by the document are made by schemathesis")
import hypothesis
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks

from raeburnmemory import MemoryGraph
from raeburnmemory.api import create_app
from raeburnmemory.web import Settings

load_all_checks()
KEY = "a-long-random-text"
# What a document cannot say: that a time must be one, that a vector has the length of the model, that a form for null
# in a query is none.
BEYOND = ["positive_data_acceptance", "negative_data_rejection"]


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    with MemoryGraph(tmp_path_factory.mktemp("schema") / "memory.db", embedding_model=Fake()) as made:
        made.add_interaction({"id": "p", "text": "Where is the key?"}, {"id": "r", "text": "Under the pot."}, "a", "s")
        yield made


def asked(memory, key, examples):
    """Ask every route what its document allows, and what it does not."""
    application = create_app(memory, Settings(key=None if key is None else key.encode()))
    document = schemathesis.openapi.from_dict(application.openapi())
    document.app = application
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    excluded = CHECKS.get_by_names(BEYOND if key else [*BEYOND, "ignored_auth"])
    routes = 0
    for found in document.get_all_operations():
        operation, routes = found.ok(), routes + 1

        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def one(case):
            case.call_and_validate(headers=headers, excluded_checks=excluded)

        one()
        case = operation.Case()
        if key is not None and operation.path not in {"/healthz", "/readyz"}:
            case.path_parameters = {"node_id": "p"}
            assert case.call(headers={}).status_code == 401
    assert routes > 15


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "with a key"])
def test_every_route(memory, key):
    asked(memory, key, 4)


@pytest.mark.long
@pytest.mark.parametrize("key", [None, KEY], ids=["open", "with a key"])
def test_every_route_at_length(memory, key):
    asked(memory, key, 300)
