"""Equivocation: pairs of votes of one member that no honest member signs. Each pair is a permanent proof by itself.

    intents    two INTENTs about one body in one round
    ratified   two RATIFYs about one body in one round
    lock       an INTENT that does not declare a RATIFY of an earlier round: its `last_ratified` is null, is of a round
               before, or names another body in that round

If two bodies are certified as successors of one body, at least 2q - n members have signed such pairs, and the two
certificates contain the pairs (I2). A member includes all keys that its own rotations reach: a member with a stolen
key appears to equivocate, and its rotation gives the reason. Also here: whether a charter would lose its quorum
because keys were not seen active. Source: protocol, sections 7.3 and 7.6. The last case of `lock` is an addition:
without it, a fork exists that proves no equivocation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Final

from comity.trust.charter.votes import Intent, Ratify, Vote, parse_vote
from comity.trust.codec import JsonWord
from comity.trust.content import Content, SubjectDigest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import Signatory
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, parse_entry
from comity.trust.statement_kinds import MISBEHAVIOUR

INTENTS: Final = "intents"
RATIFIED: Final = "ratified"
LOCK: Final = "lock"
KINDS: Final = (INTENTS, RATIFIED, LOCK)
MAX_PROOFS: Final = 8
"""Limit of proofs returned for one member and body. One is enough."""


@frozen
class EquivocationProof:
    """Two conflicting lines, both signed by `member`. Made only by `find_equivocations` and `check_equivocation`."""

    kind: str
    member: Digest
    first: bytes
    second: bytes


@frozen
class EquivocationClaim(Content):
    """Two votes that no honest member signs both. It names the member and the digests of two lines; not verified."""

    predicate: ClassVar = MISBEHAVIOUR
    named_objects: ClassVar = 2
    kind: Annotated[str, JsonWord(KINDS)]
    member: SubjectDigest
    prev: Digest
    first: Annotated[Digest, "SHA-256 of a line, a side object."]
    second: Digest

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("member", self.member),)

    def check(self, statement: Statement) -> None:
        if tuple(side.digest for side in statement.objects) != (self.first, self.second):
            raise self.malformed("its side objects are not the two lines")


def find_equivocations(votes: Mapping[Vote, Entry]) -> tuple[EquivocationProof, ...]:
    """The proofs among verified votes about one body, at most eight for each member."""
    members: dict[Digest, list[Vote]] = {}
    for vote in votes:
        members.setdefault(vote.member, []).append(vote)
    equivocations: list[EquivocationProof] = []
    for member, own in sorted(members.items()):
        own.sort(key=lambda vote: (vote.round, str(vote)))
        found = dict.fromkeys(_conflicting_pairs(own))
        for kind, first, second in list(found)[:MAX_PROOFS]:
            equivocations.append(EquivocationProof(kind, member, votes[first].line, votes[second].line))
    return tuple(equivocations)


def check_equivocation(kind: str, first: bytes, second: bytes, keys: Signatory) -> EquivocationProof:
    """The proof that two lines make against the owner of `keys`, who signed both (for `lock`, the INTENT first).

    Raises Malformed, and Untrusted (NO-MISBEHAVIOUR) if the lines do not prove it.
    """
    entries = parse_entry(first), parse_entry(second)
    one, other = (parse_vote(entry) for entry in entries)
    if not all(keys.signed(entry.envelope) for entry in entries):
        raise _not_proven("a line is not signed by the keys of this member")
    if (one.member, one.prev) != (other.member, other.prev) or not _conflict(kind, one, other):
        raise _not_proven("an honest member may sign both")
    return EquivocationProof(kind, one.member, first, second)


def misbehaviour_statement(proof: EquivocationProof, by: Author) -> Statement:
    """The `misbehaviour` statement for a proof. Its two lines are the side objects."""
    vote = parse_vote(parse_entry(proof.first))
    lines = SideObject.of(proof.first), SideObject.of(proof.second)
    claim = EquivocationClaim(proof.kind, proof.member, vote.prev, lines[0].digest, lines[1].digest)
    return replace(claim.statement(by), objects=lines)


def check_misbehaviour(claim: EquivocationClaim, lines: Mapping[Digest, bytes], keys: Signatory) -> EquivocationProof:
    """The proof for a claim. It does not depend on the author of the claim.

    Args:
        lines: the side objects of the `misbehaviour` statement, by digest.
        keys: the member's keys: of its seat in the body `claim.prev`, or of its rotations from there.

    Raises Malformed, Untrusted (NO-MISBEHAVIOUR).
    """
    first, second = (lines.get(digest, b"") for digest in (claim.first, claim.second))
    if (sha256(first), sha256(second)) != (claim.first, claim.second):
        raise _not_proven("a line that it names is missing")
    proof = check_equivocation(claim.kind, first, second, keys)
    if (proof.member, parse_vote(parse_entry(first)).prev) != (claim.member, claim.prev):
        raise _not_proven("the lines are about another member or body")
    return proof


def _conflicting_pairs(votes: list[Vote]) -> Iterator[tuple[str, Vote, Vote]]:
    """Conflicts among the votes of one member, sorted by round; one for each kind and round."""
    for kind, make in ((INTENTS, Intent), (RATIFIED, Ratify)):
        first: dict[int, Vote] = {}
        reported: set[int] = set()
        for vote in votes:
            if not isinstance(vote, make):
                continue
            before = first.setdefault(vote.round, vote)
            if vote.round not in reported and _conflict(kind, before, vote):
                reported.add(vote.round)
                yield kind, before, vote
    ratified: dict[int, list[Ratify]] = {}
    for vote in votes:
        if isinstance(vote, Ratify):
            ratified.setdefault(vote.round, []).append(vote)
    rounds = list(ratified)
    for intent in votes:
        if isinstance(intent, Intent):
            newest = rounds[max(bisect_left(rounds, intent.round) - 1, 0) :][:1]
            suspects = [ratify for at in newest for ratify in ratified[at][:2]]  # of two, it declares at most one
            if (hidden := next((ratify for ratify in suspects if _conflict(LOCK, intent, ratify)), None)) is not None:
                yield LOCK, intent, hidden


def _conflict(kind: str, first: Vote, second: Vote) -> bool:
    if isinstance(first, Intent) and isinstance(second, Intent):
        return kind == INTENTS and _two_in_one_round(first, second)
    if isinstance(first, Ratify) and isinstance(second, Ratify):
        return kind == RATIFIED and _two_in_one_round(first, second)
    if isinstance(first, Intent) and isinstance(second, Ratify):
        return kind == LOCK and _hides_a_ratify(first, second)
    return False


def _two_in_one_round(first: Vote, second: Vote) -> bool:
    """7.3: two INTENTs, or two RATIFYs, for one (prev, round). The same vote signed again is no conflict."""
    return first.round == second.round and first != second


def _hides_a_ratify(intent: Intent, ratify: Ratify) -> bool:
    """7.3: an INTENT at s with last_ratified null, below r, or another body at r, against a RATIFY at r < s. Strictly
    less: an honest member may sign INTENT b and RATIFY h in one round."""
    last = intent.last_ratified
    if not ratify.round < intent.round:
        return False
    return last is None or last.round < ratify.round or (last.round == ratify.round and last.body != ratify.body)


def _not_proven(why: str) -> Untrusted:
    return Untrusted("misbehaviour is not proven", why=why, code="NO-MISBEHAVIOUR")
