"""Local models, documents that become memories, and answers with citations: what runs on one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import DocumentError, HubError, LlamafileError
    from .ingestor import Ingestor
    from .models.manager import LlamafileManager
    from .models.spec import ModelSpec, ModelStatus

__all__ = ["DocumentError", "HubError", "Ingestor", "LlamafileError", "LlamafileManager", "ModelSpec", "ModelStatus"]

_HOMES = {
    **dict.fromkeys(["DocumentError", "HubError", "LlamafileError"], "errors"),
    "Ingestor": "ingestor",
    "LlamafileManager": "models.manager",
    **dict.fromkeys(["ModelSpec", "ModelStatus"], "models.spec"),
}


def __getattr__(name: str) -> Any:
    # Loaded when they are used: documents need no models, and models no parsers.
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
