"""The policy decision of this node about an artifact, and a cache of such results.

The policy is that of `[gateway] policy`; without one, an artifact is served if its publisher signed it. In both cases
the pinned charter defines members and namespaces. Missing or old cosignatures and all advisories become notices. A
cached result is valid until a statement is proven about what it is about (`StatementChanges`).
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from comity.ledger.intake import fold_name
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.policy_file import PolicyFile
from comity.node.threads import AsyncLedger, Clock
from comity.rules.refusal import refusal
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.evidence import Evidence, EvidenceReader, Row, RowFact, Verdict
from comity.trust.frozen import frozen
from comity.trust.home_logs import HomeLogs, NamedLog
from comity.trust.names import UPSTREAM
from comity.trust.policy import CosignerRule, Freshness, Policy, UpstreamRule
from comity.trust.rows.approvals import APPROVALS_ROW
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import AUDITED, KNOWN_PREDICATES
from comity.trust.statements import KEY_COMPROMISE
from comity.trust.verify import verify
from comity.wire import limits

CHECK_INTERVAL: Final = 1.0
"""Seconds between two looks at the ledger."""
MAX_READ: Final = 1_000
"""New statements that are read one by one; with more, every answer counts as changed."""
MAX_REMEMBERED: Final = 50_000
"""Names, artifacts and authors whose last change is remembered; then every older answer counts as changed."""
READ: Final = tuple(sorted(KNOWN_PREDICATES - {AUDITED}))
"""Answers about artifacts leave audits out."""
DAY: Final = 86_400
STALE_DAYS: Final = 30
MAX_NOTICES: Final = 8
REMEMBERED: Final = 8 * 1024 * 1024
"""Bytes of memory of the lines, proofs and notes that are kept parsed and checked between judgements; the node records
and inceptions are the same for most artifacts."""
_SERVED: Final = ("artifact", "signatures")


@frozen
class ReadStatements:
    """What an answer includes: all statements up to `number`. A new `era` begins when every answer may be another."""

    era: int
    number: int


class StatementChanges:
    """Remembers for each name, artifact and author the number of the newest statement about it. Not thread-safe: call
    from the event loop.

    Members, the records of their nodes and the policy of the owner (`basis`) concern every answer: a new era begins
    when those change that this node follows. What a member logs about itself beyond that (records that are not
    followed, `adopted`, `misbehaviour`) is in no answer about an artifact, and one line a second would have all answers
    made again.
    """

    def __init__(self, ledger: AsyncLedger, membership: Membership, basis: Callable[[], str]) -> None:
        self._ledger = ledger
        self._membership = membership
        self._basis = basis
        self._now = ReadStatements(0, -1)
        self._changed_at: dict[str, int] = {}
        self._members: object = None
        self._checked = float("-inf")

    async def now(self) -> ReadStatements:
        """Read what is new. Returns what an answer includes that is made from now on."""
        clock = asyncio.get_running_loop().time
        if clock() - self._checked < CHECK_INTERVAL:
            return self._now
        self._checked = clock()
        proven, start = self._ledger.tables.proven, self._now.number
        last = await self._ledger.read(proven.last_number)
        body = self._membership.body
        nodes = tuple(self._membership.node_ids), self._membership.records_digest
        members = (body.digest if body else None, *nodes, self._basis())
        lines: list[ProvenLine] = []
        many = start < 0 or members != self._members or last - start > MAX_READ or last < start
        if not many and last > start:
            lines = await self._ledger.run(proven.since, start, READ, MAX_READ)
        era = self._now.era
        for line in lines:
            self._note(line)
        if many or len(self._changed_at) > MAX_REMEMBERED:
            self._changed_at, self._members, era = {}, members, era + 1
        self._now = ReadStatements(era, max([last, *(line.number for line in lines)]))
        return self._now

    def changed(self, since: ReadStatements, subjects: Iterable[str]) -> bool:
        """Whether a later statement is about one of these names, artifacts and authors."""
        if since.era != self._now.era:
            return True
        return any(self._changed_at.get(subject, 0) > since.number for subject in subjects)

    def _note(self, line: ProvenLine) -> None:
        statement = parse_entry(line.line).statement
        if statement.by is not None:
            self._changed_at[statement.by.id] = line.number
        for subject in statement.subjects:
            self._changed_at[subject.digest] = line.number
            self._changed_at[changed_name(subject.name.rpartition("@")[0])] = line.number


def changed_name(repository: str) -> str:
    """The form in which `StatementChanges` knows a repository, whether it was published or mirrored."""
    return fold_name(repository).removeprefix(UPSTREAM)


@frozen
class PolicyDecision:
    """`refusal`: why the artifact is not served, None if it is; `notices`: (topic, text) for readers."""

    refusal: ComityError | None
    notices: tuple[tuple[str, str], ...]


class PolicyJudge:
    """Applies the policy of the owner of this node.

    Attributes:
        reader: what it has read and verified is not verified again in a judgement.
    """

    def __init__(self, file: PolicyFile, membership: Membership, clock: Clock) -> None:
        self._file = file
        self._membership = membership
        self._clock = clock
        self.reader = EvidenceReader(REMEMBERED)

    @property
    def basis(self) -> str:
        """On what judgements depend besides the ledger and the members: another policy has another one."""
        return self._file.basis

    @property
    def inspects_files(self) -> bool:
        """Whether the policy of the owner needs file inspection."""
        own = self._file.policy
        return own is not None and "file safety" in own.require

    @property
    def by_own_policy(self) -> bool:
        """Whether the owner configured a policy."""
        return self._file.configured

    @property
    def policy(self) -> Policy:
        """The current policy: the newest charter body defines members, and the clock of the node the age limit.
        Approvals are judged at the time of the policy, or at that of the node's clock if it is later, so that what has
        run out or was ended is not served because the policy was not reviewed."""
        body = self._membership.body
        pins, origins = (body,) if body else (), self._membership.origins
        own = self._file.policy
        if own is not None:
            approvals = own.approvals
            at = max(approvals.as_of, int(self._clock())) if approvals.at_least else 0
            named = (own.pins, own.origins) if own.pins else (pins, origins)
            return replace(own, pins=named[0], origins=named[1], approvals=replace(approvals, as_of=at))
        promised = body.policy.cosigner_quorum if body else 0
        fresh = Freshness(int(self._clock()), STALE_DAYS * DAY)
        rule = CosignerRule(at_least=promised)
        return Policy(pins=pins, cosigners=rule, freshness=fresh, require=_SERVED, origins=origins)

    def home_logs(self, named: Sequence[NamedLog]) -> HomeLogs:
        """The logs that the home logs of a publisher mean, as this node knows its federation."""
        return self._membership.home_logs(named)

    def judge_mirrored(self, evidence: Evidence, title: str, observed: Digest) -> PolicyDecision:
        """Apply the policy to an artifact served because a node observed it: without a policy of the owner, a node of a
        member must claim that it fetched these bytes from its upstream, as this commit.

        Args:
            title: the commit, `hf:org/name@commit`.
            observed: the line with that claim. The bytes may be mirrored from other repositories too, and the notice
                must not name those.
        """
        verdict = self.verdict(evidence, commit=title)
        claim = next((fact for fact in verdict.row("artifact").facts if fact.evidence == observed), None)
        signed = verdict.row("signatures").state == "pass"
        author = "a publisher signed the same bytes under another name" if signed else "no publisher signed it"
        mirrored = [("mirrored", f"{claim.text}, says {claim.by}; {author}")] if claim else []
        return PolicyDecision(_refusal(verdict, title), (*mirrored, *_advisories(verdict))[:MAX_NOTICES])

    def advisories(self, evidence: Evidence) -> tuple[tuple[str, str], ...]:
        """Return the advisories about an artifact without a statement yet."""
        return tuple(_advisories(verify(evidence, self.policy, reader=self.reader))[:MAX_NOTICES])

    def judge(self, evidence: Evidence, title: str, publisher: Digest | None = None) -> PolicyDecision:
        """Apply the policy to `evidence`. Invalid evidence is not raised.

        Args:
            publisher: that of the name under which the artifact is served.
        """
        verdict = self.verdict(evidence, publisher=publisher)
        return PolicyDecision(_refusal(verdict, title), _notices(verdict, self.policy))

    def verdict(self, evidence: Evidence, *, commit: str = "", publisher: Digest | None = None) -> Verdict:
        """Return the verdict behind `judge`, or, for an upstream commit, behind `judge_mirrored`, with every row."""
        policy = self.policy
        if commit and not self.by_own_policy:
            policy = replace(policy, require=("artifact",), upstream=UpstreamRule(1))
        return verify(evidence, policy, reader=self.reader, publisher=publisher, commit=commit)


def _refusal(verdict: Verdict, title: str) -> ComityError | None:
    return refusal(verdict, title, "the policy of this node", _next_step)


def _next_step(failing: Sequence[Row], title: str) -> str:
    if any(row.name == APPROVALS_ROW for row in failing):
        return "ask the officers of this node: comity approve REF --scope SITE --until DATE"
    return next((row.hint.replace("REF", title) for row in failing if row.name == "key policy"), "")


def _advisories(verdict: Verdict) -> list[tuple[str, str]]:
    """The warnings, `MAX_NOTICES` of which are shown: lost keys first, then that a limit left some out, then in the
    order of the verdict."""
    return [
        ("advisory", f"{fact.text}, says {fact.by}" if fact.by else f"unknown: {fact.text}")
        for fact in sorted(verdict.row("disputes and advisories").facts, key=_urgency)
    ]


def _urgency(fact: RowFact) -> int:
    if fact.text.startswith(f"{KEY_COMPROMISE} ("):
        return 0
    return 1 if fact.basis == "stale or absent" else 2


def _notices(verdict: Verdict, policy: Policy) -> tuple[tuple[str, str], ...]:
    found = _advisories(verdict)
    cosigners, time = verdict.row("cosigners"), verdict.row("time")
    if policy.pins and cosigners.state != "pass":
        found.append(("cosigners", f"short of cosigners: {cosigners.summary}"))
    elif time.state == "fail":
        found.append(("stale", f"no fresh cosignature: {time.summary}"))
    return tuple(found[:MAX_NOTICES])


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_KEPT: Final = 600.0
"""Seconds after which a result that outlived its generation is computed again: files and times change too."""
MAX_AGE: Final = 30.0
"""Seconds after which results are computed again although no log has grown: cosignatures and blobs change too."""
ENTRY: Final = 1_024
"""Bytes of memory of a kept entry besides its result: its key, its task or error, its place among the others; 650 were
measured for a failure and 950 for a result."""
UNIT: Final = 4_096
"""Bytes of memory of a result where results are only counted."""


class Generations:
    """Numbers the states of the ledger: an equal number means equal results.

    Proofs depend on the sizes of the logs. Everything else depends on the proven tables, which follow the logs later,
    and on the policy of the owner (`basis`).
    """

    def __init__(self, ledger: AsyncLedger, basis: Callable[[], str]) -> None:
        self._ledger = ledger
        self._basis = basis
        self._state: tuple[str, int, dict[str, int]] = "", 0, {}
        self._number = 0
        self._checked = self._started = float("-inf")

    async def now(self) -> int:
        clock = asyncio.get_running_loop().time
        if clock() - self._checked < CHECK_INTERVAL:
            return self._number
        self._checked = clock()
        state = await self._ledger.run(self._read)
        if state != self._state or clock() - self._started > MAX_AGE:
            self._state, self._started = state, clock()
            self._number += 1
        return self._number

    def _read(self) -> tuple[str, int, dict[str, int]]:
        """Blocking. The policy, the number of the last proven statement, and the size of each log."""
        ledger = self._ledger.tables
        return self._basis(), ledger.proven.last_number(), {log.vkey: log.size for log in ledger.logs.all()}


@dataclass(slots=True)
class _KeptAnswer(Generic[V]):
    """A result or its computation, valid in `generation`; `read` are the statements that it includes. `failure`
    replaces the task, whose error keeps the frames that raised it, with the manifest and the evidence that they
    read."""

    generation: int
    task: asyncio.Task[V] | None
    read: ReadStatements | None
    made_at: float
    weight: int
    failure: ComityError | None = None

    @property
    def done(self) -> bool:
        return self.task is None or self.task.done()


class AnswerCache(Generic[K, V]):
    """Cache of recent results; each is computed by one task, however many callers wait.

    The computation goes on if the first caller disconnects. Failures are cached too, with texts no longer than the
    limits of `comity.wire.limits`. No entry weighs less than `ENTRY` bytes.

    Args:
        most: maximum total weight; least recently used results are evicted.
        weigh: returns the weight of a result, in any unit that bounds memory.
        changes: with it, a result outlives its generation, at most `MAX_KEPT` seconds, unless a statement is about one
            of its subjects.
        subjects: returns the names (`changed_name`), artifacts and authors that a result depends on; None if it depends
            on anything else, such as cosignatures that are missing yet.
        unit: bytes of memory of a result of weight 1, by which entries without a result are weighed.
    """

    def __init__(
        self,
        generation: Callable[[], Awaitable[int]],
        most: int,
        weigh: Callable[[V], int] = lambda result: 1,
        changes: StatementChanges | None = None,
        subjects: Callable[[V], Collection[str] | None] = lambda result: None,
        unit: int = UNIT,
    ) -> None:
        self._generation = generation
        self._most = most
        self._weigh = weigh
        self._changes = changes
        self._subjects = subjects
        self._unit = unit
        self._least = -(-ENTRY // unit)  # rounded up
        self._entries: OrderedDict[K, _KeptAnswer[V]] = OrderedDict()
        self._total = 0

    async def get(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> V:
        generation = await self._generation()
        read = await self._changes.now() if self._changes is not None else None
        known = self._entries.get(key)
        if known is None or (known.generation != generation and known.done and not self._keeps(known)):
            task = asyncio.create_task(make())
            task.add_done_callback(functools.partial(self._made, key))
            self._total += self._least - (known.weight if known is not None else 0)
            made_at = asyncio.get_running_loop().time()
            known = self._entries[key] = _KeptAnswer(generation, task, read, made_at, self._least)
        self._entries.move_to_end(key)
        if known.failure is not None:
            raise known.failure.without_traceback()
        assert known.task is not None  # only a failure replaces it
        return await asyncio.shield(known.task)

    def _keeps(self, known: _KeptAnswer[V]) -> bool:
        """Whether a result of an earlier generation is still right."""
        task, now = known.task, asyncio.get_running_loop().time()
        if self._changes is None or known.read is None or now - known.made_at > MAX_KEPT or task is None:
            return False
        if task.cancelled() or task.exception() is not None:
            return False
        subjects = self._subjects(task.result())
        return subjects is not None and not self._changes.changed(known.read, subjects)

    async def close(self) -> None:
        """Cancel pending computations."""
        tasks = [known.task for known in self._entries.values() if known.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, key: K, task: asyncio.Task[V]) -> None:
        # Reading the exception marks it as retrieved: no caller may be left.
        error = None if task.cancelled() else task.exception()
        known = self._entries.get(key)
        if known is None or known.task is not task:
            return  # it was evicted or replaced before it was done
        self._total -= known.weight
        if error is not None:
            fault = ComityError("internal error", why="see the log of the node")
            known.failure = _shortened(error) if isinstance(error, ComityError) else fault
            known.task = None
            known.weight = -(-(ENTRY + _text_bytes(known.failure)) // self._unit)
        elif not task.cancelled():
            known.weight = max(self._least, self._weigh(task.result()))
        self._total += known.weight
        while self._total > self._most and len(self._entries) > 1:
            _, evicted = self._entries.popitem(last=False)
            self._total -= evicted.weight


def _shortened(error: ComityError) -> ComityError:
    """A copy without a traceback, and with no more text than is shown of an error."""
    copy = error.without_traceback()
    copy.what, copy.why = error.what[: limits.ERROR_WHAT], error.why[: limits.ERROR_WHY]
    copy.hint = error.hint[: limits.ERROR_HINT]
    copy.args = (copy.what,)
    return copy


def _text_bytes(error: ComityError) -> int:
    """Bytes of memory of the texts of an error."""
    return sum(map(sys.getsizeof, (error.what, error.why, error.hint)))
