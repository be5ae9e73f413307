"""Local models: their files, their processes, and talking to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .manager import LlamafileManager
    from .spec import ModelSpec, ModelStatus

__all__ = ["LlamafileManager", "ModelSpec", "ModelStatus"]

_HOMES = {"LlamafileManager": "manager", "ModelSpec": "spec", "ModelStatus": "spec"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
