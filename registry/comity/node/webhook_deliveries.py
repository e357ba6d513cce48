"""Events for webhooks: found at this node, queued on the disk, and delivered.

(1) `collect` reads new statements and conditions, and queues an event for each webhook that asks for its kind; the
    position moves in the same transaction, so that a process that dies neither loses nor repeats an event
(2) `deliver` posts what is due to one webhook, the urgent kinds first, and removes what was answered with 2xx
(3) a request that failed is repeated after a pause that grows to `LONGEST_PAUSE`, for three days; then it is dropped

A receiver may get an event twice: `webhook-id` is the same then. Requests are signed as Standard Webhooks say:
HMAC-SHA-256 over `id.timestamp.body`, in `webhook-signature: v1,…`.

Events are CloudEvents 1.0 in JSON: new versions, advisories, alerts, missing copies, votes that wait, what concerns a
publisher. Those of versions, advisories and publishers follow the statements that this node verified. The others are
conditions of the node: an event tells when one begins, and again if it ended in between. What a statement says stays a
claim of its author, and the event says so (`basis`); a condition is what this node found.

    grows with                                bound        at the bound
    events of one kind for one webhook        MAX_WAITING  old ones are dropped, and counted: the newest of each group,
                                                           place and author stay (`comity.rules.precedence`)
    conditions that hold                  MAX_CONDITIONS   others are not told: kinds take turns, and authors of a kind
    the answer of a receiver                  MAX_ANSWER   the rest is not read
    receivers that do not answer              SECONDS      each webhook has a loop of its own; others do not wait
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from comity.ledger.proven import ProvenLine, ProvenTables
from comity.node.charter.follower import CharterFollower
from comity.node.context import NodeContext
from comity.node.copies.counter import CopyCounter
from comity.node.inspector import Inspector
from comity.node.lost_keys import FoundLostKeys, LostKeys
from comity.node.members import Membership
from comity.node.projection import Follower, Position, Projection, ProjectionTables
from comity.node.publisher_watch import WATCHED_PREDICATES, Concern, WatchReader, group_of
from comity.node.replication.setup import ReplicationTasks
from comity.node.statement_groups import StatementGroups
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.telemetry import warn_of_kept_file
from comity.node.threads import AsyncLedger
from comity.node.webhooks import OF_PUBLISHER, Webhook
from comity.rules.precedence import NAMED, Precedence, Said, newest
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Unavailable
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ADVISORY, OBSERVED, PUBLISHED
from comity.trust.statements import Advisory, Published
from comity.trust.tlog.note import VerifierKey
from comity.trust.turns import in_turns
from comity.trust.upstream import Observed
from comity.webhook_requests import Poster, message_id, signed_headers

QUEUE_FILE: Final = "webhooks.sqlite"
"""Beside the ledger."""
COLLECTING: Final = LoopTiming(interval=5.0, deadline=60.0)
DELIVERING: Final = LoopTiming(interval=1.0, deadline=900.0)
MAX_WAITING: Final = 500
STEP: Final = 128
AT_ONCE: Final = 16
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 3 * 3600.0
GIVE_UP: Final = 3 * 86_400.0
_KEPT: Final = """
CREATE TABLE IF NOT EXISTS condition (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, hook TEXT NOT NULL, kind TEXT NOT NULL, urgent INTEGER NOT NULL, message TEXT NOT NULL,
    body BLOB NOT NULL, made REAL NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL, log TEXT NOT NULL DEFAULT '',
    author TEXT NOT NULL DEFAULT '', place INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS event_due ON event (hook, due);
CREATE INDEX IF NOT EXISTS event_kind ON event (hook, kind);
"""
_TABLES: Final = ProjectionTables("webhooks", "the queue of the webhooks", 1, "", _KEPT, warn_of_kept_file)

_log: Final = structlog.get_logger("comity.node.webhooks")


@frozen
class QueuedEvent:
    """An event for one webhook. `message` is its id for the receiver; `due` and `made` in POSIX seconds."""

    id: int
    kind: str
    message: str
    body: bytes
    made: float
    attempts: int


class EventQueue(Projection):
    """The events that wait. They stay when another ledger is followed. Each call raises as those of `Projection`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / QUEUE_FILE, _TABLES)
        with self._writing() as database:
            known = {row[1] for row in database.execute("PRAGMA table_info(event)")}
            for name, kind in (("log", "TEXT"), ("author", "TEXT"), ("place", "INTEGER")):
                if name not in known:  # of an older version
                    default = "''" if kind == "TEXT" else "0"
                    database.execute(f"ALTER TABLE event ADD COLUMN {name} {kind} NOT NULL DEFAULT {default}")

    def add(
        self,
        hooks: Sequence[Webhook],
        events: Iterable[NodeEvent],
        source: str,
        now: float,
        position: Position | None = None,
    ) -> int:
        """Queue events, and move the position. Returns how many old ones were dropped."""
        with self._writing(position) as database:
            return _add(database, hooks, events, source, now)

    def begun(self, hooks: Sequence[Webhook], found: FoundConditions, source: str, now: float) -> int:
        """Queue the conditions that did not hold at the last call. Returns how many old events were dropped."""
        with self._writing() as database:
            keys = {f"{each.kind} {each.key}": each for each in found.events}
            known = {key for (key,) in database.execute("SELECT key FROM condition")}
            unknown = tuple(f"{kind} " for kind in found.unknown)
            ended = [key for key in known - keys.keys() if not key.startswith(unknown)]
            database.executemany("DELETE FROM condition WHERE key = ?", [(key,) for key in ended])
            new = [key for key in keys if key not in known]
            database.executemany("INSERT INTO condition VALUES (?)", [(key,) for key in new])
            return _add(database, hooks, [keys[key] for key in new], source, now)

    def due(self, hook: str, now: float, most: int = AT_ONCE) -> list[QueuedEvent]:
        sql = "SELECT id, kind, message, body, made, attempts FROM event WHERE hook = ? AND due <= ?"
        with self._reading() as database:
            rows = database.execute(f"{sql} ORDER BY urgent DESC, id LIMIT ?", (hook, now, most)).fetchall()
        return [QueuedEvent(*row) for row in rows]

    def done(self, event: QueuedEvent) -> None:
        with self._writing() as database:
            database.execute("DELETE FROM event WHERE id = ?", (event.id,))

    def postponed(self, event: QueuedEvent, due: float) -> None:
        with self._writing() as database:
            database.execute("UPDATE event SET due = ?, attempts = attempts + 1 WHERE id = ?", (due, event.id))

    def waiting(self) -> dict[str, int]:
        """Events by webhook."""
        with self._reading() as database:
            return dict(database.execute("SELECT hook, count(*) FROM event GROUP BY hook").fetchall())

    def forget_others(self, hooks: Sequence[Webhook]) -> None:
        """Remove the events of webhooks that are no longer in the file."""
        with self._writing() as database:
            known = {hook.name for hook in hooks}
            gone = [row for row in database.execute("SELECT DISTINCT hook FROM event") if row[0] not in known]
            database.executemany("DELETE FROM event WHERE hook = ?", gone)


def _add(
    database: sqlite3.Connection, hooks: Sequence[Webhook], events: Iterable[NodeEvent], source: str, now: float
) -> int:
    """Returns how many old events were dropped."""
    added: dict[tuple[str, str], None] = {}
    for event in events:
        body = event.cloud_event(source, now)
        message = message_id(body)
        for hook in hooks:
            if event.kind in hook.events and event.publisher == hook.publisher:
                values = (hook.name, event.kind, event.urgent, message, body, now, now)
                database.execute(
                    "INSERT INTO event (hook, kind, urgent, message, body, made, due, attempts, log, author, place)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
                    (*values, event.place, event.author, event.group),
                )
                added[hook.name, event.kind] = None
    return sum(_drop_beyond(database, *each) for each in added)


def _drop_beyond(database: sqlite3.Connection, hook: str, kind: str) -> int:
    """Drop events above `MAX_WAITING`. Returns how many."""
    wanted = "SELECT id, log, author, place FROM event WHERE hook = ? AND kind = ? ORDER BY id"
    rows = database.execute(wanted, (hook, kind)).fetchall()
    if len(rows) <= MAX_WAITING:
        return 0
    said = [Said(Digest(author), number, place, (number, group)) for number, place, author, group in rows]
    kept = {each.item[0] for each in newest(said, lambda each: each.item[1], MAX_WAITING)}
    dropped = [(number,) for number, *_ in rows if number not in kept]
    database.executemany("DELETE FROM event WHERE id = ?", dropped)
    return len(dropped)


class Webhooks:
    """Collects and delivers. Not thread-safe: call from the event loop.

    Args:
        home: where the files with secrets are.
    """

    def __init__(
        self,
        hooks: Sequence[Webhook],
        queue: EventQueue,
        home: Path,
        context: NodeContext,
        origin: str,
        conditions: NodeConditions,
        statements: StatementEvents,
    ) -> None:
        self._hooks = hooks
        self.queue = queue
        self._home = home
        self._ledger = context.ledger
        self._pools = context.pools
        self._clock = context.clock
        self._metrics = context.metrics
        self._source = source_of(origin)
        self._conditions = conditions
        self._statements = statements
        self._follower = Follower(context.ledger, queue, statements.predicates, from_newest=True)
        self._poster = Poster()
        self._threads = {hook.name: ThreadPoolExecutor(1, thread_name_prefix=f"webhook {hook.name}") for hook in hooks}
        """A thread for each webhook: a receiver that does not answer delays nothing else of the node. It stays in that
        thread after the deadline of a step."""

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("webhook events", self.collect, COLLECTING)
        for hook in self._hooks:

            async def step(hook: Webhook = hook) -> None:
                await asyncio.get_running_loop().run_in_executor(self._threads[hook.name], self.deliver, hook)

            supervisor.loop(f"webhook {hook.name}", step, DELIVERING)

    def close(self) -> None:
        """End what is in progress: it is sent again at the next start. The queue stays open."""
        self._poster.close()
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    async def collect(self) -> None:
        """Queue what is new. At the first start, or with another ledger, there is no history to tell: it begins
        with what comes next."""
        while lines := await self._follower.next(STEP):
            if not (lines := await self._pools.files(self._statements.known, lines)):
                break
            events = await self._ledger.run(self._statements.of, lines)
            await self._add(events, Position.at(lines[-1]))
        now, found = self._clock(), await self._conditions.now()
        dropped = await self._pools.files(self.queue.begun, self._hooks, found, self._source, now)
        self._metrics.webhook_requests.labels("dropped").inc(dropped)

    async def _add(self, events: Sequence[NodeEvent], position: Position) -> None:
        dropped = await self._pools.files(self.queue.add, self._hooks, events, self._source, self._clock(), position)
        self._metrics.webhook_requests.labels("dropped").inc(dropped)

    def deliver(self, hook: Webhook) -> None:
        """Post what is due, until a request fails. Blocking. Raises Refused (SECRET-EXPOSED), Malformed, Unavailable
        (WEBHOOK)."""
        due = self.queue.due(hook.name, self._clock())
        key = hook.secret(self._home) if due else b""
        for event in due:
            try:
                self._post(hook, key, event)
            except Unavailable:
                self._retry(hook, event)
                raise
            self.queue.done(event)
            self._metrics.webhook_requests.labels("done").inc()

    def _post(self, hook: Webhook, key: bytes, event: QueuedEvent) -> None:
        now = int(self._clock())
        headers = signed_headers(key, event.message, now, event.body)
        status = self._poster.post(hook.url, headers, event.body)
        if not 200 <= status < 300:
            raise Unavailable(f"the webhook {hook.name} refused an event", why=f"status {status}", code="WEBHOOK")

    def _retry(self, hook: Webhook, event: QueuedEvent) -> None:
        now = self._clock()
        if now - event.made > GIVE_UP:
            self.queue.done(event)
            self._metrics.webhook_requests.labels("dropped").inc()
            _log.warning("event dropped", webhook=hook.name, kind=event.kind, attempts=event.attempts + 1)
            return
        self._metrics.webhook_requests.labels("failed").inc()
        self.queue.postponed(event, now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(event.attempts, 16)))


PREDICATES: Final = (PUBLISHED, OBSERVED, ADVISORY)
TYPE: Final = "dev.comity.{}.v1"
MAX_TEXT: Final = 2_000
MAX_CONDITIONS: Final = 500


@frozen
class NodeEvent:
    """What happened. `key` is the same for the same event at every attempt and after a restart. `place` is the verifier
    key of the log that says it, or the kind of an alert that this node found; `author` whose statement it is, empty for
    none; `group` is that of the author (`StatementGroups`): so in a list with a limit none displaces those of others.
    `publisher`: the identity that it concerns, if only who asked for that is told."""

    kind: str
    key: str
    subject: str
    data: dict[str, Any]
    place: str = ""
    author: str = ""
    group: int = NAMED
    publisher: str = ""

    @property
    def urgent(self) -> bool:
        """Told before versions, of which there may be many."""
        return self.kind != "version"

    def cloud_event(self, source: str, time: float) -> bytes:
        """The JSON document.

        Args:
            source: the node, as a URI reference.
            time: POSIX seconds, when this node found it.
        """
        document = {
            "specversion": "1.0",
            "id": sha256(f"{source}\n{self.kind}\n{self.key}\n{int(time)}".encode())[:32],
            "source": source,
            "type": TYPE.format(self.kind),
            "subject": self.subject,
            "time": f"{datetime.fromtimestamp(int(time), UTC):%Y-%m-%dT%H:%M:%SZ}",
            "datacontenttype": "application/json",
            "data": self.data,
        }
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def source_of(origin: str) -> str:
    """The `source` of the events of the node with this log."""
    return f"comity://{origin}"


def statement_event(line: ProvenLine, groups: StatementGroups) -> NodeEvent | None:
    """The event of a verified statement; None for a kind that nobody is told. Blocking."""
    entry = parse_entry(line.line)
    statement, digest = entry.statement, entry.statement_digest
    found: dict[str, Any] = {"basis": "claimed", "statement": digest, "log": line.origin, "entry": line.index}
    whose = line.vkey, statement.by.id if statement.by is not None else "", groups.of(statement)
    if statement.predicate == PUBLISHED:
        published = Published.parse(statement)
        found |= {"name": str(published.name), "artifact": published.artifact, "by": published.by}
        return NodeEvent("version", digest, str(published.name), found, *whose)
    if statement.predicate == OBSERVED:
        observed = Observed.parse(statement)
        name = str(observed.upstream)
        return NodeEvent("version", digest, name, found | {"name": name, "artifact": observed.artifact}, *whose)
    if statement.predicate == ADVISORY:
        said = Advisory.parse(statement)
        about = "identity" if said.compromise else "artifact"
        found |= {about: said.artifact, "kind": said.kind, "severity": said.severity, "text": said.text[:MAX_TEXT]}
        if said.compromise is not None:
            since = {"origin": said.compromise.origin, "index": said.compromise.index}
            found |= {"key": said.compromise.key, "since": since}
        return NodeEvent("advisory", digest, said.artifact, found, *whose)
    return None


class StatementEvents:
    """The events of new statements. `publishers`: those whose webhooks are told what concerns them. Blocking."""

    def __init__(
        self, proven: ProvenTables, groups: StatementGroups, watch: WatchReader, publishers: Iterable[Digest]
    ) -> None:
        self._proven = proven
        self._groups = groups
        self._watch = watch
        self._publishers = tuple(dict.fromkeys(publishers))

    @property
    def predicates(self) -> tuple[str, ...]:
        """Of the statements that may have events."""
        return tuple(dict.fromkeys((*PREDICATES, *(WATCHED_PREDICATES if self._publishers else ()))))

    def known(self, lines: Sequence[ProvenLine]) -> list[ProvenLine]:
        """The first of these lines, of which all events are known."""
        read = self._watch.progress().done if self._publishers else lines[-1].number
        return [line for line in lines if line.number <= read]

    def of(self, lines: Sequence[ProvenLine]) -> list[NodeEvent]:
        """The events of lines, of which there is at least one, in their order."""
        events = [event for line in lines if (event := statement_event(line, self._groups)) is not None]
        by_number = {line.number: line for line in lines}
        for publisher in self._publishers:
            found = self._watch.watch.concerns(publisher, MAX_WAITING, lines[0].number - 1, lines[-1].number).found
            earlier = {each.number for each in found} - by_number.keys()
            by_number |= {line.number: line for line in self._proven.numbered(earlier)}
            events += (concern_event(each, line) for each in found if (line := by_number.get(each.number)))
        return events


def concern_event(concern: Concern, line: ProvenLine) -> NodeEvent:
    """The event of a statement that concerns a publisher."""
    entry = parse_entry(line.line)
    statement, digest = entry.statement, entry.statement_digest
    found = {"basis": "claimed", "statement": digest, "log": line.origin, "entry": line.index, "why": concern.why}
    found |= {"publisher": concern.identity, "predicate": statement.predicate, "by": concern.author}
    subject = statement.subjects[0] if statement.subjects else None
    found |= {"subject": subject.digest, "name": subject.name} if subject else {}
    key, of = f"{concern.identity} {concern.why} {digest}", concern.identity
    return NodeEvent(OF_PUBLISHER[0], key, of, found, line.vkey, concern.author, group_of(concern), of)


@frozen
class FoundConditions:
    """Conditions that hold. Of the kinds in `unknown`, others may hold that the node has not computed since its start:
    kinds of events, or `alert` with the kind of an alert after a space."""

    events: tuple[NodeEvent, ...]
    unknown: frozenset[str] = frozenset()


class NodeConditions:
    """What holds at this node now and that somebody should know. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        replication: ReplicationTasks,
        copies: CopyCounter,
        follower: CharterFollower | None,
        membership: Membership,
        inspector: Inspector,
    ) -> None:
        self._ledger = ledger
        self._inspector = inspector
        self._lost_keys = LostKeys(ledger, lambda: membership.precedence)
        self._membership = membership
        self._replication = replication
        self._copies = copies
        self._follower = follower
        self._member = membership.own_node.inception.id

    async def now(self) -> FoundConditions:
        logs = await self._ledger.read(self._ledger.tables.logs.all)
        keys = (VerifierKey.parse(log.vkey) for log in logs)
        frozen = [self._membership.log_title(str(key)) for key in keys if self._replication.misbehaviour.frozen(key)]
        lost = await self._lost_keys.now()
        lost_keys = _lost_keys(lost, self._membership.precedence)
        events = (*self._alerts(frozen), *lost_keys, *self._copies_short(), *self._votes())
        told = in_turns(events, lambda each: (each.kind, each.place), lambda each: each.author)[:MAX_CONDITIONS]
        return FoundConditions(tuple(told), frozenset(self._unknown(lost)))

    def _unknown(self, lost: FoundLostKeys) -> Iterator[str]:
        if not lost.complete:
            yield "alert lost-key"
        if self._inspector.worse is None:
            yield "alert file-safety"
        if self._copies.counts().counted == 0:
            yield "copies-short"
        if self._follower is not None and self._follower.findings.tally is None:
            yield from ("alert", "proposal-waiting")

    def _alerts(self, frozen: Sequence[str]) -> Iterator[NodeEvent]:
        for origin in frozen:
            yield _alert("two-histories", origin, f"the log {origin} has shown two histories; it is frozen here")
        refusal = self._replication.own_log.refusal
        if refusal is not None:
            yield _alert("signs-nothing", "own log", f"this node signs nothing: {refusal}")
        for fork in self._follower.findings.forks if self._follower else ():
            if not fork.retired:
                epoch = fork.first.body.epoch
                yield _alert("charter-fork", str(epoch), f"epoch {epoch} of the charter was certified twice")
        for answer, reason in self._inspector.worse or ():
            text = f"a newer scanner finds in {answer.name}, which this node holds: {reason}"
            yield _alert("file-safety", answer.file, text)

    def _copies_short(self) -> Iterator[NodeEvent]:
        counts = self._copies.counts()
        if counts.short:
            data = {"basis": "here", "artifacts": counts.short, "counted": counts.counted, "wanted": counts.min_copies}
            yield NodeEvent("copies-short", "copies-short", "copies", data)

    def _votes(self) -> Iterator[NodeEvent]:
        tally = self._follower.findings.tally if self._follower else None
        for duty in tally.duties if tally else ():
            if duty.member == self._member:
                data = {"basis": "here", "draft": duty.body, "action": duty.action, "why": duty.why[:MAX_TEXT]}
                yield NodeEvent("proposal-waiting", f"{duty.body} {duty.action} {duty.round}", duty.body, data)


def _lost_keys(lost: FoundLostKeys, precedence: Precedence) -> Iterator[NodeEvent]:
    for each in lost.found:
        publisher = f"{each.label} [{each.publisher[:12]}]"
        since = f"from entry {each.compromise.index} of {each.compromise.origin} on"
        text = f"{publisher} says that its key {short(each.compromise.key)} was stolen {since}: {each.text}"
        held = f"; this node holds {each.held} of its artifacts"
        told = _alert("lost-key", f"{each.publisher} {each.compromise.key}", f"{text[: MAX_TEXT - len(held)]}{held}")
        yield replace(told, author=each.publisher, group=precedence.group(each.publisher))


def _alert(kind: str, about: str, text: str) -> NodeEvent:
    data = {"basis": "here", "alert": kind, "text": text[:MAX_TEXT]}
    return NodeEvent("alert", f"{kind} {about}", about, data, place=kind)
