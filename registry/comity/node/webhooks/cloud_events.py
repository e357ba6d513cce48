"""Events of a node as CloudEvents 1.0 in JSON: new versions, advisories, alerts, missing copies, votes that wait.

Versions and advisories follow the statements that this node verified. The others are conditions of the node: an event
tells when one begins, and again if it ended in between. What a statement says stays a claim of its author, and the
event says so (`basis`); a condition is what this node found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from comity.ledger.intake import ADVISORY, PUBLISHED
from comity.ledger.proven import ProvenLine
from comity.node.charter.follower import CharterFollower
from comity.node.copies.counter import CopyCounter
from comity.node.replication.setup import ReplicationTasks
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import parse_entry
from comity.trust.statements import Published, parse_advisory
from comity.trust.tlog.note import VerifierKey
from comity.trust.upstream import OBSERVED, Observed

PREDICATES: Final = (PUBLISHED, OBSERVED, ADVISORY)
TYPE: Final = "dev.comity.{}.v1"
MAX_TEXT: Final = 2_000
MAX_CONDITIONS: Final = 500


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """What happened. `key` is the same for the same event at every attempt and after a restart. `log` is the verifier
    key of the log that says it, empty for what this node found."""

    kind: str
    key: str
    subject: str
    data: dict[str, Any]
    log: str = ""

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


def statement_event(line: ProvenLine) -> NodeEvent | None:
    """The event of a verified statement; None for a kind that nobody is told."""
    entry = parse_entry(line.line)
    statement, digest = entry.statement, entry.statement_digest
    found: dict[str, Any] = {"basis": "claimed", "statement": digest, "log": line.origin, "entry": line.index}
    if statement.predicate == PUBLISHED:
        published = Published.parse(statement)
        found |= {"name": str(published.name), "artifact": published.artifact, "by": published.by}
        return NodeEvent("version", digest, str(published.name), found, line.vkey)
    if statement.predicate == OBSERVED:
        observed = Observed.parse(statement)
        name = str(observed.upstream)
        return NodeEvent("version", digest, name, found | {"name": name, "artifact": observed.artifact}, line.vkey)
    if statement.predicate == ADVISORY:
        said = parse_advisory(statement)
        found |= {"artifact": said.artifact, "kind": said.kind, "severity": said.severity, "text": said.text[:MAX_TEXT]}
        return NodeEvent("advisory", digest, said.artifact, found, line.vkey)
    return None


@dataclass(frozen=True, slots=True)
class FoundConditions:
    """Conditions that hold. Of the kinds in `unknown`, others may hold that the node has not computed since its
    start."""

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
        member: Digest,
    ) -> None:
        self._ledger = ledger
        self._replication = replication
        self._copies = copies
        self._follower = follower
        self._member = member

    async def now(self) -> FoundConditions:
        logs = await self._ledger.read(self._ledger.tables.logs.all)
        frozen = [log.origin for log in logs if self._replication.misbehaviour.frozen(VerifierKey.parse(log.vkey))]
        events = (*self._alerts(frozen), *self._copies_short(), *self._votes())
        return FoundConditions(events[:MAX_CONDITIONS], frozenset(self._unknown()))

    def _unknown(self) -> Iterator[str]:
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


def _alert(kind: str, about: str, text: str) -> NodeEvent:
    return NodeEvent("alert", f"{kind} {about}", about, {"basis": "here", "alert": kind, "text": text[:MAX_TEXT]})
