"""The certificate of an epoch: what makes a body the successor of another, for ever, by its own bytes.

A certificate is lines: q RATIFYs of one (round, body) by members of the body before, q of the new body's own members,
the consent of every new key, one intent-certificate for that (round, body) and for each (unlock, body) named in it,
the inceptions of identities that are new, and the rotations on which any of this rests. Lines beyond that count for
nothing and spoil nothing.

Each side counts by its own rule: RATIFYs by the quorum of the body before, under its policy and among its active
members, which is what those members agreed to be changed by; acceptance by the quorum of the new body, under the new
policy and among its active members, so that nobody raises a quorum that the new set cannot muster.
Source: protocol, section 7.3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.charter.body import Body, Member, called
from comity.trust.charter.docket import Docket
from comity.trust.charter.pile import Pile
from comity.trust.charter.readings import Intent
from comity.trust.charter.succession import check_succession
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.identity import KeySet, Signed
from comity.trust.statement import Entry

_REFUSED: Final = "charter refused"

MAX_LINES: Final = 8192
MAX_CERTIFICATE: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Certificate:
    """A body and the lines that make it the successor of another. Only `certify` and `assemble` make one."""

    body: Body
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """That a body was decided: in which round, by whose RATIFYs, with whose consents."""

    round: int
    ratified: Mapping[Digest, Entry]
    consents: Mapping[Digest, Entry]


def certify(previous: Body, body: Body, lines: Iterable[bytes], *, signed: Signed = KeySet.signed) -> Certificate:
    """The certificate, if `lines` make `body` the successor of `previous`. Nothing else is asked, and nothing outside
    un-counts it.

    Raises Malformed beyond 8,192 lines or 64 MiB, Untrusted with who or what is missing.
    """
    kept = tuple(lines)
    if len(kept) > MAX_LINES or sum(map(len, kept)) > MAX_CERTIFICATE:
        raise Malformed("certificate too large", why=f"at most {MAX_LINES} lines and {MAX_CERTIFICATE} bytes are read")
    decide(Docket(previous, Pile.read(kept), signed), body)
    return Certificate(body, kept)


def assemble(
    previous: Body, body: Body, entries: Iterable[Entry], *, signed: Signed = KeySet.signed
) -> Certificate | None:
    """A certificate out of what is at hand, with little that it could do without; None where something is missing."""
    docket = Docket(previous, Pile.sort(entries), signed)
    try:
        return certificate(docket, body, decide(docket, body))
    except ComityError:
        return None


def decide(docket: Docket, body: Body) -> Decision:
    """The decision for `body` that the docket shows, of the earliest round. Raises Untrusted, naming who is missing."""
    check_may_follow(docket, body)
    previous, consents = docket.previous, docket.consents(body)
    if silent := new_keys_without_consent(previous, body, consents):
        raise Untrusted(_REFUSED, why=f"no consent of {called(silent)}, whose keys are new", code="CHARTER-CONSENT")
    certified, rounds = docket.certified(body.digest), docket.ratified(body.digest)
    why = f"{_tally(previous, rounds)} ratified it in one round"
    missing = Untrusted(_REFUSED, why=why, code="CHARTER-QUORUM")
    for at, ratified in sorted(rounds.items()):
        if not _ratified_by_a_quorum(previous, ratified):
            continue
        if not _intent_certified(at, certified):
            why = f"no intent-certificate of round {at} is at hand for it"
            missing = Untrusted(_REFUSED, why=why, code="CHARTER-INTENT")
        elif not accepted_by_the_new_set(previous, body, ratified, consents):
            why = f"{len(_accepting(body, ratified, consents))} of its own members accepted it, not {body.quorum}"
            missing = Untrusted(_REFUSED, why=why, code="CHARTER-QUORUM")
        else:
            return Decision(at, ratified, consents)
    raise missing


def certificate(docket: Docket, body: Body, decision: Decision) -> Certificate:
    """The lines on which a decision rests. Raises Malformed beyond the bounds of a certificate."""
    ratified = _few(docket, body, decision)
    readings: dict[Digest, list[Entry]] = {member: [decision.ratified[member]] for member in ratified}
    for intent in _intents(docket, body.digest, decision.round):
        readings.setdefault(intent.member, []).append(docket.heard[intent])
    entries = [entry for seat in body.members if (entry := _inception(docket, seat)) is not None]
    for seat in body.members:
        entries += _way_to_seat(docket, seat)
    for member, said in sorted(readings.items()):
        for entry in said:
            entries += _way_to_reading(docket, member, entry)
    entries += decision.consents.values()
    entries += [entry for _, said in sorted(readings.items()) for entry in said]
    lines = tuple(dict.fromkeys(entry.line for entry in entries))
    if len(lines) > MAX_LINES or sum(map(len, lines)) > MAX_CERTIFICATE:
        raise Malformed("certificate too large", why=f"{len(lines)} lines are needed")
    return Certificate(body, lines)


def check_may_follow(docket: Docket, body: Body) -> None:
    """`check_succession` with what the docket knows of everybody who has a seat. Raises Untrusted."""
    before = {seat.id for seat in docket.previous.members}
    chains = {seat.id: chain for seat in body.members if (chain := docket.chain(seat.id)) is not None}
    new = (docket.inception(seat.id) for seat in body.members if seat.id not in before)
    check_succession(docket.previous, body, chains, {found[0].id: found[0] for found in new if found is not None})


def _ratified_by_a_quorum(previous: Body, ratified: Collection[Digest]) -> bool:
    """7.3: q RATIFYs of one (round, body) by members of the body before."""
    return len(ratified) >= previous.quorum


def _intent_certified(at: int, certified: Collection[int]) -> bool:
    """7.2, 7.3: a RATIFY counts only with an intent-certificate for its round and body at hand."""
    return at in certified


def accepted_by_the_new_set(
    previous: Body, body: Body, ratified: Collection[Digest], consents: Collection[Digest]
) -> bool:
    """7.3: q of the new body, by its own active members: a RATIFY of who has a vote before, else a consent."""
    return len(_accepting(body, ratified, consents)) >= body.quorum


def _accepting(body: Body, ratified: Collection[Digest], consents: Collection[Digest]) -> set[Digest]:
    return {seat.id for seat in body.active if seat.id in ratified or seat.id in consents}


def new_keys_without_consent(previous: Body, body: Body, consents: Collection[Digest]) -> list[Member]:
    """7.3: consent of every new key. Those of a member that stays are new by its own rotation, which they signed."""
    before = {seat.id for seat in previous.members}
    return [seat for seat in body.members if seat.id not in before and seat.id not in consents]


def _few(docket: Docket, body: Body, decision: Decision) -> list[Digest]:
    """As few of the ratifying members as are enough on both sides, those that need no rotations first."""
    new = {seat.id for seat in body.active}

    def merit(member: Digest) -> tuple[bool, int, Digest]:
        return member not in new, len(_way_to_reading(docket, member, decision.ratified[member])), member

    order = sorted(decision.ratified, key=merit)
    enough = docket.previous.quorum
    while not accepted_by_the_new_set(docket.previous, body, order[:enough], decision.consents):
        enough += 1
    return order[:enough]


def _intents(docket: Docket, body: Digest, at: int) -> list[Intent]:
    """An intent-certificate for round `at`, and for each round that one of its INTENTs names."""
    certified, chosen, open_ = docket.certified(body), list[Intent](), {at}
    while open_:
        latest = max(open_)
        open_.remove(latest)
        few = sorted(certified[latest].values(), key=lambda intent: (intent.unlock or 0, intent.member))
        chosen += few[: docket.previous.quorum]
        open_ |= {intent.unlock for intent in few[: docket.previous.quorum] if intent.unlock is not None}
    return chosen


def _inception(docket: Docket, seat: Member) -> Entry | None:
    found = docket.inception(seat.id) if docket.previous.member(seat.id) is None else None
    return found[1] if found is not None else None


def _way_to_seat(docket: Docket, seat: Member) -> tuple[Entry, ...]:
    states = docket.ways(seat.id).items()
    ways = [way for state, way in states if (state.keys, state.recovery) == (seat.keys, seat.recovery)]
    return min(ways, key=len)


def _way_to_reading(docket: Docket, member: Digest, entry: Entry) -> tuple[Entry, ...]:
    states = docket.ways(member)
    if len(states) == 1:
        return ()
    return min((way for state, way in states.items() if docket.signed(state.keys, entry.envelope)), key=len)


def _tally(previous: Body, rounds: Mapping[int, Collection[Digest]]) -> str:
    most = max(rounds.values(), key=len, default=())
    silent = [seat for seat in previous.active if seat.id not in most]
    return f"{len(most)} of {previous.quorum} members (not {called(silent)})"
