"""Certificates of epochs: the statements that make a body the successor of another body, permanently and by themselves.

A certificate is a set of lines: q RATIFYs of one (round, body) by members of the previous body, q of the new body's
own members, the consent of every new key, one intent-certificate for that (round, body) and for each (unlock, body)
named in it, the inceptions of new identities, and the rotations that any of these need. Other lines are ignored.

RATIFYs are counted by the quorum, policy and active members of the previous body: its members agreed to that rule.
Acceptance is counted by the quorum, policy and active members of the new body, so nobody can set a quorum that the
new members cannot reach. A genesis (epoch 0, also of a refounding) needs the consent of every member.

`StatementSet` sorts unverified statements by subject; `ValidVotes` verifies each statement once, when needed. A
statement that does not verify is ignored; nothing makes a counted statement invalid (7.3). Source: protocol, section
7.3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from comity.trust.charter.document import Body, Member, check_new_seat, check_succession, seat_names
from comity.trust.charter.votes import (
    BodyStatement,
    Intent,
    Ratify,
    Vote,
    parse_body_statement,
    parse_vote,
    void_reason,
)
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, KeySet, SignatureCheck, check_inception
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import Entry, Envelope, parse_entry
from comity.trust.statement_kinds import (
    BODY_PREDICATES,
    CONSENTED,
    INCEPTION,
    ROTATED,
    VOTE_PREDICATES,
)


@dataclass(slots=True)
class StatementSet:
    """Unverified statements: votes and body statements by `prev`, inceptions and rotations by identity."""

    votes: dict[Digest, dict[Vote, list[Entry]]] = field(default_factory=dict)
    body_statements: dict[Digest | None, list[tuple[BodyStatement, Entry]]] = field(default_factory=dict)
    inceptions: dict[Digest, list[Entry]] = field(default_factory=dict)
    rotations: dict[Digest, list[Entry]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[bytes], parse: Callable[[bytes], Entry] = parse_entry) -> StatementSet:
        """Parse and sort `lines`. Lines that are not statements become notes."""
        entries, notes = list[Entry](), list[str]()
        for line in lines:
            try:
                entries.append(parse(line))
            except ComityError as error:
                notes.append(_ignored_note(line, error))
        statements = cls.sort(entries)
        statements.notes += notes
        return statements

    @classmethod
    def sort(cls, entries: Iterable[Entry]) -> StatementSet:
        """Sort `entries`, in any order and with repetitions. Never fails; malformed statements become notes."""
        statements = cls()
        for line, entry in sorted({entry.line: entry for entry in entries}.items()):
            try:
                statements._put(entry)
            except ComityError as error:
                statements.notes.append(_ignored_note(line, error))
        return statements

    def _put(self, entry: Entry) -> None:
        predicate, by = entry.statement.predicate, entry.statement.by
        if predicate in VOTE_PREDICATES:
            vote = parse_vote(entry)
            self.votes.setdefault(vote.prev, {}).setdefault(vote, []).append(entry)
        elif predicate in BODY_PREDICATES:
            named = parse_body_statement(entry)
            self.body_statements.setdefault(named.prev, []).append((named, entry))
        elif predicate == INCEPTION and by is not None:
            self.inceptions.setdefault(by.id, []).append(entry)
        elif predicate == ROTATED and by is not None:
            self.rotations.setdefault(by.id, []).append(entry)


def _ignored_note(line: bytes, error: ComityError) -> str:
    return f"a line of {len(line)} bytes is ignored: {error}"


RotationPaths: TypeAlias = Mapping[KeyState, tuple[Entry, ...]]

MAX_ROTATIONS_COUNTED: Final = 32
"""Limit of the rotations of one identity between a body and a statement that counts about its successor."""


@dataclass(slots=True)
class ValidVotes:
    """The statements that count about the successor of `previous`.

    `votes`: every vote that an active member of `previous` signed, with the entry that proves it.
    """

    previous: Body
    statements: StatementSet
    signed: SignatureCheck = KeySet.signed
    digest: Digest = field(init=False)
    quorum: int = field(init=False)
    voters: frozenset[Digest] = field(init=False)
    votes: Mapping[Vote, Entry] = field(init=False)
    _votes_by_body: dict[Digest, list[Vote]] = field(init=False, default_factory=dict)
    _intent_certificates: dict[Digest, Mapping[int, Mapping[Digest, Intent]]] = field(init=False, default_factory=dict)
    _chains: dict[Digest, RotationChain] = field(init=False, default_factory=dict)
    _paths: dict[Digest, RotationPaths] = field(init=False, default_factory=dict)
    _inceptions: dict[Digest, tuple[Inception, Entry] | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.digest = self.previous.digest
        self.quorum = self.previous.quorum
        self.voters = frozenset(seat.id for seat in self.previous.active)
        for seat in self.previous.members:
            self._follow(seat.key_state)
        self.votes = self._verified_votes()
        for vote in self.votes:
            self._votes_by_body.setdefault(vote.body, []).append(vote)

    def chain(self, identity: Digest) -> RotationChain | None:
        """The rotation chain of a member, or of an identity whose inception is in `statements`."""
        if identity not in self._chains and (inception := self.inception(identity)) is not None:
            self._follow(KeyState.of_inception(inception[0]))
        return self._chains.get(identity)

    def rotation_paths(self, identity: Digest) -> RotationPaths:
        """The key states by which an identity may sign here, each with the rotations that lead to it."""
        return self._paths[identity] if self.chain(identity) is not None else {}

    def inception(self, identity: Digest) -> tuple[Inception, Entry] | None:
        """The verified inception of an identity, with its entry."""
        if identity not in self._inceptions:
            self._inceptions[identity] = next(
                (
                    (record, entry)
                    for entry in self.statements.inceptions.get(identity, ())
                    if (record := self._record(entry))
                ),
                None,
            )
        return self._inceptions[identity]

    def ratified(self, body: Digest) -> Mapping[int, Mapping[Digest, Entry]]:
        """RATIFYs for `body`, by round, then by member."""
        rounds: dict[int, dict[Digest, Entry]] = {}
        for vote in self._votes_by_body.get(body, ()):
            if isinstance(vote, Ratify):
                rounds.setdefault(vote.round, {})[vote.member] = self.votes[vote]
        return rounds

    def intents(self, body: Digest) -> Mapping[int, Mapping[Digest, Intent]]:
        """INTENTs for `body` that count: not void, and the intent-certificate that they name is present.

        By round, then by member. If a member signed several in one round, the one with the earliest `unlock`.
        """
        if body not in self._intent_certificates:
            self._intent_certificates[body] = self._counted_intents(body)
        return self._intent_certificates[body]

    def certified(self, body: Digest) -> Mapping[int, Mapping[Digest, Intent]]:
        """The intent-certificates for `body`: INTENTs by round, for the rounds with a quorum."""
        rounds = self.intents(body)
        return {at: members for at, members in rounds.items() if _intents_are_a_quorum(self.quorum, members)}

    def consents(self, body: Body) -> dict[Digest, Entry]:
        """The `consented` to exactly `body`, by seat id, of seats without a vote in `previous`.

        An identity without a seat there consents with all its keys; an observer that gets a vote, with its threshold.
        """
        seats = {seat.id: seat for seat in body.members}
        given: dict[Digest, Entry] = {}
        digest = body.digest
        for named, entry in self.statements.body_statements.get(self.digest, ()):
            seat = seats.get(named.by)
            if seat is None or seat.id in given or seat.id in self.voters:
                continue
            about = (named.predicate, named.federation, named.body) == (CONSENTED, body.federation, digest)
            if about and self._consented(seat, entry):
                given[seat.id] = entry
        return given

    def is_signed_by(self, identity: Digest, envelope: Envelope) -> bool:
        """7.3: whether keys of the seat in `previous`, or keys that known rotations lead to from there, signed it."""
        return bool(self.signers(identity, envelope))

    def signers(self, identity: Digest, envelope: Envelope) -> tuple[KeyState, ...]:
        """The key states of `rotation_paths` whose keys signed it."""
        chain = self._chains.get(identity)
        return chain.signers(envelope, check=self.signed) if chain is not None else ()

    def _verified_votes(self) -> dict[Vote, Entry]:
        votes: dict[Vote, Entry] = {}
        for vote, entries in self.statements.votes.get(self.digest, {}).items():
            if _is_of_a_voter(vote, self.voters, self.previous):
                verified = (entry for entry in entries if self.is_signed_by(vote.member, entry.envelope))
                if (entry := next(verified, None)) is not None:
                    votes[vote] = entry
        return votes

    def _counted_intents(self, body: Digest) -> dict[int, dict[Digest, Intent]]:
        rounds: dict[int, dict[Digest, Intent]] = {}
        certified: set[int] = set()
        intents = [vote for vote in self._votes_by_body.get(body, ()) if isinstance(vote, Intent)]
        for intent in sorted(intents, key=lambda intent: (intent.round, intent.unlock or 0)):
            if void_reason(intent) is None and _unlock_is_certified(intent, certified):
                members = rounds.setdefault(intent.round, {})
                members.setdefault(intent.member, intent)
                if _intents_are_a_quorum(self.quorum, members):
                    certified.add(intent.round)
        return rounds

    def _consented(self, seat: Member, entry: Entry) -> bool:
        if self.previous.member(seat.id) is None:
            return _by_all_keys(seat, entry, self.signed)
        return self.is_signed_by(seat.id, entry.envelope)

    def _follow(self, start: KeyState) -> None:
        rotated = self.statements.rotations.get(start.identity)
        chain = follow(start, rotated, signed=self.signed) if rotated else RotationChain(start, ())
        rotation_paths: dict[KeyState, tuple[Entry, ...]] = {start: ()}
        steps = []
        for step in chain.steps:
            if step.before in rotation_paths and len(rotation_paths[step.before]) < MAX_ROTATIONS_COUNTED:
                steps.append(step)
                rotation_paths.setdefault(step.after, (*rotation_paths[step.before], step.entry))
        self._chains[start.identity], self._paths[start.identity] = RotationChain(start, tuple(steps)), rotation_paths

    def _record(self, entry: Entry) -> Inception | None:
        try:
            return check_inception(entry, signed=self.signed)
        except ComityError:
            return None


def _is_of_a_voter(vote: Vote, voters: frozenset[Digest], previous: Body) -> bool:
    """7.3: a vote counts if its member is active in the body that it would change, and its epoch is the next one."""
    return vote.member in voters and vote.epoch == previous.epoch + 1


def _unlock_is_certified(intent: Intent, certified: set[int]) -> bool:
    """7.2, 7.3: the intent-certificate that an INTENT names is present, for the same body."""
    return intent.unlock is None or intent.unlock in certified


def _intents_are_a_quorum(quorum: int, members: Mapping[Digest, Intent]) -> bool:
    """7.2: an intent-certificate is q INTENTs of one round for one body."""
    return len(members) >= quorum


def _by_all_keys(seat: Member, entry: Entry, signed: SignatureCheck) -> bool:
    """7.3: consent of every new key."""
    return signed(KeySet(seat.keys.keys, len(seat.keys.keys)), entry.envelope)


_REFUSED: Final = "charter refused"

MAX_LINES: Final = 8192
MAX_CERTIFICATE: Final = 64 * 1024 * 1024


@frozen
class Certificate:
    """A body and the lines that make it the successor of another. Only `certify` and `assemble` make one."""

    body: Body
    lines: tuple[bytes, ...]


@frozen
class Decision:
    """The decision for a body: the round, the RATIFYs and the consents."""

    round: int
    ratified: Mapping[Digest, Entry]
    consents: Mapping[Digest, Entry]


def check_size(lines: Sequence[bytes]) -> None:
    """Raise Malformed for more lines than a certificate may have."""
    if len(lines) > MAX_LINES or sum(map(len, lines)) > MAX_CERTIFICATE:
        raise Malformed(
            "certificate too large", why=f"at most {MAX_LINES} lines and {MAX_CERTIFICATE} bytes are allowed"
        )


def certify(
    previous: Body,
    body: Body,
    lines: Iterable[bytes],
    *,
    signed: SignatureCheck = KeySet.signed,
    parse: Callable[[bytes], Entry] = parse_entry,
) -> Certificate:
    """The certificate, if `lines` make `body` the successor of `previous`. Depends on nothing outside `lines`.

    Args:
        parse: parses a line; the `EvidenceReader.entry` of a session spares work that the session did before.

    Raises Malformed above 8,192 lines or 64 MiB, and Untrusted naming the missing members or statements.
    """
    kept = tuple(lines)
    check_size(kept)
    decide(ValidVotes(previous, StatementSet.read(kept, parse), signed), body)
    return Certificate(body, kept)


def decide(valid_votes: ValidVotes, body: Body) -> Decision:
    """The decision for `body`, in the earliest possible round. Raises Untrusted naming the missing members."""
    check_may_follow(valid_votes, body)
    previous, consents = valid_votes.previous, valid_votes.consents(body)
    if missing_seats := new_keys_without_consent(previous, body, consents):
        raise Untrusted(
            _REFUSED,
            why=f"no consent of these seats with new keys: {seat_names(missing_seats)}",
            code="CHARTER-CONSENT",
        )
    certified, rounds = valid_votes.certified(body.digest), valid_votes.ratified(body.digest)
    why = f"{_turnout(previous, rounds)} ratified it in one round"
    missing = Untrusted(_REFUSED, why=why, code="CHARTER-QUORUM")
    for at, ratified in sorted(rounds.items()):
        if not _ratified_by_a_quorum(previous, ratified):
            continue
        if not _intent_certified(at, certified):
            why = f"its intent-certificate of round {at} is missing"
            missing = Untrusted(_REFUSED, why=why, code="CHARTER-INTENT")
        elif not accepted_by_the_new_set(previous, body, ratified, consents):
            why = f"{len(_accepting(body, ratified, consents))} of its own members accepted it, not {body.quorum}"
            missing = Untrusted(_REFUSED, why=why, code="CHARTER-QUORUM")
        else:
            return Decision(at, ratified, consents)
    raise missing


def check_may_follow(valid_votes: ValidVotes, body: Body) -> None:
    """`check_succession` with the rotation chains and inceptions in `valid_votes`. Raises Untrusted."""
    before = {seat.id for seat in valid_votes.previous.members}
    chains = {seat.id: chain for seat in body.members if (chain := valid_votes.chain(seat.id)) is not None}
    new = (valid_votes.inception(seat.id) for seat in body.members if seat.id not in before)
    check_succession(valid_votes.previous, body, chains, {found[0].id: found[0] for found in new if found is not None})


def _ratified_by_a_quorum(previous: Body, ratified: Collection[Digest]) -> bool:
    """7.3: q RATIFYs of one (round, body) by members of the previous body."""
    return len(ratified) >= previous.quorum


def _intent_certified(at: int, certified: Collection[int]) -> bool:
    """7.2, 7.3: a RATIFY counts only with an intent-certificate for its round and body."""
    return at in certified


def accepted_by_the_new_set(
    previous: Body, body: Body, ratified: Collection[Digest], consents: Collection[Digest]
) -> bool:
    """7.3: q of the new body's active members accept it: by RATIFY, or by consent if they had no vote before."""
    return len(_accepting(body, ratified, consents)) >= body.quorum


def _accepting(body: Body, ratified: Collection[Digest], consents: Collection[Digest]) -> set[Digest]:
    return {seat.id for seat in body.active if seat.id in ratified or seat.id in consents}


def new_keys_without_consent(previous: Body, body: Body, consents: Collection[Digest]) -> list[Member]:
    """7.3: the seats that miss the consent of a new key. New keys of an existing member signed its rotation instead."""
    before = {seat.id for seat in previous.members}
    return [seat for seat in body.members if seat.id not in before and seat.id not in consents]


def _turnout(previous: Body, rounds: Mapping[int, Collection[Digest]]) -> str:
    most = max(rounds.values(), key=len, default=())
    missing_seats = [seat for seat in previous.active if seat.id not in most]
    return f"{len(most)} of {previous.quorum} members (not {seat_names(missing_seats)})"


def certify_genesis(body: Body, lines: Iterable[bytes], parse: Callable[[bytes], Entry] = parse_entry) -> Body:
    """Return `body` if it is a genesis, every member consented, and each seat matches its member's own inception and
    rotations. Raises Untrusted naming the missing members.
    """
    if body.epoch != 0:
        raise Untrusted("charter refused", why=f"epoch {body.epoch} is not a genesis", code="CHARTER")
    statements = StatementSet.read(lines, parse)
    agreed = consenting(body, statements)
    missing = [seat for seat in body.members if seat.id not in agreed]
    if missing:
        why = f"a genesis needs every member; no valid consent of {seat_names(missing)}"
        raise Untrusted("charter refused", why=why, code="CHARTER-CONSENT")
    for seat in body.members:
        inception = _founder_inception(seat.id, statements)
        check_new_seat(seat, inception, _chain(inception, statements) if inception else None)
    return body


def consenting(body: Body, statements: StatementSet) -> frozenset[Digest]:
    """Members of the genesis `body` whose consent to exactly this body is among the statements. Those that do not
    verify are ignored."""
    seats, about = {seat.id: seat for seat in body.members}, (CONSENTED, body.federation, body.digest)
    return frozenset(
        named.by
        for named, entry in statements.body_statements.get(body.prev, ())
        if (named.predicate, named.federation, named.body) == about
        and named.by in seats
        and seats[named.by].keys.signed(entry.envelope)
    )


def _founder_inception(identity: Digest, statements: StatementSet) -> Inception | None:
    for entry in statements.inceptions.get(identity, ()):
        with contextlib.suppress(ComityError):
            return check_inception(entry)
    return None


def _chain(inception: Inception, statements: StatementSet) -> RotationChain:
    return follow(KeyState.of_inception(inception), statements.rotations.get(inception.id, ()))
