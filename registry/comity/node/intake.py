"""Whether a line is its author's, by the keys that are proven so far.

    proven    its author signed it
    waiting   no key known so far fits its signatures: one that becomes known later may
    refused   it proves nothing, and never will

At most one envelope is verified for a line, once: where the key ids on it fit no known keys, nothing is computed.


The intake: each line of each log is looked at once, in order, in bounded steps; what is proven goes into the tables.

A line is parsed, held against what its log has said already, and proven by the keys that are known (`proof`). One that
no known key fits is parked in the ledger, and looked at again when more of its author's keys are proven. What comes of
a step stands with the position up to which it goes, in one transaction. Logs take turns, a step each: a long or hostile
one keeps no other waiting, and pays with its own turns for the parked lines that its lines wake.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.ledger.intake import JudgedLines, Revisit, StatementFacts, fact
from comity.ledger.ledger import Ledger
from comity.node.context import NodeContext
from comity.node.supervisor import Rhythm, Supervisor
from comity.trust.charter.votes import CONSENTED, DRAFT, INTENT, LEFT, RATIFIED, read_named, read_reading
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.identity import KeySet, check_inception
from comity.trust.keys import PublicKey
from comity.trust.offers.accusing import OFFER_FAULT, read_accused
from comity.trust.offers.chain import PREDICATES, read_any
from comity.trust.rotation import KeyState, check_rotation, follow, parse_rotation
from comity.trust.statement import Entry, Envelope, parse_entry
from comity.trust.statements import (
    DERIVED,
    VERIFIED,
    VOUCHED,
    Published,
    Verified,
    check_node_record,
    parse_addresses,
    parse_advisory,
    parse_derived,
    parse_hold,
    parse_node_record,
    parse_vouched,
)
from comity.trust.upstream import CHANGED, GONE, OBSERVED, Observed, parse_changed, parse_gone

MAX_ROTATIONS_KEPT: Final = 64
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


class KnownKeys:
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
        return self._identity(identity).rotations >= MAX_ROTATIONS_KEPT

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


def judge(entry: Entry, keys: KnownKeys) -> str:
    """Whether an entry is its author's: PROVEN, WAITING or REFUSED."""
    try:
        return _judge(entry, keys)
    except ComityError:
        return REFUSED


def _judge(entry: Entry, keys: KnownKeys) -> str:
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


INTAKE: Final = "intake"
"""The name of the loop."""
DEADLINE: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class IntakeStep:
    """What a step on one log brought: how many statements are new, and whether there is more to do for it."""

    new: int
    behind: bool


@dataclass(slots=True)
class _Sorted:
    """Lines of one log, sorted as they are judged."""

    log: str
    known: dict[Digest, int]
    proven: list[StatementFacts] = field(default_factory=list)
    waiting: list[tuple[int, Digest]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def judged(self, seen: dict[Digest, int]) -> JudgedLines:
        return JudgedLines(self.log, tuple(self.proven), tuple(self.waiting), seen, tuple(self.refused))


class LineProver:
    """The steps of the intake. Blocking; one at a time."""

    def __init__(self, ledger: Ledger, seats: Seats) -> None:
        self._ledger = ledger
        self._keys = KnownKeys(ledger, seats)

    def step(self, log: str) -> IntakeStep:
        """One bounded step on a log: parked lines first that its own lines have woken, else its next stretch."""
        revisit = self._ledger.intake.next_revisit(log)
        if revisit is not None:
            return IntakeStep(self._look_again(revisit), True)
        stretch = self._ledger.intake.stretch(log)
        if not stretch.lines:
            return IntakeStep(0, False)
        entries = [(index, _entry(line)) for index, line in enumerate(stretch.lines, stretch.start)]
        read = [(index, entry) for index, entry in entries if entry is not None]
        seen = self._begin([entry for _, entry in read])
        judged = self._judge(stretch.log, read).judged(seen)
        new = self._ledger.intake.commit(stretch, judged)
        return IntakeStep(new, stretch.behind or bool(new))

    def finish(self, log: str) -> int:
        """Take steps until nothing is left to be done for a log; how many statements were new."""
        new = 0
        while (step := self.step(log)).behind:
            new += step.new
        return new + step.new

    def finish_all(self) -> int:
        """The same for every log."""
        new = 0
        while behind := self._ledger.intake.behind():
            new += sum(self.step(log).new for log in behind)
        return new

    def _look_again(self, revisit: Revisit) -> int:
        by_log: dict[str, list[tuple[int, Entry]]] = {}
        for item in revisit.lines:
            by_log.setdefault(item.log, []).append((item.index, parse_entry(item.line)))
        seen = self._begin([entry for entries in by_log.values() for _, entry in entries])
        judged = [self._judge(log, entries).judged(seen) for log, entries in by_log.items()]
        return self._ledger.intake.commit_revisit(revisit, judged)

    def _begin(self, entries: Sequence[Entry]) -> dict[Digest, int]:
        authors = list(dict.fromkeys(entry.statement.by.id for entry in entries if entry.statement.by))
        seen = self._ledger.intake.keys_known(authors)
        self._keys.begin(seen)
        return seen

    def _judge(self, log: str, entries: Sequence[tuple[int, Entry]]) -> _Sorted:
        """Sort lines of one log. A copy of what this log has said before, or a line that was proven in another log, is
        not proven again."""
        statements = [entry.statement_digest for _, entry in entries]
        elsewhere = self._ledger.intake.proven_lines(statements)
        sorted_ = _Sorted(log, self._ledger.intake.known(log, statements))
        for index, entry in entries:
            if sorted_.known.get(entry.statement_digest, index) < index:
                sorted_.refused.append(index)
                continue
            found = PROVEN if entry.digest in elsewhere else judge(entry, self._keys)
            self._sort(sorted_, index, entry, found)
        return sorted_

    def _sort(self, sorted_: _Sorted, index: int, entry: Entry, found: str) -> None:
        author = entry.statement.by
        said = fact(index, entry) if found == PROVEN else None
        if said is not None:
            sorted_.proven.append(said)
            sorted_.known[said.statement] = index
            self._keys.learn(entry)
        elif found == WAITING and author is not None:
            sorted_.waiting.append((index, author.id))
        elif found == REFUSED:
            sorted_.refused.append(index)


class Intake:
    """Runs the intake of a node. Touched by the event loop only.

    Args:
        proven: called after a turn that proved anything new.
    """

    def __init__(self, core: NodeContext, proven: Callable[[], Awaitable[None]]) -> None:
        self._core = core
        self._proven = proven
        self._prover = LineProver(core.ledger, self._seats)
        self._one = asyncio.Lock()
        self._supervisor: Supervisor | None = None

    async def begin(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        await self.seated()
        rhythm = Rhythm(max(0.05, self._core.config.replication.interval_seconds), DEADLINE)
        supervisor.loop(INTAKE, self._turns, rhythm)

    def look(self) -> None:
        """A log has grown."""
        if self._supervisor is not None:
            self._supervisor.ring(INTAKE)

    async def seated(self) -> None:
        """Charters may list keys that were not known: look at what waits for their members again."""
        known = self._core.membership.known
        await self._core.pools.ledger(self._core.ledger.intake.revisit, self._core.log, known)
        self.look()

    async def finish(self, log: str) -> None:
        """Return once everything that stands in a log went through the intake."""
        while await self._step(log):
            pass

    async def _turns(self) -> None:
        """Give every log that is behind a step, in turn, until none is. One that fails keeps no other waiting."""
        failures: dict[str, ComityError] = {}
        while behind := await self._core.pools.ledger(self._core.ledger.intake.behind):
            if failures.keys() >= set(behind):
                raise failures[behind[0]]
            for log in behind:
                try:
                    if log not in failures:
                        await self._step(log)
                except ComityError as error:
                    failures[log] = error

    async def _step(self, log: str) -> bool:
        """Whether there is more to do."""
        async with self._one:
            step = await self._core.pools.hashing(self._prover.step, log)
        if step.new:
            await self._proven()
        return step.behind

    def _seats(self, identity: Digest) -> Iterable[KeyState]:
        return [chain.start for chain in self._core.membership.chains(identity)]


def _entry(line: bytes) -> Entry | None:
    try:
        return parse_entry(line)
    except Malformed:
        return None
