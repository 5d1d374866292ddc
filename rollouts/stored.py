"""Values that lie in this process or in Ray's object store, and are fetched where they are read.

Without Ray every value is `Stored.here`, and nothing else changes. An object in the store is written once, travels to a
node once, and is read there without a copy by all processes; it is freed when nobody has its reference any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """A value, or the reference of one in Ray's object store."""

    _content: Any  # T, or Ray's ObjectRef of it
    _in_store: bool

    @classmethod
    def here(cls, value: T) -> Stored[T]:
        """A value of this process, which is pickled with whatever holds it."""
        return cls(value, False)

    @classmethod
    def at(cls, reference: Any) -> Stored[T]:
        """The value of a Ray ObjectRef."""
        return cls(reference, True)

    @classmethod
    def put(cls, value: T) -> Stored[T]:
        """Write a value into the object store of this node."""
        import ray

        return cls(ray.put(value), True)

    @property
    def is_here(self) -> bool:
        """True where `fetch` costs nothing."""
        return not self._in_store

    def fetch(self) -> T:
        """The value. Arrays from the store are read-only."""
        return fetch_all([self])[0]


def fetch_all(stored: Sequence[Stored[T]]) -> list[T]:
    """The values in order; all that lie in the store are fetched in one call."""
    references = [own._content for own in stored if own._in_store]
    found: list[Any] = []
    if references:
        import ray

        found = ray.get(references)
    remote = iter(found)
    return [next(remote) if own._in_store else own._content for own in stored]
