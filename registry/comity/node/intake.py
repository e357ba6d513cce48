"""Verifies each entry of each log once, in order and in bounded steps, and stores the result in the ledger's tables.

    proven    signed by its author
    waiting   no known key matches its signatures; keys that become known later may
    refused   invalid, whatever becomes known later

At most one envelope is verified for an entry, once; if its key ids match no known keys, nothing is computed. Waiting
entries are stored and checked again when more keys of their author are known. The results of a step and the position
that it reached are committed in one transaction. Logs take turns, one step each, so a long or hostile log does not
delay others; rechecking the waiting entries that a log's own entries unblock uses that log's turns, beside its next
entries.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from comity.ledger.intake import MAX_LINES, IntakeResult, Revisit, StatementFacts, statement_facts
from comity.ledger.ledger import Ledger
from comity.node.charter.inbox import CHARTER_PREDICATES
from comity.node.members import Membership
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.trust.approvals import APPROVAL_ENDED, APPROVED, parse_approval_ended, parse_approved
from comity.trust.artifact_pins import WANTED, WANTED_WITHDRAWN, parse_wanted, parse_wanted_withdrawn
from comity.trust.audit import AUDITED, parse_audited
from comity.trust.charter.votes import (
    CONSENTED,
    DRAFT,
    DRAFT_WITHDRAWN,
    INTENT,
    LEFT,
    RATIFIED,
    parse_body_statement,
    parse_vote,
)
from comity.trust.copies import HOLD, HOLD_WITHDRAWN, HOLDS, parse_hold, parse_hold_withdrawn, parse_holds
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.evaluation import ANNOUNCED, parse_announced
from comity.trust.hardware.evidence import ATTESTED, parse_attested
from comity.trust.identity import KeySet, check_inception
from comity.trust.keys import PublicKey
from comity.trust.node_records import check_node_record, parse_addresses, parse_node_record
from comity.trust.offers.fault_proof import OFFER_FAULT, read_offer_fault
from comity.trust.offers.log_reader import PREDICATES, read_offer_statement
from comity.trust.report import VERIFIED, Verified
from comity.trust.rotation import KeyState, check_rotation, follow, parse_rotation
from comity.trust.statement import Entry, Envelope, parse_entry
from comity.trust.statements import DERIVED, VOUCHED, Published, parse_advisory, parse_derived, parse_vouched
from comity.trust.upstream import CHANGED, GONE, OBSERVED, Observed, parse_changed, parse_gone

MAX_ROTATIONS_KEPT: Final = 64
"""Rotations accepted for one identity, disputed ones included."""
MAX_CACHED_KEYS: Final = 8192
"""Keys cached for the most recently used identities: at most about 32 MB."""
MAX_CACHED_NODES: Final = 1024
"""Node keys cached."""

PROVEN: Final = "proven"
WAITING: Final = "waiting"
REFUSED: Final = "refused"

PARSERS: Final[Mapping[str, Callable[[Entry], object]]] = {
    "published": lambda entry: Published.parse(entry.statement),
    HOLD: lambda entry: parse_hold(entry.statement),
    HOLDS: lambda entry: parse_holds(entry.statement),
    HOLD_WITHDRAWN: lambda entry: parse_hold_withdrawn(entry.statement),
    WANTED: lambda entry: parse_wanted(entry.statement),
    WANTED_WITHDRAWN: lambda entry: parse_wanted_withdrawn(entry.statement),
    AUDITED: lambda entry: parse_audited(entry.statement),
    "addresses": lambda entry: parse_addresses(entry.statement),
    "advisory": lambda entry: parse_advisory(entry.statement),
    VOUCHED: lambda entry: parse_vouched(entry.statement),
    APPROVED: lambda entry: parse_approved(entry.statement),
    APPROVAL_ENDED: lambda entry: parse_approval_ended(entry.statement),
    ATTESTED: lambda entry: parse_attested(entry.statement),
    ANNOUNCED: lambda entry: parse_announced(entry.statement),
    DERIVED: lambda entry: parse_derived(entry.statement),
    VERIFIED: lambda entry: Verified.parse(entry.statement),
    OBSERVED: lambda entry: Observed.parse(entry.statement),
    CHANGED: lambda entry: parse_changed(entry.statement),
    GONE: lambda entry: parse_gone(entry.statement),
    OFFER_FAULT: lambda entry: read_offer_fault(entry.statement),
    **dict.fromkeys(PREDICATES, lambda entry: read_offer_statement(entry.statement)),
    DRAFT: parse_body_statement,
    CONSENTED: parse_body_statement,
    LEFT: parse_body_statement,
    DRAFT_WITHDRAWN: parse_body_statement,
    INTENT: parse_vote,
    RATIFIED: parse_vote,
}

ListedStates = Callable[[Digest], Iterable[KeyState]]
"""The key states of a member that charters list."""


@dataclass(frozen=True, slots=True)
class _CachedIdentity:
    """An identity's key states on every branch, for one version of its known lines; none for an unknown identity."""

    version: tuple[int, tuple[Digest, ...]]
    states: tuple[KeyState, ...]
    rotations: int
    weight: int


class KnownKeys:
    """The keys of identities and nodes that are proven in the ledger. Not thread-safe.

    Bounded: the least recently used keys are dropped and read again on demand.
    """

    def __init__(self, ledger: Ledger, listed: ListedStates) -> None:
        self._ledger = ledger
        self._listed_states = listed
        self._seen: Mapping[Digest, int] = {}
        self._learned: dict[Digest, list[Entry]] = {}
        self._identities: OrderedDict[Digest, _CachedIdentity] = OrderedDict()
        self._nodes: OrderedDict[Digest, KeySet] = OrderedDict()
        self._weight = 0

    def begin(self, seen: Mapping[Digest, int]) -> None:
        """Prepare for entries of these authors, with the number of their key entries in the ledger
        (`IntakeStore.key_counts`).

        Discards what was learned but not committed.
        """
        for author in self._learned:
            self._drop(author)
            self._nodes.pop(author, None)
        self._seen, self._learned = seen, {}
        for author, known in seen.items():
            cached = self._identities.get(author)
            if cached is not None and cached.version != self._version(author, known):
                self._drop(author)

    def states(self, identity: Digest) -> tuple[KeyState, ...]:
        return self._identity(identity).states

    def node(self, node: Digest) -> KeySet | None:
        """The online key of a node, or None."""
        if node not in self._nodes:
            key = self._ledger.proven.node_key(node)
            if key is None:
                return None
            self._cache_node(node, KeySet((key,), 1))
        self._nodes.move_to_end(node)
        return self._nodes[node]

    def full(self, identity: Digest) -> bool:
        """Whether no further rotation of the identity is accepted."""
        return self._identity(identity).rotations >= MAX_ROTATIONS_KEPT

    def learn(self, entry: Entry) -> None:
        """Add the keys of a proven entry that is not yet in the ledger."""
        statement = entry.statement
        assert statement.by is not None
        if statement.predicate == "node-record":
            record = parse_node_record(entry)
            self._learned.setdefault(record.node.id, [])
            self._cache_node(record.node.id, KeySet((record.online,), 1))
        elif statement.predicate in ("inception", "rotated"):
            self._learned.setdefault(statement.by.id, []).append(entry)
            self._read(statement.by.id)

    def _identity(self, identity: Digest) -> _CachedIdentity:
        if identity not in self._identities:
            self._read(identity)
        self._identities.move_to_end(identity)
        return self._identities[identity]

    def _read(self, identity: Digest) -> None:
        self._drop(identity)
        listed, entries = tuple(self._listed_states(identity)), self._entries(identity)
        starts = [
            KeyState.of_inception(check_inception(entry, signed=already_verified))
            for entry in entries
            if entry.statement.predicate == "inception"
        ]
        rotations = [entry for entry in entries if entry.statement.predicate == "rotated"]
        states: dict[tuple[Digest, int | None], KeyState] = {}
        for start in (*starts, *listed):
            for state in follow(start, rotations, signed=already_verified).reached:
                states.setdefault((state.digest, state.seq), state)
        weight = 1 + sum(len(state.keys.keys) for state in states.values())
        version = self._version(identity, len(entries))
        self._identities[identity] = _CachedIdentity(version, tuple(states.values()), len(rotations), weight)
        self._weight += weight
        while self._weight > MAX_CACHED_KEYS and len(self._identities) > 1:
            self._drop(next(iter(self._identities)))

    def _entries(self, identity: Digest) -> list[Entry]:
        """The proven inception and rotations of an identity, from the ledger and learned since."""
        lines: list[bytes] = []
        if self._seen.get(identity) != 0:
            inception = self._ledger.proven.inception(identity)
            lines = [*([inception] if inception else []), *self._ledger.proven.rotations(identity)]
        entries = (*map(parse_entry, lines), *self._learned.get(identity, ()))
        return list({entry.statement_digest: entry for entry in entries}.values())

    def _drop(self, identity: Digest) -> None:
        if (cached := self._identities.pop(identity, None)) is not None:
            self._weight -= cached.weight

    def _cache_node(self, node: Digest, key: KeySet) -> None:
        self._nodes[node] = key
        while len(self._nodes) > MAX_CACHED_NODES:
            self._nodes.popitem(last=False)

    def _version(self, identity: Digest, known: int) -> tuple[int, tuple[Digest, ...]]:
        return known, tuple(state.digest for state in self._listed_states(identity))


def classify(entry: Entry, keys: KnownKeys) -> str:
    """Whether an entry is signed by its author: PROVEN, WAITING or REFUSED."""
    try:
        return _classify(entry, keys)
    except ComityError:
        return REFUSED


def _classify(entry: Entry, keys: KnownKeys) -> str:
    statement = entry.statement
    if statement.by is None:
        return REFUSED
    if statement.predicate == "inception":
        check_inception(entry)
        return PROVEN
    if statement.by.kind == "node":
        return _classify_node(entry, keys.node(statement.by.id))
    states = keys.states(statement.by.id)
    if statement.predicate == "rotated":
        return _classify_rotation(entry, states, full=keys.full(statement.by.id))
    bound = parse_node_record(entry).bound_keys if statement.predicate == "node-record" else ()
    if parser := PARSERS.get(statement.predicate):
        parser(entry)
    fitting = next((state.keys for state in states if fits(entry.envelope, state.keys, bound)), None)
    if fitting is None:
        return WAITING
    if bound:
        check_node_record(entry, fitting)
        return PROVEN
    return PROVEN if fitting.signed(entry.envelope) else REFUSED


def _classify_node(entry: Entry, key: KeySet | None) -> str:
    if entry.statement.predicate in CHARTER_PREDICATES:
        return REFUSED
    if parser := PARSERS.get(entry.statement.predicate):
        parser(entry)
    if key is None:
        return WAITING
    return PROVEN if fits(entry.envelope, key) and key.signed(entry.envelope) else REFUSED


def _classify_rotation(entry: Entry, states: Iterable[KeyState], *, full: bool) -> str:
    rotation, _ = parse_rotation(entry)
    candidates = [state for state in states if state.digest == rotation.prev and state.seq in (None, rotation.seq - 1)]
    if not candidates:
        return WAITING
    if full:
        return REFUSED
    check_rotation(entry, candidates[0])
    return PROVEN


def fits(envelope: Envelope, keys: KeySet, extra_keys: Collection[PublicKey] = ()) -> bool:
    """Whether the key ids on an envelope are those of enough of `keys`, of all `extra_keys`, and no others."""
    present = {signature.keyid for signature in envelope.signatures}
    whole = [key for key in keys.keys if present.issuperset(half.id for half in key.halves)]
    wanted = {half.id for half in (*(half for key in whole for half in key.halves), *extra_keys)}
    return len(whole) >= keys.threshold and present == wanted


def already_verified(keys: KeySet, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
    """A signature check that accepts entries which were verified before."""
    return True


INTAKE: Final = "intake"
"""The name of the loop."""
STEP_DEADLINE: Final = 7 * 86_400.0
LINES_OF_A_ROUND: Final = 1024
"""Lines that the logs which are behind share, at least `MAX_LINES` each: a step has the same queries and one commit,
whatever the number of its lines."""


@dataclass(frozen=True, slots=True)
class IntakeStep:
    """The result of a step on one log: number of newly proven statements, whether more work is left, and the predicates
    of the statements that were proven."""

    new: int
    behind: bool
    predicates: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Batch:
    """Entries of one log, grouped by result."""

    log: str
    known: dict[Digest, int]
    proven: list[StatementFacts] = field(default_factory=list)
    waiting: list[tuple[int, Digest]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def result(self, seen: dict[Digest, int]) -> IntakeResult:
        return IntakeResult(self.log, tuple(self.proven), tuple(self.waiting), seen, tuple(self.refused))


class LineProver:
    """The steps of the intake. Blocking; not thread-safe."""

    def __init__(self, ledger: Ledger, listed: ListedStates) -> None:
        self._ledger = ledger
        self._keys = KnownKeys(ledger, listed)

    def step(self, log: str, most: int = MAX_LINES) -> IntakeStep:
        """One bounded step on a log: waiting entries that its own entries unblocked, and its next entries, at most
        `most`. Anybody can let many entries wait for keys of anybody, so its next entries do not wait for these."""
        revisit = self._ledger.intake.next_revisit(log)
        again = IntakeStep(0, False) if revisit is None else self._reclassify(revisit)
        read = self.read(log, most)
        return IntakeStep(again.new + read.new, again.behind or read.behind, again.predicates | read.predicates)

    def read(self, log: str, most: int = MAX_LINES) -> IntakeStep:
        """One bounded step on the next entries of a log alone."""
        stretch = self._ledger.intake.next_batch(log, most)
        if not stretch.lines:
            return IntakeStep(0, False)
        entries = [(index, _entry(line)) for index, line in enumerate(stretch.lines, stretch.start)]
        read = [(index, entry) for index, entry in entries if entry is not None]
        seen = self._load_keys([entry for _, entry in read])
        result = self._classify(stretch.log, read).result(seen)
        new = self._ledger.intake.commit(stretch, result)
        return IntakeStep(new, stretch.more or bool(new), _predicates(result))

    def finish(self, log: str) -> int:
        """Run steps until nothing is left for a log. Returns the number of new statements."""
        new = 0
        while (step := self.step(log)).behind:
            new += step.new
        return new + step.new

    def finish_all(self) -> int:
        """As `finish`, for every log."""
        new = 0
        while behind := self._ledger.intake.pending_logs():
            new += sum(self.step(log).new for log in behind)
        return new

    def _reclassify(self, revisit: Revisit) -> IntakeStep:
        by_log: dict[str, list[tuple[int, Entry]]] = {}
        for item in revisit.lines:
            by_log.setdefault(item.log, []).append((item.index, parse_entry(item.line)))
        seen = self._load_keys([entry for entries in by_log.values() for _, entry in entries])
        results = [self._classify(log, entries).result(seen) for log, entries in by_log.items()]
        return IntakeStep(self._ledger.intake.commit_revisit(revisit, results), True, _predicates(*results))

    def _load_keys(self, entries: Sequence[Entry]) -> dict[Digest, int]:
        authors = list(dict.fromkeys(entry.statement.by.id for entry in entries if entry.statement.by))
        seen = self._ledger.intake.key_counts(authors)
        self._keys.begin(seen)
        return seen

    def _classify(self, log: str, entries: Sequence[tuple[int, Entry]]) -> _Batch:
        """Classify entries of one log. A repetition of a statement in this log is refused; a line proven in another log
        is not verified again."""
        known = self._ledger.intake.known(log, [entry.statement_digest for _, entry in entries])
        batch = _Batch(log, known.indexes)
        for index, entry in entries:
            if batch.known.get(entry.statement_digest, index) < index:
                batch.refused.append(index)
                continue
            found = PROVEN if known.lines and entry.digest in known.lines else classify(entry, self._keys)
            self._sort(batch, index, entry, found)
        return batch

    def _sort(self, batch: _Batch, index: int, entry: Entry, found: str) -> None:
        author = entry.statement.by
        facts = statement_facts(index, entry) if found == PROVEN else None
        if facts is not None:
            batch.proven.append(facts)
            batch.known[facts.statement] = index
            self._keys.learn(entry)
        elif found == WAITING and author is not None:
            batch.waiting.append((index, author.id))
        elif found == REFUSED:
            batch.refused.append(index)


class Intake:
    """Runs the intake of a node. Not thread-safe: call from the event loop.

    Args:
        proven: called with their predicates after a step that proved new statements.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        membership: Membership,
        interval: float,
        proven: Callable[[frozenset[str]], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self._interval = interval
        self._proven = proven
        self._prover = LineProver(ledger.tables, self._listed_states)
        self._step_lock = asyncio.Lock()
        self._wake: Callable[[], None] = lambda: None
        """Runs the loop now; before `begin` there is none."""

    async def begin(self, supervisor: Supervisor) -> None:
        self._wake = partial(supervisor.wake, INTAKE)
        await self.members_changed()
        timing = LoopTiming(max(0.05, self._interval), STEP_DEADLINE)
        supervisor.loop(INTAKE, self._process_all, timing)

    def notify(self) -> None:
        """A log has grown: run the loop now."""
        self._wake()

    async def members_changed(self) -> None:
        """Charters may list new keys: recheck the waiting entries of all members."""
        known = self._membership.known
        await self._ledger.run(self._ledger.tables.intake.revisit, self._membership.seat.log, known)
        self.notify()

    async def finish(self, log: str) -> None:
        """Return when every entry of a log has been processed, and those that waited for its entries."""
        while await self._step(self._prover.step, log, LINES_OF_A_ROUND):
            pass

    async def read(self, log: str) -> None:
        """Return when every entry of a log has been processed."""
        while await self._step(self._prover.read, log, LINES_OF_A_ROUND):
            pass

    async def _process_all(self) -> None:
        """Run a step for each log that is behind, in turn, until none is. A failing log does not delay the others."""
        failures: dict[str, ComityError] = {}
        while behind := await self._ledger.run(self._ledger.tables.intake.pending_logs):
            if failures.keys() >= set(behind):
                raise failures[behind[0]]
            for log in behind:
                try:
                    if log not in failures:
                        await self._step(self._prover.step, log, max(MAX_LINES, LINES_OF_A_ROUND // len(behind)))
                except ComityError as error:
                    failures[log] = error

    async def _step(self, work: Callable[[str, int], IntakeStep], log: str, most: int) -> bool:
        """Returns whether more work is left."""
        async with self._step_lock:
            step = await self._pools.hashing(work, log, most)
        if step.new:
            await self._proven(step.predicates)
        return step.behind

    def _listed_states(self, identity: Digest) -> Iterable[KeyState]:
        return [chain.start for chain in self._membership.chains(identity)]


def _predicates(*results: IntakeResult) -> frozenset[str]:
    return frozenset(facts.predicate for result in results for facts in result.proven)


def _entry(line: bytes) -> Entry | None:
    try:
        return parse_entry(line)
    except Malformed:
        return None
