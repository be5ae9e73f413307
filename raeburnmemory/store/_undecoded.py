"""Nodes as a store keeps them, made into `Node`s when somebody looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..nodes import Node

__all__ = ["Undecoded"]

Raw = TypeVar("Raw")


class Undecoded(Mapping[int, "Node"], Generic[Raw]):
    """Nodes by their rows, as they were when this was made. A search reads many, of which few are looked at."""

    def __init__(self, raw: dict[int, Raw], decode: Callable[[Raw], Node]) -> None:
        self._raw, self._decode = raw, decode
        self._made: dict[int, Node] = {}

    def __getitem__(self, row: int) -> Node:
        found = self.get(row)
        if found is None:
            raise KeyError(row)
        return found  # type: ignore[no-any-return]

    def get(self, row: int, default: Any = None) -> Any:
        """Return the node at *row*, or *default*: without the exception that tells a `Mapping` so."""
        found = self._made.get(row)
        if found is None and (raw := self._raw.get(row)) is not None:
            found = self._made[row] = self._decode(raw)
        return default if found is None else found

    def __contains__(self, row: object) -> bool:
        return row in self._raw

    def __iter__(self) -> Iterator[int]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)
