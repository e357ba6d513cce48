"""Making a charter: the body that follows another one, and its certificate from votes and consents.

What is made here is read and verified by `comity.trust.charter`. Source: protocol, sections 7.1 to 7.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from comity.trust.charter.certificate import (
    Certificate,
    Decision,
    StatementSet,
    ValidVotes,
    accepted_by_the_new_set,
    check_size,
    decide,
)
from comity.trust.charter.document import (
    SCHEMA,
    Body,
    CharterPolicy,
    Member,
)
from comity.trust.charter.votes import (
    Intent,
)
from comity.trust.encoding import Digest, Json, canonical
from comity.trust.errors import ComityError
from comity.trust.identity import KeySet, SignatureCheck
from comity.trust.statement import Entry


def genesis(
    members: Iterable[Member],
    policy: CharterPolicy,
    namespaces: Mapping[str, Digest] | None = None,
    *,
    predecessor: Digest | None = None,
    note_digest: Digest | None = None,
) -> Body:
    """Build a genesis body. Raises Malformed if the body breaks a rule."""
    document = _document(members, policy, namespaces or {}, note_digest)
    if predecessor:
        document["predecessor"] = predecessor
    return Body.parse(canonical({**document, "epoch": 0, "prev": None}))


def draft(
    previous: Body,
    *,
    members: Iterable[Member] | None = None,
    namespaces: Mapping[str, Digest] | None = None,
    policy: CharterPolicy | None = None,
    note_digest: Digest | None = None,
) -> Body:
    """Build a body for the epoch after `previous`. An argument that is None keeps the previous value.

    Raises Malformed if the body breaks a rule. `check_succession` checks whether the body may follow `previous`.
    """
    document = _document(
        previous.members if members is None else members,
        policy or previous.policy,
        previous.namespaces if namespaces is None else namespaces,
        note_digest,
    )
    document |= {"federation": previous.federation, "epoch": previous.epoch + 1, "prev": previous.digest}
    return Body.parse(canonical(document))


def _document(
    members: Iterable[Member], policy: CharterPolicy, namespaces: Mapping[str, Digest], note_digest: Digest | None
) -> dict[str, Json]:
    rules: dict[str, Json] = {
        "quorum_change": policy.quorum_change,
        "min_copies": policy.min_copies,
        "min_jurisdictions": policy.min_jurisdictions,
        "cosigner_quorum": policy.cosigner_quorum,
        "schema_floor": policy.schema_floor,
    }
    if policy.min_reaches:
        rules["min_reaches"] = policy.min_reaches
    names: list[Json] = [{"name": name, "publisher": id_} for name, id_ in sorted(namespaces.items())]
    document: dict[str, Json] = {
        "schema": SCHEMA,
        "members": [_member_json(member) for member in sorted(members, key=lambda member: member.id)],
        "namespaces": names,
        "policy": rules,
    }
    if note_digest:
        document["note_digest"] = note_digest
    return document


def _member_json(member: Member) -> dict[str, Json]:
    document: dict[str, Json] = {
        "id": member.id,
        "name": member.name,
        "jurisdiction": member.jurisdiction,
        "governance_keys": [key.to_json() for key in member.keys.keys],
        "threshold": member.keys.threshold,
        "recovery_digests": list(member.recovery),
        "status": member.status,
    }
    if member.successor_of:
        document["successor_of"] = member.successor_of
    return document


def assemble(
    previous: Body, body: Body, entries: Iterable[Entry], *, signed: SignatureCheck = KeySet.signed
) -> Certificate | None:
    """A small certificate built from `entries`; None if something is missing."""
    valid_votes = ValidVotes(previous, StatementSet.sort(entries), signed)
    try:
        return build_certificate(valid_votes, body, decide(valid_votes, body))
    except ComityError:
        return None


def build_certificate(valid_votes: ValidVotes, body: Body, decision: Decision) -> Certificate:
    """The lines that a decision needs. Raises Malformed if they exceed the limits of a certificate."""
    ratified = _smallest_quorum(valid_votes, body, decision)
    votes: dict[Digest, list[Entry]] = {member: [decision.ratified[member]] for member in ratified}
    for intent in intent_certificates(valid_votes, body.digest, decision.round):
        votes.setdefault(intent.member, []).append(valid_votes.votes[intent])
    entries = [entry for seat in body.members if (entry := _newcomer_inception(valid_votes, seat)) is not None]
    for seat in body.members:
        entries += _path_to_seat(valid_votes, seat)
    for member, own in sorted(votes.items()):
        for entry in own:
            entries += _path_to_vote(valid_votes, member, entry)
    entries += decision.consents.values()
    entries += [entry for _, own in sorted(votes.items()) for entry in own]
    lines = tuple(dict.fromkeys(entry.line for entry in entries))
    check_size(lines)
    return Certificate(body, lines)


def _smallest_quorum(valid_votes: ValidVotes, body: Body, decision: Decision) -> list[Digest]:
    """The fewest ratifying members that are enough on both sides; members that need no rotations come first."""
    new = {seat.id for seat in body.active}

    def rank(member: Digest) -> tuple[bool, int, Digest]:
        return member not in new, len(_path_to_vote(valid_votes, member, decision.ratified[member])), member

    order = sorted(decision.ratified, key=rank)
    enough = valid_votes.previous.quorum
    while not accepted_by_the_new_set(valid_votes.previous, body, order[:enough], decision.consents):
        enough += 1
    return order[:enough]


def _newcomer_inception(valid_votes: ValidVotes, seat: Member) -> Entry | None:
    found = valid_votes.inception(seat.id) if valid_votes.previous.member(seat.id) is None else None
    return found[1] if found is not None else None


def _path_to_seat(valid_votes: ValidVotes, seat: Member) -> tuple[Entry, ...]:
    states = valid_votes.rotation_paths(seat.id).items()
    rotation_paths = [path for state, path in states if (state.keys, state.recovery) == (seat.keys, seat.recovery)]
    return min(rotation_paths, key=len)


def _path_to_vote(valid_votes: ValidVotes, member: Digest, entry: Entry) -> tuple[Entry, ...]:
    states = valid_votes.rotation_paths(member)
    if len(states) == 1:
        return ()
    return min((states[state] for state in valid_votes.signers(member, entry.envelope)), key=len)


def intent_certificates(valid_votes: ValidVotes, body: Digest, at: int) -> list[Intent]:
    """The intent-certificate of round `at`, and of each round that one of its INTENTs names."""
    certified, chosen, pending = valid_votes.certified(body), list[Intent](), {at}
    while pending:
        latest = max(pending)
        pending.remove(latest)
        few = sorted(certified[latest].values(), key=lambda intent: (intent.unlock or 0, intent.member))
        chosen += few[: valid_votes.previous.quorum]
        pending |= {intent.unlock for intent in few[: valid_votes.previous.quorum] if intent.unlock is not None}
    return chosen
