"""Which approvals of an artifact count: those of the officers whom the owner of the policy names, at the policy's time.

The policy names officers by the ids of their identities, like publishers; a member of a pinned charter may be one too.
Statements of anybody else are skipped before their signatures are checked. An approval counts from its `from` until its
`until`, unless its officer ended it before; an officer can end only approvals of their own. Keys are judged as those of
a publisher are, and more strictly: a signature of retired keys counts only if it was in a log below the cut of the
rotation that retired them, because an officer can sign again.

Ends and lost keys can be withheld from a verifier, as advisories can: the time of an approval, which the policy may
limit, bounds the harm. Source: protocol, section 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from comity.trust.approvals import ApprovalEnded, Approved
from comity.trust.authorship import judge_author
from comity.trust.bound_nodes import BoundNode, WitnessedEntry
from comity.trust.charter.document import Member
from comity.trust.claims import ParsedClaims, prove_each, unsigned_note
from comity.trust.encoding import Digest, format_time
from comity.trust.evidence import Evidence, EvidenceReader, Remark
from comity.trust.frozen import frozen
from comity.trust.key_validity import KeyCircumstances, ProvenConsistency, prove_entry, refused_keys
from comity.trust.policy import ApprovalRule, Policy
from comity.trust.rotation import RotationChain
from comity.trust.statement import Entry
from comity.trust.statement_kinds import APPROVAL_ENDED, APPROVED

DAY: Final = 86_400


@frozen
class ProvenApproval:
    """An approval that a named officer is proven to have signed. `chain` are the officer's keys; `end` is the officer's
    statement that ends it, the earliest one, and `ended` its line."""

    entry: Entry
    approved: Approved
    chain: RotationChain
    end: ApprovalEnded | None = None
    ended: Digest | None = None


@frozen
class JudgedApproval:
    """An approval, and why it does not count: `stale` if its time is over or has not begun; an empty `refusal` means
    that it counts. `keys` are the ids of all keys that the officer ever had."""

    proven: ProvenApproval
    refusal: str
    stale: bool
    keys: frozenset[Digest]

    @property
    def officer(self) -> Digest:
        return self.proven.approved.by


@frozen
class ApprovalCircumstances:
    """What an approval is judged by, apart from itself."""

    policy: Policy
    claims: ParsedClaims
    evidence: Evidence
    bound: tuple[BoundNode, ...]
    consistency: ProvenConsistency
    reader: EvidenceReader


def prove_approvals(
    claims: ParsedClaims, artifact: Digest, rule: ApprovalRule, members: Iterable[Member]
) -> tuple[tuple[ProvenApproval, ...], tuple[Remark, ...]]:
    """The approvals of `artifact` that officers of `rule` signed, whatever their scope, and notes on those that name an
    officer and are not proven to be theirs. Statements of others cost nothing and leave no note."""
    officers, seats = frozenset(rule.officers.values()), {member.id: member for member in members}

    def prove(entry: Entry) -> tuple[Approved | ApprovalEnded, RotationChain] | Remark:
        read = Approved.parse if entry.statement.predicate == APPROVED else ApprovalEnded.parse
        said = read(entry.statement)
        judged = judge_author(entry, claims.keys_of(said.by, seats.get(said.by)))
        return (said, judged.chain) if judged.chain else unsigned_note(entry, said.by)

    proven, notes = prove_each((e for e in claims.entries if _is_of_officer(e, artifact, officers)), prove)
    ends: dict[tuple[Digest, Digest], tuple[ApprovalEnded, Digest]] = {}
    for entry, (said, _) in proven:
        if isinstance(said, ApprovalEnded):
            earliest, _ = ends.setdefault((said.by, said.approval), (said, entry.digest))
            if said.since < earliest.since:
                ends[said.by, said.approval] = said, entry.digest
    approvals = (
        ProvenApproval(entry, said, chain, *ends.get((said.by, entry.statement_digest), ()))
        for entry, (said, chain) in proven
        if isinstance(said, Approved)
    )
    return tuple(sorted(approvals, key=lambda each: (each.approved.until, each.entry.digest))), notes


def _is_of_officer(entry: Entry, artifact: Digest, officers: frozenset[Digest]) -> bool:
    """Whether the statement says that an officer approves the artifact, or ends an approval of it."""
    said = entry.statement
    return (
        said.predicate in (APPROVED, APPROVAL_ENDED)
        and said.by is not None
        and said.by.id in officers
        and said.subject == artifact
    )


def judge_approval(proven: ProvenApproval, given: ApprovalCircumstances) -> JudgedApproval:
    """Judge one approval by the rule of the policy."""
    rule, keys = given.policy.approvals, key_ids(proven.chain)
    if stale := _out_of_time(proven, rule.as_of):
        return JudgedApproval(proven, stale, True, keys)
    seen, _, _ = prove_entry(proven.entry, given.evidence.proofs, given.bound, given.reader)
    refusal = (
        _other_scope(proven, rule)
        or _by_publisher(proven, rule, given.claims, keys)
        or _too_long(proven, rule)
        or _bad_keys(proven, given)
        or _unlogged(rule, seen)
        or _without_conditions(proven, rule, given.evidence)
    )
    return JudgedApproval(proven, refusal, False, keys)


def key_ids(chain: RotationChain) -> frozenset[Digest]:
    """The ids of all keys on all branches: one person who makes two identities with one key is still one person."""
    return frozenset(half.id for state in chain.reached for key in state.keys.keys for half in key.halves)


def _out_of_time(proven: ProvenApproval, as_of: int) -> str:
    approved, end = proven.approved, proven.end
    if end is not None and end.since <= as_of:
        reason = f": {end.text}" if end.text else ""
        return f"its officer ended it from {format_time(end.since)} on{reason}"
    if approved.until < as_of:
        return f"it ran out on {format_time(approved.until)}"
    if approved.since > as_of:
        return f"it begins on {format_time(approved.since)}, after the time of the policy"
    return ""


def _other_scope(proven: ProvenApproval, rule: ApprovalRule) -> str:
    scope = proven.approved.scope
    return "" if scope == rule.scope else f"it is for the scope {scope}"


def _by_publisher(proven: ProvenApproval, rule: ApprovalRule, claims: ParsedClaims, keys: frozenset[Digest]) -> str:
    """Four eyes: a publisher of these bytes, under any name, does not approve them."""
    if not rule.four_eyes:
        return ""
    for publication in claims.publications:
        if publication.publisher.id == proven.approved.by or not keys.isdisjoint(key_ids(publication.chain)):
            return "its officer published the artifact, or has a key of its publisher"
    return ""


def _too_long(proven: ProvenApproval, rule: ApprovalRule) -> str:
    approved = proven.approved
    if not rule.max_time or approved.until - approved.since <= rule.max_time:
        return ""
    days = -(-(approved.until - approved.since) // DAY)
    return f"it is for {days} days, and the policy allows {rule.max_time // DAY}"


def _bad_keys(proven: ProvenApproval, given: ApprovalCircumstances) -> str:
    known = KeyCircumstances(
        given.claims, given.evidence.proofs, given.bound, given.policy, given.consistency, given.reader
    )
    return refused_keys(proven.entry, proven.approved.by, proven.chain, known, "officer")


def _unlogged(rule: ApprovalRule, seen: Sequence[WitnessedEntry]) -> str:
    return "no proof here that it is in a log of a pinned member" if rule.logged and not seen else ""


def _without_conditions(proven: ProvenApproval, rule: ApprovalRule, evidence: Evidence) -> str:
    if not rule.conditions:
        return ""
    conditions = proven.approved.conditions
    if conditions is None:
        return "it names no conditions"
    return "" if conditions.text.digest in evidence.objects else f"the text of {conditions.name} is not here"
