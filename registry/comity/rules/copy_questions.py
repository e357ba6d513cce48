"""Questions about the copies of all artifacts, and answers in which equal copies are written once. Pure.

Most artifacts of a federation have the same few sets of copies. A `CopyFold` is what a page of artifacts comes to: each
different copy and each different set of copies once, how many artifacts have each set, and those artifacts that the
question is about. All that is counted about copies follows from the sets, so who reads the pages keeps nothing for each
artifact. The node that answers and the reader of a whole list fold by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from comity.rules.copy_counts import AssessedCopy, CopyCount, CopyPolicy, Holder, holders, losses, outside
from comity.rules.parties import Party
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

ALL: Final = "all"
SHORT: Final = "short"
UNTESTED: Final = "untested"
LOST: Final = "lost"
WHICH: Final = (ALL, SHORT, UNTESTED, LOST)


@frozen
class CopyQuestion:
    """Which artifacts are listed; all are counted.

    Attributes:
        which: words of WHICH: those of which one is true are listed. `short`: with fewer claimed copies than the policy
            asks for; `untested`: with enough, of which too few are tested; `lost`: of which `party` takes a copy, and
            that have too few without it.
        outside: jurisdictions; only copies outside them count, by seat and by declared reach.
        named: whether names of the listed artifacts are asked for.
    """

    which: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    party: Party | None = None
    named: bool = False

    def holders(self, copies: Sequence[AssessedCopy], own: Digest) -> tuple[Holder, ...]:
        """The members with a copy that counts; that of the member `own`, who is asked, counts as tested."""
        found = holders(copies, own)
        return outside(found, self.outside) if self.outside else found

    def lists(self, found: Sequence[Holder], policy: CopyPolicy) -> bool:
        """Whether an artifact with these holders is listed."""
        if ALL in self.which:
            return True
        count = CopyCount.of(found)
        enough = count.meets(policy)
        return (
            (SHORT in self.which and not enough)
            or (UNTESTED in self.which and enough and not count.tested_meets(policy))
            or (LOST in self.which and self.party is not None and _falls(found, self.party, policy))
        )


def _falls(found: Sequence[Holder], party: Party, policy: CopyPolicy) -> bool:
    return any(True for _ in losses(found, (party,), policy))


@frozen
class CopySet:
    """The copies of an artifact, as numbers in `CopyFold.copies`, and how many artifacts have exactly these."""

    copies: tuple[int, ...]
    artifacts: int


@frozen
class CopyFold:
    """What a page of artifacts comes to.

    Attributes:
        copies: each different copy, without results of audits.
        listed: the artifacts that the question is about, in order; `set_of` has the number of the set of each.
        names: their claimed names, or nothing where they were not asked for.
        last: the last artifact that was counted; None if there was none.
    """

    copies: tuple[AssessedCopy, ...]
    sets: tuple[CopySet, ...]
    listed: tuple[Digest, ...]
    set_of: tuple[int, ...]
    names: tuple[str, ...] = ()
    last: Digest | None = None

    @property
    def counted(self) -> int:
        """The artifacts of the page."""
        return sum(each.artifacts for each in self.sets)

    def whole_sets(self) -> list[tuple[AssessedCopy, ...]]:
        """The copies of each set."""
        return [tuple(self.copies[number] for number in each.copies) for each in self.sets]

    def items(self) -> Iterator[tuple[Digest, str, int]]:
        """Each listed artifact, its name, and the number of its set."""
        names = self.names or ("",) * len(self.listed)
        return zip(self.listed, names, self.set_of, strict=True)


@dataclass(slots=True)
class CopyFolder:
    """Folds artifacts, one after another."""

    question: CopyQuestion
    own: Digest
    policy: CopyPolicy
    listed: list[Digest] = field(default_factory=list)
    last: Digest | None = None
    _copies: dict[AssessedCopy, int] = field(default_factory=dict)
    _numbers: dict[tuple[int, ...], int] = field(default_factory=dict)
    _artifacts: list[int] = field(default_factory=list)
    _lists: list[bool] = field(default_factory=list)
    _set_of: list[int] = field(default_factory=list)

    def room(self, counted: int, listed: int) -> int:
        """How many artifacts can be added in any case, of at most `counted` that are counted and `listed` that are
        listed."""
        return min(counted - sum(self._artifacts), listed - len(self.listed))

    def number(self, copies: Sequence[AssessedCopy]) -> int:
        """The number of the set of these copies."""
        plain = [replace(item, results=()) if item.results else item for item in copies]
        key = tuple(self._copies.setdefault(item, len(self._copies)) for item in plain)
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._artifacts.append(0)
            self._lists.append(self.question.lists(self.question.holders(plain, self.own), self.policy))
        return self._numbers[key]

    def add(self, artifact: Digest, number: int) -> None:
        """Count an artifact that has the set `number`."""
        self._artifacts[number] += 1
        self.last = artifact
        if self._lists[number]:
            self.listed.append(artifact)
            self._set_of.append(number)

    def fold(self, names: tuple[str, ...] = ()) -> CopyFold:
        sets = tuple(CopySet(key, self._artifacts[number]) for key, number in self._numbers.items())
        return CopyFold(tuple(self._copies), sets, tuple(self.listed), tuple(self._set_of), names, self.last)
