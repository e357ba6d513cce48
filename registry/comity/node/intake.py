"""Verifies each entry of each log once, in order and in bounded steps, and stores the result in the ledger's tables.

    proven    signed by its author, as `trust.authorship.judge_author` says
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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from comity.ledger.intake import MAX_LINES, IntakeResult, Revisit, StatementFacts, statement_facts
from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.reading import ReadState
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.rules.statement_readers import read_content
from comity.trust.authorship import AuthorKeys, Authorship, judge_author, kept_rotations
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen
from comity.trust.identity import KeySet, check_inception
from comity.trust.keys import PublicKey, VerifyingKey
from comity.trust.node_records import NodeRecord
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import Author, Entry, Envelope, parse_entry
from comity.trust.statement_kinds import (
    INCEPTION,
    NODE_RECORD,
    ROTATED,
)

MAX_CACHED_KEYS: Final = 8192
"""Keys cached for the most recently used identities: at most about 32 MB."""
MAX_CACHED_NODES: Final = 1024
"""Node keys cached."""

ListedStates = Callable[[Digest], Iterable[KeyState]]
"""The key states of a member that charters list."""


@frozen
class _CachedIdentity:
    """What is known of an identity, for one version of its known lines; nothing of an unknown identity."""

    version: tuple[int, tuple[Digest, ...]]
    keys: AuthorKeys

    @property
    def weight(self) -> int:
        return 1 + sum(len(state.keys.keys) for chain in self.keys.chains for state in chain.reached)


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
        self._nodes: OrderedDict[Digest, VerifyingKey] = OrderedDict()
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

    def of(self, author: Author) -> AuthorKeys:
        return AuthorKeys(node=self._node(author.id)) if author.kind == "node" else self._identity(author.id).keys

    def _node(self, node: Digest) -> VerifyingKey | None:
        """The online key of a node, or None."""
        if node not in self._nodes:
            key = self._ledger.proven.node_key(node)
            if key is None:
                return None
            self._cache_node(node, key)
        self._nodes.move_to_end(node)
        return self._nodes[node]

    def learn(self, entry: Entry) -> None:
        """Add the keys of a proven entry that is not yet in the ledger."""
        statement = entry.statement
        assert statement.by is not None
        if statement.predicate == NODE_RECORD:
            record = NodeRecord.parse(entry.statement)
            self._learned.setdefault(record.node.id, [])
            self._cache_node(record.node.id, record.online)
        elif statement.predicate == INCEPTION:
            self._learned.setdefault(statement.by.id, []).append(entry)
            self._keep(statement.by.id, self._read(statement.by.id))
        elif statement.predicate == ROTATED:
            known = self._identity(statement.by.id)
            self._learned.setdefault(statement.by.id, []).append(entry)
            self._keep(statement.by.id, self._extended(known, entry))

    def _identity(self, identity: Digest) -> _CachedIdentity:
        if identity not in self._identities:
            self._keep(identity, self._read(identity))
        self._identities.move_to_end(identity)
        return self._identities[identity]

    def _read(self, identity: Digest) -> _CachedIdentity:
        entries = self._entries(identity)
        inceptions = [entry for entry in entries if entry.statement.predicate == INCEPTION]
        inception = check_inception(inceptions[0], signed=already_verified) if inceptions else None
        rotations = [entry for entry in entries if entry.statement.predicate == ROTATED]
        starts = [KeyState.of_inception(inception)] if inception else []
        starts += self._listed_states(identity)
        chains = tuple(follow(start, rotations, signed=already_verified) for start in dict.fromkeys(starts))
        return _CachedIdentity(
            self._version(identity, len(entries)), AuthorKeys(inception, chains, kept=kept_rotations(rotations))
        )

    def _extended(self, known: _CachedIdentity, entry: Entry) -> _CachedIdentity:
        """With one more proven rotation."""
        number, listed = known.version
        chains = tuple(chain.extended(entry, signed=already_verified) for chain in known.keys.chains)
        kept = {**(known.keys.kept or {}), **kept_rotations([entry])}
        return _CachedIdentity((number + 1, listed), replace(known.keys, chains=chains, kept=kept))

    def _keep(self, identity: Digest, known: _CachedIdentity) -> None:
        self._drop(identity)
        self._identities[identity] = known
        self._weight += known.weight
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

    def _cache_node(self, node: Digest, key: VerifyingKey) -> None:
        self._nodes[node] = key
        while len(self._nodes) > MAX_CACHED_NODES:
            self._nodes.popitem(last=False)

    def _version(self, identity: Digest, known: int) -> tuple[int, tuple[Digest, ...]]:
        return known, tuple(state.digest for state in self._listed_states(identity))


def classify(entry: Entry, keys: KnownKeys) -> Authorship:
    """Whether an entry is signed by its author, and well-formed."""
    if entry.statement.by is None:
        return Authorship.REFUSED
    try:
        read_content(entry)
    except ComityError:
        return Authorship.REFUSED
    return judge_author(entry, keys.of(entry.statement.by)).authorship


def already_verified(keys: KeySet, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
    """A signature check that accepts entries which were verified before."""
    return True


INTAKE: Final = "intake"
"""The name of the loop."""
STEP_DEADLINE: Final = 7 * 86_400.0
LINES_OF_A_ROUND: Final = 1024
"""Lines that the logs which are behind share, at least `MAX_LINES` each: a step has the same queries and one commit,
whatever the number of its lines."""


@frozen
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
            again = bool(known.lines) and entry.digest in known.lines
            self._sort(batch, index, entry, Authorship.PROVEN if again else classify(entry, self._keys))
        return batch

    def _sort(self, batch: _Batch, index: int, entry: Entry, found: Authorship) -> None:
        author = entry.statement.by
        facts = statement_facts(index, entry) if found is Authorship.PROVEN else None
        if facts is not None:
            batch.proven.append(facts)
            batch.known[facts.statement] = index
            self._keys.learn(entry)
        elif found is Authorship.UNKNOWN and author is not None:
            batch.waiting.append((index, author.id))
        elif found is Authorship.REFUSED:
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

    def progress(self) -> ReadState:
        """How many entries were processed. Blocking."""
        return ReadState(*self._ledger.tables.intake.entries_processed())

    def notify(self) -> None:
        """A log has grown: run the loop now."""
        self._wake()

    async def members_changed(self) -> None:
        """Charters may list new keys: recheck the waiting entries of all members."""
        known = self._membership.known
        await self._ledger.run(self._ledger.tables.intake.revisit, self._membership.own_node.log, known)
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
