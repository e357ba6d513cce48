"""Copies of artifacts: who says that it holds one, who tested that, and what is left if a party vanishes. Pure.

A `hold` is a node's claim, in its own log, that it holds every byte; a later `hold-withdrawn` there ends it:

    {"basis":"order 12/2027 of …","by":{"node":"…"},"forced":false,"hold":17,"kept":true,"reason":"legal-order"}

An audit by a node of *another member* turns the claim into a tested one, for as long as its result is fresh.
Results are claims of the auditor, and shown as such. A failure counts while it is newer than every other member's pass,
and only if it is *proven* (the node signed an answer that is wrong, and the reader checked this with its own copy) or
if auditors of two members claim one. So one auditor that lies can neither make a copy disappear from the counts, nor
hide that it is the only one who says so; if it lies in favour of a copy, it is named as the one who tested it. Counts
are over distinct members and jurisdictions, never over nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Digest, Json
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, Statement, Subject, sign_statement
from comity.trust.statements import NodeRecord

HOLD_WITHDRAWN: Final = "hold-withdrawn"
WITHDRAWAL_REASONS: Final = ("space", "retention", "legal-order", "licence", "safety", "damaged", "other")
MAX_BASIS: Final = 4_000

FRESH_DAYS: Final = 30
"""Days for which the result of an audit is fresh."""

TESTED: Final = "tested"
CLAIMED: Final = "claimed"
STALE: Final = "stale"
DISPUTED: Final = "disputed"
FAILED: Final = "failed"
WITHDRAWN: Final = "withdrawn"
STATES: Final = (TESTED, CLAIMED, STALE, DISPUTED, FAILED, WITHDRAWN)

CLAIMANTS: Final = 2
"""Members whose failures count without proof."""
PASSED: Final = "passed"
MISSED: Final = "missed"


@dataclass(frozen=True, slots=True)
class HoldWithdrawn:
    """A node ends its `hold` of `artifact`, which is entry `hold` of its log. `kept`: it keeps the bytes without
    serving them; `forced`: it did not ask whether enough others hold a copy."""

    by: Author
    artifact: Digest
    hold: int
    reason: str
    basis: str
    kept: bool = False
    forced: bool = False


def sign_hold_withdrawn(record: NodeRecord, withdrawn: HoldWithdrawn, online: Signer) -> Entry:
    """Raises Malformed if the statement is not valid."""
    body: dict[str, Json] = {
        "basis": withdrawn.basis,
        "forced": withdrawn.forced,
        "hold": withdrawn.hold,
        "kept": withdrawn.kept,
        "reason": withdrawn.reason,
    }
    statement = Statement(HOLD_WITHDRAWN, (Subject("", withdrawn.artifact),), record.node, body)
    parse_hold_withdrawn(statement)
    return sign_statement(statement, online)


def parse_hold_withdrawn(statement: Statement) -> HoldWithdrawn:
    """Raises Malformed."""
    if statement.predicate != HOLD_WITHDRAWN or statement.by is None or statement.by.kind != "node":
        raise Malformed("hold-withdrawn is malformed", why="not a hold-withdrawn statement of a node")
    fields = statement.fields()
    kept, forced = fields.take("kept"), fields.take("forced")
    if not (isinstance(kept, bool) and isinstance(forced, bool)):
        raise fields.error("'kept' and 'forced' must be true or false")
    hold, reason = fields.integer("hold"), fields.choice("reason", WITHDRAWAL_REASONS)
    basis = fields.text("basis", least=0, most=MAX_BASIS, lines=True)
    fields.done()
    return HoldWithdrawn(statement.by, statement.sole_subject(), hold, reason, basis, kept, forced)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class ClaimedCopy:
    """A copy that the node of `member` claims in its log. `withdrawn` is the reason, if a withdrawal followed."""

    member: Digest
    node: Digest
    jurisdiction: str
    withdrawn: str = ""


@dataclass(frozen=True, slots=True)
class AssessedCopy:
    """A claimed copy with the results that count for it: of each other member the newest pass or failure, and the
    newest audit without an answer."""

    copy: ClaimedCopy
    state: str
    results: tuple[AuditResult, ...]

    @property
    def counts(self) -> bool:
        """Whether it counts as a claimed copy."""
        return self.state not in (WITHDRAWN, FAILED)


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
            if key not in newest or _rank(result) > _rank(newest[key]):
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


def _rank(result: AuditResult) -> tuple[int, bool]:
    """The later result counts; on one day a failure counts before a pass."""
    return result.day, result.failed


@dataclass(frozen=True, slots=True)
class CopyPolicy:
    """What a charter asks for each artifact."""

    min_copies: int
    min_jurisdictions: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A member with a copy that counts; `tested` if an audit of one of its nodes' copies counts."""

    member: Digest
    jurisdiction: str
    tested: bool


def holders(copies: Iterable[AssessedCopy], own: Digest | None = None) -> tuple[Holder, ...]:
    """The members with a copy that counts, each once. The copy of the member `own` counts as tested: its own node reads
    it again all the time."""
    found: dict[Digest, Holder] = {}
    for item in copies:
        if item.counts:
            member = item.copy.member
            tested = item.state == TESTED or member == own or (member in found and found[member].tested)
            found[member] = Holder(member, item.copy.jurisdiction, tested)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class CopyCount:
    """Distinct members and jurisdictions with a copy: as claimed, and as tested."""

    copies: int
    jurisdictions: int
    tested: int
    tested_jurisdictions: int

    @classmethod
    def of(cls, found: Iterable[Holder]) -> CopyCount:
        everybody = tuple(found)
        tested = [holder for holder in everybody if holder.tested]
        return cls(
            len(everybody),
            len({holder.jurisdiction for holder in everybody}),
            len(tested),
            len({holder.jurisdiction for holder in tested}),
        )

    def meets(self, policy: CopyPolicy) -> bool:
        """Whether the claimed copies are enough."""
        return self.copies >= policy.min_copies and self.jurisdictions >= policy.min_jurisdictions

    def tested_meets(self, policy: CopyPolicy) -> bool:
        return self.tested >= policy.min_copies and self.tested_jurisdictions >= policy.min_jurisdictions


@dataclass(frozen=True, slots=True)
class Party:
    """What may vanish at once: `kind` is `member`, `jurisdiction` or `publisher`; `name` its id or code. A publisher
    that is no member holds no copies: only its signature is lost, and that is in the logs."""

    kind: str
    name: str

    def takes(self, holder: Holder) -> bool:
        return self.name == (holder.jurisdiction if self.kind == "jurisdiction" else holder.member)


@dataclass(frozen=True, slots=True)
class Loss:
    """An artifact with too few copies left without a party. `before` and `after` count its copies."""

    artifact: Digest
    before: CopyCount
    after: CopyCount

    @property
    def gone(self) -> bool:
        """Whether nobody else claims a copy."""
        return self.after.copies == 0


def impact(
    artifacts: Iterable[tuple[Digest, Sequence[Holder]]], parties: Sequence[Party], policy: CopyPolicy
) -> Mapping[Party, list[Loss]]:
    """What drops below the policy, for each party, if that party vanished. An artifact that is below it already is
    listed where the party takes one of its copies. One pass; the cost is that of all copies."""
    losses: dict[Party, list[Loss]] = {party: [] for party in parties}
    by_member = {party.name: party for party in parties if party.kind != "jurisdiction"}
    by_jurisdiction = {party.name: party for party in parties if party.kind == "jurisdiction"}
    for artifact, found in artifacts:
        before = CopyCount.of(found)
        for party in dict.fromkeys(_touching(found, by_member, by_jurisdiction)):
            after = CopyCount.of(holder for holder in found if not party.takes(holder))
            if not after.meets(policy):
                losses[party].append(Loss(artifact, before, after))
    return losses


def _touching(
    found: Iterable[Holder], by_member: Mapping[str, Party], by_jurisdiction: Mapping[str, Party]
) -> Iterator[Party]:
    for holder in found:
        if holder.member in by_member:
            yield by_member[holder.member]
        if holder.jurisdiction in by_jurisdiction:
            yield by_jurisdiction[holder.jurisdiction]
