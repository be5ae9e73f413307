"""The hub's server: `raeburnmemory hub`.

`create_app` makes the application over a `Hub`; `running` opens the ports, holds the folder for one hub alone, and
serves.
"""

from __future__ import annotations

from ..._optional import extra

with extra("hub", module="fastapi"):
    import fastapi as _  # noqa: F401 - says what to install before anything else is imported
with extra("hub", module="prometheus_client"):
    import prometheus_client as _prometheus  # noqa: F401
with extra("hub", module="python_multipart"):
    import python_multipart as _multipart  # noqa: F401

from .access import Access, Principal
from .application import create_app
from .credentials import Credential, Credentials
from .hub import Hub
from .pages import Pages

__all__ = ["Access", "Credential", "Credentials", "Hub", "Pages", "Principal", "create_app"]
