"""The HTTP service: `raeburnmemory serve`, or `uvicorn raeburnmemory.api:app`.

`app` reads its settings from the environment, see the page on environment variables. `get_memory_graph` is the FastAPI
dependency that gives routes their memory; tests and programs of one's own override it in
`app.dependency_overrides`. `create_app` makes another application, for a memory that is open already.
"""

from __future__ import annotations

from .._optional import extra

with extra("fastapi", module="fastapi"):
    import fastapi as _  # noqa: F401 - says what to install before anything else is imported
with extra("fastapi", module="prometheus_client"):
    import prometheus_client as _prometheus  # noqa: F401

from .application import app, create_app
from .serving import get_memory_graph

__all__ = ["app", "create_app", "get_memory_graph"]
