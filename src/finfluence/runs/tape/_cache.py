"""What was computed of a tape and is asked for again, keyed by everything that it depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True)
class Key(Generic[T]):
    """What a cached value of type T depends on: subclass as a frozen dataclass with one field for each input.

    Two keys are equal if they are of one class and all of their fields are equal.
    """


class Cache:
    """Values by key; each is made once.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Squared(Key[int]):
    ...     number: int
    >>> cache = Cache()
    >>> cache.get(Squared(3), lambda: 9), cache.get(Squared(3), lambda: 0)
    (9, 9)
    """

    def __init__(self) -> None:
        self._values: dict[Key[Any], Any] = {}

    def get(self, key: Key[T], make: Callable[[], T]) -> T:
        """Return the value of `key`, made by `make` when it is first asked for."""
        if key not in self._values:
            self._values[key] = make()
        return cast(T, self._values[key])
