"""Items in turns, so that one with many does not displace others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")


def in_turns(items: Iterable[T], *keys: Callable[[T], Hashable]) -> list[T]:
    """The first item of each key, then the second of each, and so on, keys in the order of their first items. With
    several keys, the items of one first key take turns by the second one in the same way."""
    if not keys:
        return list(items)
    queues: dict[Hashable, list[T]] = {}
    for item in items:
        queues.setdefault(keys[0](item), []).append(item)
    ordered = [[(item,) for item in in_turns(queue, *keys[1:])] for queue in queues.values()]
    return [box[0] for row in zip_longest(*ordered) for box in row if box is not None]
