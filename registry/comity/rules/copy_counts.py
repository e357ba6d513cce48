"""The state of copies, who holds them, and what is left if a party vanishes. Pure.

An audit by a node of *another member* turns the claim of a copy (`comity.trust.copies`) into a tested one, for as long
as its result is fresh. Results are claims of the auditor, and shown as such. A failure counts while it is newer than
every other member's pass, and only if it is *proven* (the node signed an answer that is wrong, and the reader checked
this with its own copy) or if auditors of two members claim one. So one auditor that lies can neither make a copy
disappear from the counts, nor hide that it is the only one who says so; if it lies in favour of a copy, it is named as
the one who tested it. Counts are over distinct members and jurisdictions, never over nodes; and over *reaches*
(`comity.trust.places`), as members declare them: a copy whose place is not declared adds none. Source: protocol,
section 5; decision 31.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from comity.rules.parties import CLOUD, JURISDICTION, MEMBER, PUBLISHER, REACH, Party
from comity.trust.charter.document import CharterPolicy
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.places import Reach, count_reaches, is_outside

FRESH_DAYS: Final = 30
"""Days for which the result of an audit is fresh."""

TESTED: Final = "tested"
CLAIMED: Final = "claimed"
STALE: Final = "stale"
DISPUTED: Final = "disputed"
FAILED: Final = "failed"
WITHDRAWN: Final = "withdrawn"
STATES: Final = (TESTED, CLAIMED, STALE, DISPUTED, FAILED, WITHDRAWN)
NOT_COUNTED: Final = (FAILED, WITHDRAWN)
"""States of a claim that is no copy."""

CLAIMANTS: Final = 2
"""Members whose failures count without proof."""
PASSED: Final = "passed"
MISSED: Final = "missed"


@frozen
class AuditResult:
    """The newest result of one auditor's audits of one copy.

    Attributes:
        auditor: the member whose node logged it. day: counted from 1970, by the auditor's clock.
        outcome: PASSED, MISSED (no answer), or the reason of a failure.
        pieces: the pieces that this auditor tested on that day.
        proven: whether the failure has an answer that the audited node signed and that was found to be wrong here.
    """

    auditor: Digest
    day: int
    outcome: str
    pieces: int = 0
    proven: bool = False

    @property
    def failed(self) -> bool:
        return self.outcome not in (PASSED, MISSED)


@frozen
class ClaimedCopy:
    """A copy that the node of `member` claims in its log. `withdrawn` is the reason, if a withdrawal followed.

    Attributes:
        reach: the jurisdictions whose law reaches it, that of its member included; empty if nothing is declared.
        cloud: the declared parent company of its cloud; empty if there is none, or if nothing is declared.
    """

    member: Digest
    node: Digest
    jurisdiction: str
    withdrawn: str = ""
    reach: Reach = ()
    cloud: str = ""


@frozen
class AssessedCopy:
    """A claimed copy with the results that count for it: of each other member the newest pass or failure, and the
    newest audit without an answer."""

    copy: ClaimedCopy
    state: str
    results: tuple[AuditResult, ...]

    @property
    def counts(self) -> bool:
        """Whether it counts as a claimed copy."""
        return self.state not in NOT_COUNTED


def assess(copy: ClaimedCopy, results: Iterable[AuditResult], today: int, fresh_days: int = FRESH_DAYS) -> AssessedCopy:
    """The state of a copy on the day `today`.

    A failure counts if no other auditor's fresh pass is of the same day or later, and if it is proven or CLAIMANTS
    members claim one; a claim of fewer makes an untested copy *disputed*, and it still counts. Results from after
    tomorrow are ignored: an auditor's clock may be wrong, and a result from the future would never become stale.
    """
    newest: dict[tuple[Digest, bool], AuditResult] = {}
    for result in results:
        if result.auditor != copy.member and result.day <= today + 1:
            key = result.auditor, result.outcome == MISSED
            if key not in newest or result_rank(result) > result_rank(newest[key]):
                newest[key] = result
    found = tuple(sorted(newest.values(), key=lambda result: (-result.day, result.auditor)))
    fresh = [result for result in found if result.day > today - fresh_days]
    passed = [result.day for result in fresh if result.outcome == PASSED]
    failed = [result for result in fresh if result.failed and result.day > max(passed, default=-1)]
    if copy.withdrawn:
        state = WITHDRAWN
    elif len(failed) >= CLAIMANTS or any(result.proven for result in failed):
        state = FAILED
    elif passed:
        state = TESTED
    elif failed:
        state = DISPUTED
    else:
        state = STALE if any(result.outcome == PASSED for result in found) else CLAIMED
    return AssessedCopy(copy, state, found)


def next_change(results: Iterable[AuditResult], today: int, fresh_days: int = FRESH_DAYS) -> int | None:
    """The first day after `today` on which `assess` may give another state from the same results: one of them becomes
    stale, or is from after tomorrow no more. None if there is no such day."""
    days = (result.day - 1 if result.day > today + 1 else result.day + fresh_days for result in results)
    return min((day for day in days if day > today), default=None)


def result_rank(result: AuditResult) -> tuple[int, bool, bool]:
    """The later result counts; on one day a failure counts before a pass, and one that is proven before another."""
    return result.day, result.failed, result.proven


@frozen
class CopyPolicy:
    """What a charter asks for each artifact."""

    min_copies: int
    min_jurisdictions: int
    min_reaches: int = 0

    @classmethod
    def of(cls, policy: CharterPolicy | None) -> CopyPolicy:
        """That of a charter; without a charter, one copy."""
        return cls(policy.min_copies, policy.min_jurisdictions, policy.min_reaches) if policy else cls(1, 1)

    def __str__(self) -> str:
        """`3 in 3 jurisdictions and 2 reaches`."""
        return f"{self.min_copies} in {self.min_jurisdictions} jurisdictions" + (
            f" and {self.min_reaches} reaches" if self.min_reaches else ""
        )


@frozen
class Holder:
    """A member with a copy that counts; `tested` if an audit of one of its nodes' copies counts.

    Attributes:
        reach: the jurisdictions that reach every copy of this member, among those with a declared place.
        cloud: the declared cloud of all its copies; empty if they are not all on one.
    """

    member: Digest
    jurisdiction: str
    tested: bool
    reach: Reach = ()
    cloud: str = ""

    @classmethod
    def of(cls, copies: Sequence[AssessedCopy], own: Digest | None = None) -> Holder:
        """The member of `copies`, which are its own."""
        first = copies[0].copy
        tested = first.member == own or any(item.state == TESTED for item in copies)
        declared = [frozenset(item.copy.reach) for item in copies if item.copy.reach]
        clouds = {item.copy.cloud for item in copies}
        reach = tuple(sorted(frozenset.intersection(*declared))) if declared else ()
        return cls(first.member, first.jurisdiction, tested, reach, clouds.pop() if len(clouds) == 1 else "")


def holders(copies: Iterable[AssessedCopy], own: Digest | None = None) -> tuple[Holder, ...]:
    """The members with a copy that counts, each once. The copy of the member `own` counts as tested: its own node reads
    it again all the time."""
    found: dict[Digest, list[AssessedCopy]] = {}
    for item in copies:
        if item.counts:
            found.setdefault(item.copy.member, []).append(item)
    return tuple(Holder.of(items, own) for items in found.values())


def outside(found: Iterable[Holder], excluded: Collection[str]) -> tuple[Holder, ...]:
    """The holders outside some jurisdictions, by seat and by declared reach; one that declares nothing is not."""
    return tuple(holder for holder in found if is_outside(holder.jurisdiction, holder.reach, excluded))


@frozen
class CopyCount:
    """Distinct members and jurisdictions with a copy, and the fewest jurisdictions that reach all of them: as claimed,
    and as tested. `undeclared` counts members that declare no place of their copy."""

    copies: int
    jurisdictions: int
    tested: int
    tested_jurisdictions: int
    reaches: int = 0
    tested_reaches: int = 0
    undeclared: int = 0

    @classmethod
    def of(cls, found: Iterable[Holder]) -> CopyCount:
        everybody = tuple(found)
        tested = [holder for holder in everybody if holder.tested]
        return cls(
            len(everybody),
            len({holder.jurisdiction for holder in everybody}),
            len(tested),
            len({holder.jurisdiction for holder in tested}),
            count_reaches(holder.reach for holder in everybody),
            count_reaches(holder.reach for holder in tested),
            sum(not holder.reach for holder in everybody),
        )

    def meets(self, policy: CopyPolicy) -> bool:
        """Whether the claimed copies are enough."""
        return (
            self.copies >= policy.min_copies
            and self.jurisdictions >= policy.min_jurisdictions
            and self.reaches >= policy.min_reaches
        )

    def tested_meets(self, policy: CopyPolicy) -> bool:
        return (
            self.tested >= policy.min_copies
            and self.tested_jurisdictions >= policy.min_jurisdictions
            and self.tested_reaches >= policy.min_reaches
        )


@frozen
class Loss:
    """An artifact with too few copies left without a party. `before` and `after` count its copies."""

    artifact: Digest
    before: CopyCount
    after: CopyCount

    @property
    def gone(self) -> bool:
        """Whether nobody else claims a copy."""
        return self.after.copies == 0


def losses(
    found: Sequence[Holder], parties: Collection[Party], policy: CopyPolicy
) -> Iterator[tuple[Party, CopyCount, CopyCount]]:
    """Each of these parties without which an artifact with these holders has too few copies, and the counts before and
    after. One that is below the policy already is so where the party takes one of its copies."""
    before = CopyCount.of(found)
    for party in dict.fromkeys(party for holder in found for party in parties_of(holder) if party in parties):
        after = CopyCount.of(holder for holder in found if party not in parties_of(holder))
        if not after.meets(policy):
            yield party, before, after


def parties_of(holder: Holder) -> tuple[Party, ...]:
    """Every party whose loss takes the copy of this holder."""
    codes = dict.fromkeys((holder.jurisdiction, *holder.reach))
    return (
        Party(MEMBER, holder.member),
        Party(PUBLISHER, holder.member),
        Party(JURISDICTION, holder.jurisdiction),
        *(Party(REACH, code) for code in codes),
        *((Party(CLOUD, holder.cloud),) if holder.cloud else ()),
    )
