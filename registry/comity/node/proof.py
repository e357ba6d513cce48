"""Whether a line is its author's, by the keys that are proven so far.

    proven    its author signed it
    waiting   no key known so far fits its signatures: one that becomes known later may
    refused   it proves nothing, and never will

At most one envelope is verified for a line, once: where the key ids on it fit no known keys, nothing is computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.ledger.ledger import Ledger
from comity.trust.charter import read_named, read_reading
from comity.trust.charter.proposing import CONSENTED, DRAFT, LEFT
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest
from comity.trust.dsse import Envelope
from comity.trust.errors import ComityError
from comity.trust.identity import KeySet, check_inception
from comity.trust.keys import PublicKey
from comity.trust.offers import PREDICATES, read_any
from comity.trust.offers.accusing import OFFER_FAULT, read_accused
from comity.trust.rotation import KeyState, follow
from comity.trust.rotation.statement import check_rotation, parse_rotation
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements.claims import parse_addresses, parse_advisory, parse_hold
from comity.trust.statements.derived import PREDICATE as DERIVED
from comity.trust.statements.derived import parse_derived
from comity.trust.statements.node_record import check_node_record, parse_node_record
from comity.trust.statements.published import Published
from comity.trust.statements.verified import VERIFIED, Verified
from comity.trust.statements.vouched import PREDICATE as VOUCHED
from comity.trust.statements.vouched import parse_vouched
from comity.trust.upstream.news import CHANGED, GONE, parse_changed, parse_gone
from comity.trust.upstream.observed import OBSERVED, Observed

MAX_ROTATIONS: Final = 64
"""Rotations of one identity that are taken up, those in dispute included."""
MAX_KEYS: Final = 8192
"""Keys that are kept at hand, of the identities that were asked for last: at most some 32 MB."""
MAX_NODES: Final = 1024
"""Nodes' keys that are kept at hand."""

PROVEN: Final = "proven"
WAITING: Final = "waiting"
REFUSED: Final = "refused"

READERS: Final[Mapping[str, Callable[[Entry], object]]] = {
    "published": lambda entry: Published.parse(entry.statement),
    "hold": lambda entry: parse_hold(entry.statement),
    "addresses": lambda entry: parse_addresses(entry.statement),
    "advisory": lambda entry: parse_advisory(entry.statement),
    VOUCHED: lambda entry: parse_vouched(entry.statement),
    DERIVED: lambda entry: parse_derived(entry.statement),
    VERIFIED: lambda entry: Verified.parse(entry.statement),
    OBSERVED: lambda entry: Observed.parse(entry.statement),
    CHANGED: lambda entry: parse_changed(entry.statement),
    GONE: lambda entry: parse_gone(entry.statement),
    OFFER_FAULT: lambda entry: read_accused(entry.statement),
    **dict.fromkeys(PREDICATES, lambda entry: read_any(entry.statement)),
    DRAFT: read_named,
    CONSENTED: read_named,
    LEFT: read_named,
    INTENT: read_reading,
    RATIFIED: read_reading,
}

OF_MEMBERS: Final = frozenset((DRAFT, INTENT, RATIFIED, CONSENTED, LEFT))
"""What members say about the next epoch: no node speaks for them."""

Seats = Callable[[Digest], Iterable[KeyState]]
"""The states in which charters list a member's keys."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An identity by what was known of it: its key states on every branch; none for who is not known."""

    mark: tuple[int, tuple[Digest, ...]]
    states: tuple[KeyState, ...]
    rotations: int
    weight: int


class Keys:
    """By which keys identities and nodes speak, as far as it is proven in a ledger. One thread uses it at a time.

    Bounded: what was asked for longest ago is read again when it is asked for.
    """

    def __init__(self, ledger: Ledger, seats: Seats) -> None:
        self._ledger = ledger
        self._seats = seats
        self._seen: Mapping[Digest, int] = {}
        self._fresh: dict[Digest, list[Entry]] = {}
        self._identities: OrderedDict[Digest, _Known] = OrderedDict()
        self._nodes: OrderedDict[Digest, KeySet] = OrderedDict()
        self._weight = 0

    def begin(self, seen: Mapping[Digest, int]) -> None:
        """Go on with lines of these authors, of whose keys so much is in the ledger (`Intake.keys_known`).

        What was learned and did not come to stand is forgotten.
        """
        for author in self._fresh:
            self._drop(author)
            self._nodes.pop(author, None)
        self._seen, self._fresh = seen, {}
        for author, known in seen.items():
            held = self._identities.get(author)
            if held is not None and held.mark != self._mark(author, known):
                self._drop(author)

    def states(self, identity: Digest) -> tuple[KeyState, ...]:
        return self._identity(identity).states

    def node(self, node: Digest) -> KeySet | None:
        """The online key of a node."""
        if node not in self._nodes:
            key = self._ledger.proven.node_key(node)
            if key is None:
                return None
            self._remember_node(node, KeySet((key,), 1))
        self._nodes.move_to_end(node)
        return self._nodes[node]

    def full(self, identity: Digest) -> bool:
        """Whether no further rotation of it is taken up."""
        return self._identity(identity).rotations >= MAX_ROTATIONS

    def learn(self, entry: Entry) -> None:
        """Take up what makes keys known, and is proven and not yet in the ledger."""
        statement = entry.statement
        assert statement.by is not None
        if statement.predicate == "node-record":
            record = parse_node_record(entry)
            self._fresh.setdefault(record.node.id, [])
            self._remember_node(record.node.id, KeySet((record.online,), 1))
        elif statement.predicate in ("inception", "rotated"):
            self._fresh.setdefault(statement.by.id, []).append(entry)
            self._read(statement.by.id)

    def _identity(self, identity: Digest) -> _Known:
        if identity not in self._identities:
            self._read(identity)
        self._identities.move_to_end(identity)
        return self._identities[identity]

    def _read(self, identity: Digest) -> None:
        self._drop(identity)
        seats, entries = tuple(self._seats(identity)), self._entries(identity)
        starts = [
            KeyState.of_inception(check_inception(entry, signed=_believed))
            for entry in entries
            if entry.statement.predicate == "inception"
        ]
        turned = [entry for entry in entries if entry.statement.predicate == "rotated"]
        states: dict[tuple[Digest, int | None], KeyState] = {}
        for start in (*starts, *seats):
            for state in follow(start, turned, signed=_believed).reached:
                states.setdefault((state.digest, state.seq), state)
        weight = 1 + sum(len(state.keys.keys) for state in states.values())
        mark = self._mark(identity, len(entries))
        self._identities[identity] = _Known(mark, tuple(states.values()), len(turned), weight)
        self._weight += weight
        while self._weight > MAX_KEYS and len(self._identities) > 1:
            self._drop(next(iter(self._identities)))

    def _entries(self, identity: Digest) -> list[Entry]:
        """The inception and rotations of an identity that are proven, in the ledger or since."""
        lines: list[bytes] = []
        if self._seen.get(identity) != 0:
            inception = self._ledger.proven.inception(identity)
            lines = [*([inception] if inception else []), *self._ledger.proven.rotations(identity)]
        entries = (*map(parse_entry, lines), *self._fresh.get(identity, ()))
        return list({entry.statement_digest: entry for entry in entries}.values())

    def _drop(self, identity: Digest) -> None:
        if (held := self._identities.pop(identity, None)) is not None:
            self._weight -= held.weight

    def _remember_node(self, node: Digest, key: KeySet) -> None:
        self._nodes[node] = key
        while len(self._nodes) > MAX_NODES:
            self._nodes.popitem(last=False)

    def _mark(self, identity: Digest, known: int) -> tuple[int, tuple[Digest, ...]]:
        return known, tuple(state.digest for state in self._seats(identity))


def judge(entry: Entry, keys: Keys) -> str:
    """Whether an entry is its author's: PROVEN, WAITING or REFUSED."""
    try:
        return _judge(entry, keys)
    except ComityError:
        return REFUSED


def _judge(entry: Entry, keys: Keys) -> str:
    statement = entry.statement
    if statement.by is None:
        return REFUSED
    if statement.predicate == "inception":
        check_inception(entry)
        return PROVEN
    if statement.by.kind == "node":
        return _judge_node(entry, keys.node(statement.by.id))
    states = keys.states(statement.by.id)
    if statement.predicate == "rotated":
        return _judge_rotation(entry, states, full=keys.full(statement.by.id))
    bound = parse_node_record(entry).bound_keys if statement.predicate == "node-record" else ()
    if reader := READERS.get(statement.predicate):
        reader(entry)
    fitting = next((state.keys for state in states if fits(entry.envelope, state.keys, bound)), None)
    if fitting is None:
        return WAITING
    if bound:
        check_node_record(entry, fitting)
        return PROVEN
    return PROVEN if fitting.signed(entry.envelope) else REFUSED


def _judge_node(entry: Entry, key: KeySet | None) -> str:
    if entry.statement.predicate in OF_MEMBERS:
        return REFUSED
    if reader := READERS.get(entry.statement.predicate):
        reader(entry)
    if key is None:
        return WAITING
    return PROVEN if fits(entry.envelope, key) and key.signed(entry.envelope) else REFUSED


def _judge_rotation(entry: Entry, states: Iterable[KeyState], *, full: bool) -> str:
    rotation, _ = parse_rotation(entry)
    left = [state for state in states if state.digest == rotation.prev and state.seq in (None, rotation.seq - 1)]
    if not left:
        return WAITING
    if full:
        return REFUSED
    check_rotation(entry, left[0])
    return PROVEN


def fits(envelope: Envelope, keys: KeySet, beside: Collection[PublicKey] = ()) -> bool:
    """Whether the key ids on an envelope are those of enough of these keys, of all those beside, and no others."""
    present = {signature.keyid for signature in envelope.signatures}
    whole = [key for key in keys.keys if present.issuperset(half.id for half in key.halves)]
    wanted = {half.id for half in (*(half for key in whole for half in key.halves), *beside)}
    return len(whole) >= keys.threshold and present == wanted


def _believed(keys: KeySet, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
    """What was proven once is not proven again."""
    return True
