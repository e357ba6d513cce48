"""The council: what any set of signed lines amounts to. A pure function, the same for everybody.

`deliberate` walks from a body that one holds to the newest that the lines certify, and says there who must do what
next. It asks no order, no clock and nobody's word: lines in any order, any number of times, give one answer; more lines
add epochs, lies and forks and take none away, but that two certificates for one epoch end the way there, unless one of
them was taken up before. Junk costs its own reading and becomes a note.

The work is linear in what is given, and whoever gives it has bounded it. Signers are not rationed here: to drop what a
liar signs beyond some number would un-count readings on which others rest. Only of bodies, which are large, no more
than 8 are read for each member that names them, those that it ratified first, and beyond two no more than 8 MiB.
Source: protocol, sections 7.3 to 7.7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from comity.trust.charter.body import MAX_BYTES, Body
from comity.trust.charter.certificate import (
    Certificate,
    accepted_by_the_new_set,
    certificate,
    check_may_follow,
    decide,
    new_keys_without_consent,
)
from comity.trust.charter.docket import Docket
from comity.trust.charter.duties import duties
from comity.trust.charter.lies import Lie, find_lies
from comity.trust.charter.pile import Pile
from comity.trust.charter.proceedings import Council, DraftState, Fork
from comity.trust.charter.proposing import DRAFT, LEFT, Named
from comity.trust.charter.readings import RATIFIED, Ratify
from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.identity import KeySet, Signed
from comity.trust.statement import Entry, parse_entry

MAX_BODIES: Final = 8
"""How many bodies are read because one member names them."""
ALWAYS: Final = 2
"""So many of them however large they are: the one that a member ratified, and the one that it intends."""
MAX_READ: Final = 2 * MAX_BYTES
"""Bytes of all of them, where there are more."""

MAX_NOTES: Final = 100


def deliberate(
    start: Body,
    entries: Iterable[Entry],
    bodies: Mapping[Digest, bytes],
    *,
    held: Sequence[Certificate] = (),
    signed: Signed = KeySet.signed,
    parse: Callable[[bytes], Body] = Body.parse,
) -> Council:
    """What `entries` amount to, for one who holds `start`. Never fails.

    Args:
        start: a body that is believed: pinned, or taken up before.
        bodies: bytes of drafts and later epochs, by digest.
        held: the epochs after `start` that were taken up before, without a gap; nothing leads back from them, and a
            rival of one of them is judged from the newest (7.7).
        signed: how signatures are judged; simulations of many members pass a cheap one.
        parse: how bodies are read; whoever deliberates often passes one that remembers.
    """
    chamber = _Chamber(Pile.sort(entries), bodies, signed, parse)
    epochs, lies, rivals = list(held), list[Lie](), list[tuple[Certificate, Certificate]]()
    docket, candidates = chamber.open(start)
    for taken in held:
        lies += find_lies(docket.heard)
        rivals += [(taken, rival) for rival in _decided(docket, candidates) if rival.body != taken.body]
        docket, candidates = chamber.open(taken.body)
    forks = [Fork(taken, rival, _retired(rival, docket)) for taken, rival in rivals]
    lies += find_lies(docket.heard)
    while not any(not fork.retired for fork in forks) and (decided := list(_decided(docket, candidates))):
        first, *others = decided
        if others:
            forks += [Fork(first, rival, retired=False) for rival in others]
            break
        epochs.append(first)
        docket, candidates = chamber.open(first.body)
        lies += find_lies(docket.heard)
    council = Council(
        epochs=tuple(epochs),
        current=docket.previous,
        drafts=_drafts(docket, candidates),
        round=_round(docket),
        heard=_heard(docket),
        reached=_reached(docket),
        left=_left(docket),
        duties=(),
        lies=tuple(lies),
        forks=tuple(forks),
        notes=chamber.notes,
    )
    return replace(council, duties=tuple(duties(council, docket.heard)))


class _Chamber:
    """The lines and bodies of one deliberation; each body is parsed once."""

    def __init__(
        self, pile: Pile, bodies: Mapping[Digest, bytes], signed: Signed, parse: Callable[[bytes], Body]
    ) -> None:
        self._pile, self._bodies, self._signed, self._read = pile, bodies, signed, parse
        self._parsed: dict[Digest, Body | None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        notes = sorted(self._pile.notes)
        more = [f"and {len(notes) - MAX_NOTES} more"] if len(notes) > MAX_NOTES else []
        return (*notes[:MAX_NOTES], *more)

    def open(self, current: Body) -> tuple[Docket, list[Body]]:
        """What counts about the successor of `current`, and the bodies that its members named to be that."""
        docket = Docket(current, self._pile, self._signed)
        named = sorted({digest for member in _named(docket).values() for digest in self._few(member)})
        found = [body for digest in named if (body := self._parse(digest)) is not None]
        return docket, [body for body in found if body.prev == docket.digest]

    def _few(self, named: Iterable[tuple[int, int, Digest]]) -> list[Digest]:
        at_hand = dict.fromkeys(digest for *_, digest in sorted(named) if digest in self._bodies)
        few, size = list[Digest](), 0
        for digest in list(at_hand)[:MAX_BODIES]:
            size += len(self._bodies[digest])
            if len(few) < ALWAYS or size <= MAX_READ:
                few.append(digest)
        return few

    def _parse(self, digest: Digest) -> Body | None:
        if digest not in self._parsed:
            self._parsed[digest] = None
            try:
                if sha256(self._bodies[digest]) == digest:
                    self._parsed[digest] = self._read(self._bodies[digest])
            except ComityError as error:
                self._pile.notes.append(f"draft {digest[:12]} counts for nothing: {error}")
        return self._parsed[digest]


def _named(docket: Docket) -> dict[Digest, list[tuple[int, int, Digest]]]:
    """The bodies that each member named, as they sort: ratified, intended (newest rounds first), put forward."""
    named: dict[Digest, list[tuple[int, int, Digest]]] = {}
    for reading in docket.heard:
        sort = 0 if isinstance(reading, Ratify) else 1
        named.setdefault(reading.member, []).append((sort, -reading.round, reading.body))
    for said in _said(docket, DRAFT):
        named.setdefault(said.by, []).append((2, 0, said.body))
    return named


def _said(docket: Docket, predicate: str) -> Iterator[Named]:
    """The `draft` or `left` statements of members of the current body."""
    for named, entry in docket.pile.named.get(_subject(docket, predicate), ()):
        if (named.predicate, named.federation) != (predicate, docket.previous.federation):
            continue
        if docket.speaks(named.by, entry.envelope):
            yield named


def _subject(docket: Docket, predicate: str) -> Digest | None:
    """The `prev` by which statements are sorted: a draft changes the current body, who leaves names it."""
    return docket.digest if predicate == DRAFT else docket.previous.prev


def _decided(docket: Docket, candidates: Iterable[Body]) -> Iterator[Certificate]:
    for body in candidates:
        try:
            yield certificate(docket, body, decide(docket, body))
        except ComityError:
            continue  # not decided, or not yet; `_drafts` says what is missing


def _retired(rival: Certificate, newest: Docket) -> bool:
    """7.7: whether nobody ratified `rival` with keys that are current in the newest body, or reached from there."""
    for line in rival.lines:
        entry = parse_entry(line)
        by = entry.statement.by
        if entry.statement.predicate == RATIFIED and by is not None and newest.speaks(by.id, entry.envelope):
            return False
    return True


def _drafts(docket: Docket, candidates: Iterable[Body]) -> tuple[DraftState, ...]:
    put_forward: dict[Digest, Named] = {}
    for named in sorted(_said(docket, DRAFT), key=lambda named: (named.by, named.text)):
        put_forward.setdefault(named.body, named)
    drafts = [_draft(docket, body, put_forward.get(body.digest)) for body in candidates]
    at = _round(docket)
    return tuple(sorted(drafts, key=lambda draft: draft.merit(at)))


def _draft(docket: Docket, body: Body, named: Named | None) -> DraftState:
    intents, certified = docket.intents(body.digest), docket.certified(body.digest)
    consents = docket.consents(body)
    missing = new_keys_without_consent(docket.previous, body, consents)
    accepted = (at for at in certified if accepted_by_the_new_set(docket.previous, body, intents[at], consents))
    return DraftState(
        body=body,
        by=named.by if named else None,
        text=named.text if named else "",
        intents={at: frozenset(members) for at, members in sorted(intents.items())},
        ratified={at: frozenset(members) for at, members in sorted(docket.ratified(body.digest).items())},
        certified_rounds=tuple(sorted(certified)),
        ready_rounds=() if missing else tuple(sorted(accepted)),
        missing=tuple(missing),
        objection=_objection(docket, body),
    )


def _objection(docket: Docket, body: Body) -> str | None:
    try:
        check_may_follow(docket, body)
    except ComityError as error:
        return error.why
    for seat in body.members:
        chain = docket.chain(seat.id)
        if chain is not None and not any(state.keys == seat.keys for state in chain.states):
            return f"the rotations of {seat.name} are in dispute, and no charter settles that"
    return None


def _heard(docket: Docket) -> dict[int, frozenset[Digest]]:
    heard: dict[int, set[Digest]] = {}
    for reading in docket.heard:
        heard.setdefault(reading.round, set()).add(reading.member)
    return {at: frozenset(members) for at, members in sorted(heard.items())}


def _reached(docket: Docket) -> dict[Digest, int]:
    reached: dict[Digest, int] = {}
    for reading in docket.heard:
        reached[reading.member] = max(reading.round, reached.get(reading.member, 0))
    return reached


def _round(docket: Docket) -> int:
    heard = _heard(docket)
    return max((at for at, members in heard.items() if len(members) >= docket.previous.blocking), default=1)


def _left(docket: Docket) -> frozenset[Digest]:
    return frozenset(named.by for named in _said(docket, LEFT) if named.body == docket.digest)
