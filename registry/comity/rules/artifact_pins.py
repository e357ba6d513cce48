"""Pins of artifacts: what a node keeps available, how it counts the copies, and how it asks others for more. Pure.

The operator of a node pins an artifact with a policy: so many copies, in so many jurisdictions and reaches. The node
keeps a copy of its own, and counts the copies of others by what *it verified itself*: its own newest audit of the copy
passed, and the copy's node answers it. What others claim or audited changes no count. Where too few are verified, it
asks openly, in its own log, and it ends that when the pin is met, changed or removed:

    wanted            {"by":{"node":"…"},"copies":3,"jurisdictions":3,"reaches":2}
    wanted-withdrawn  {"by":{"node":"…"},"reason":"met","wanted":17}

Nobody is obliged to answer: a node copies for others only what its operator's mirror rules allow (`wanted_by`). Nodes
that may answer take turns in an order that each computes (`answer_turn`), so that not all of them copy at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, ClassVar, Final

from comity.rules.copy_counts import (
    CLAIMED,
    FRESH_DAYS,
    MISSED,
    PASSED,
    TESTED,
    AssessedCopy,
    AuditResult,
    ClaimedCopy,
    CopyCount,
    CopyPolicy,
    holders,
)
from comity.trust.codec import JsonNumber, JsonWord
from comity.trust.content import ByAuthor, Content, Label, SubjectDigest
from comity.trust.encoding import Digest, Fields, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.places import MOST_REACHES
from comity.trust.statement import Author, Statement
from comity.trust.statement_kinds import WANTED, WANTED_WITHDRAWN

WANTED_ENDS: Final = ("met", "changed", "unpinned")
"""Why a node does not ask any more."""
MAX_WANTED_COPIES: Final = 200
MAX_WANTED: Final = 1_000
"""Artifacts that one node pins, and open `wanted` statements of one log that others count."""

HERE: Final = "here"
VERIFIED: Final = "verified"
SILENT: Final = "silent"
FAILED: Final = "failed"
PINNED_STATES: Final = (HERE, VERIFIED, CLAIMED, SILENT, FAILED)


def check_pin_policy(policy: CopyPolicy) -> CopyPolicy:
    """Raises Malformed (PIN-POLICY) for a policy that no number of copies meets, or that asks for too much."""
    copies, jurisdictions, reaches = policy.min_copies, policy.min_jurisdictions, policy.min_reaches
    if not 1 <= copies <= MAX_WANTED_COPIES:
        raise _unusable(f"copies must be a number from 1 to {MAX_WANTED_COPIES}")
    if not 1 <= jurisdictions <= copies:
        raise _unusable("jurisdictions must be a number from 1 to the number of copies")
    if not 0 <= reaches <= min(copies, MOST_REACHES):
        raise _unusable(f"reaches must be a number from 0 to the number of copies, at most {MOST_REACHES}")
    return policy


def _unusable(why: str) -> Malformed:
    return Malformed("these copies cannot be asked for", why=why, hint="ask for other numbers", code="PIN-POLICY")


@frozen
class Pin:
    """An artifact that a node keeps available. `name` is how its operator named it."""

    artifact: Digest
    name: str
    policy: CopyPolicy

    def __post_init__(self) -> None:
        check_pin_policy(self.policy)


class _PolicyNumber(JsonNumber):
    """Of which `check_pin_policy` says the bounds."""

    def read(self, fields: Fields, name: str) -> int:
        return fields.integer(name)


@frozen
class Wanted(Content):
    """A node asks others for copies of an artifact, until the policy is met. `label` makes a repeated statement another
    one."""

    predicate: ClassVar = WANTED
    by: ByAuthor
    artifact: SubjectDigest
    copies: Annotated[int, _PolicyNumber(1, MAX_WANTED_COPIES)]
    jurisdictions: Annotated[int, _PolicyNumber(1, MAX_WANTED_COPIES), "At most as many as copies."]
    reaches: Annotated[int, _PolicyNumber(0, MOST_REACHES), "At most as many as copies."]
    label: Label = ""

    @classmethod
    def of(cls, by: Author, pin: Pin, label: str = "") -> Wanted:
        policy = pin.policy
        return cls(by, pin.artifact, policy.min_copies, policy.min_jurisdictions, policy.min_reaches, label)

    @property
    def policy(self) -> CopyPolicy:
        return CopyPolicy(self.copies, self.jurisdictions, self.reaches)

    def check(self, statement: Statement) -> None:
        check_pin_policy(self.policy)


@frozen
class WantedWithdrawn(Content):
    """A node asks for copies no longer. It ends its `wanted`, which is entry `wanted` of its log."""

    predicate: ClassVar = WANTED_WITHDRAWN
    by: ByAuthor
    artifact: SubjectDigest
    wanted: int
    reason: Annotated[str, JsonWord(WANTED_ENDS)]


@frozen
class PinnedCopy:
    """A copy as the node that pins the artifact counts it.

    here      its own, of which every file is stored
    verified  its own newest audit of it passed within FRESH_DAYS, and the copy's node answers
    claimed   the copy's node says so, and answers; it is not verified yet
    silent    the copy's node does not answer
    failed    its own newest audit of it failed
    """

    copy: ClaimedCopy
    state: str

    @classmethod
    def of(
        cls, copy: ClaimedCopy, results: Iterable[AuditResult], own: Digest, today: int, *, answers: bool
    ) -> PinnedCopy:
        """A copy of another member. Of `results` only those of the member `own` count."""
        days: dict[str, list[int]] = {PASSED: [], FAILED: [], MISSED: []}
        for result in results:
            if result.auditor == own and result.day <= today + 1:
                days[FAILED if result.failed else result.outcome].append(result.day)
        passed, failed, missed = (max(days[kind], default=None) for kind in (PASSED, FAILED, MISSED))
        if failed is not None and (passed is None or failed >= passed):
            return cls(copy, FAILED)
        if not answers:
            return cls(copy, SILENT)
        fresh = passed is not None and passed > today - FRESH_DAYS and (missed is None or missed <= passed + 1)
        return cls(copy, VERIFIED if fresh else CLAIMED)


@frozen
class PinnedArtifact:
    """The copies of a pinned artifact, each as the node that pins it counts it; withdrawn ones are left out."""

    pin: Pin
    copies: tuple[PinnedCopy, ...]

    @property
    def verified(self) -> CopyCount:
        """The own copy, and those that this node verified."""
        return self._count(HERE, VERIFIED)

    @property
    def hoped(self) -> CopyCount:
        """Besides these, those that are claimed and whose nodes answer."""
        return self._count(HERE, VERIFIED, CLAIMED)

    @property
    def met(self) -> bool:
        return self.verified.meets(self.pin.policy)

    @property
    def missing(self) -> int:
        """Copies that are missing in the count; other copies may be missing for jurisdictions and reaches."""
        return max(0, self.pin.policy.min_copies - self.verified.copies)

    def _count(self, *states: str) -> CopyCount:
        counted = (item for item in self.copies if item.state in states)
        return CopyCount.of(holders(AssessedCopy(item.copy, TESTED, ()) for item in counted))


def answer_turn(
    artifact: Digest, own: Digest, places: Mapping[Digest, str], holding: Collection[Digest], missing: int
) -> int:
    """How many turns the member `own` leaves to others before it answers: 0 for at once.

    `places` has the jurisdiction of each active member that may answer; `holding` are members that claim a copy. The
    order is computed from the artifact, so that another member begins with each; members in jurisdictions without a
    copy come first. In each turn as many members answer as copies are missing.
    """
    reached = {places[member] for member in holding if member in places}

    def rank(member: Digest) -> tuple[bool, Digest]:
        return places[member] in reached, sha256(f"{artifact} {member}".encode())

    before = sum(rank(member) < rank(own) for member in places if member not in holding)
    return before // max(1, missing)
