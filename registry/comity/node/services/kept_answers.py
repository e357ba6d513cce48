"""Answers that are kept while nothing is proven: most are asked for again before they change.

They are right at one position: the number of the newest verified statement, and what the charter says. A new statement,
of anybody, has all of them forgotten: then an answer costs what it would without this module.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from comity.trust.frozen import frozen
from comity.wire.messages import LocatedEntry

V = TypeVar("V")
MAX_WEIGHT: Final = 16 * 1024 * 1024
"""Bytes of the answers that are kept, with their questions."""
MAX_ANSWER_WEIGHT: Final = MAX_WEIGHT // 8
"""Bytes of one of them, so that it does not displace all others."""
ENTRY: Final = 400
"""Bytes of an entry beside its line."""
LIKELY_WEIGHT: Final = 2 * 1024 * 1024
"""Bytes of what is kept of the questions that are probably asked together."""
QUESTION: Final = 1_000
"""Bytes of a question, and of each author whom it names, at most."""


@frozen
class KeptAnswer:
    """An answer as a whole. `limited`: a limit left something out."""

    entries: tuple[LocatedEntry, ...]
    limited: bool


class KeptAnswers(Generic[V]):
    """The answers that were given last, by question. Not thread-safe: use it on the event loop.

    Args:
        most: bytes in memory of all of them together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._position: Hashable = None
        self._answers: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._weight = 0

    def get(self, position: Hashable, question: Hashable) -> V | None:
        """Return the answer at this position, which is the newest; None for answers that never change. Those of another
        position are forgotten."""
        if position != self._position:
            self._position, self._weight = position, 0
            self._answers.clear()
        if (found := self._answers.get(question)) is None:
            return None
        self._answers.move_to_end(question)
        return found[0]

    def keep(self, position: Hashable, question: Hashable, answer: V, weight: int) -> None:
        """Keep what was read since `get` was called with this position and question, unless it was called with a newer
        position since.

        Args:
            weight: bytes in memory of the answer and its question.
        """
        if position != self._position or question in self._answers:
            return
        self._answers[question] = answer, weight
        self._weight += weight
        while self._weight > self._most:
            _, (_, oldest) = self._answers.popitem(last=False)
            self._weight -= oldest
