"""The status of a node: its warnings, in their order and to a number, and the state of logs and peers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.ledger.ledger import Ledger
from comity.node.metrics import Metrics
from comity.node.offers.index import MAX_COUNTED, UnansweredRequests
from comity.node.reading import UnfinishedReading
from comity.node.status import MAX_CONVICTED, MAX_DAMAGE_SHOWN, LogStates, StatusReport, peer_status
from comity.node.threads import AsyncLedger
from comity.trust.encoding import sha256
from comity.trust.errors import Untrusted
from comity.trust.tlog.note import Checkpoint
from comity.wire.node_status import GovernanceStatus, LogStatus
from support.logs import LogKeys, statement_lines
from support.world import draft, node, seat

OWN, FAR = LogKeys.generate("own.example/log"), LogKeys.generate("far.example/log")
LOG = LogStatus(OWN.origin, 3, True, 0, ())
DAMAGE = Untrusted("the ledger is damaged", why="a hash is missing", code="LEDGER-CORRUPT", hint="restore it")


def part(**values: Any) -> Any:
    return SimpleNamespace(**values)


def offer(title: str, kind: str = "RECEIPT", why: str = "two of one number") -> Any:
    return "offers.example/log", part(fault=part(kind=kind, why=why), state=part(offer=part(title=title)))


def link(name: str, *, reachable: bool = False, error: str = "") -> Any:
    state = part(reachable=reachable, last_error=error, last_seen=5, lag=7)
    return part(name=name, state=state, address="node.example:1", peer=part(member=seat("CH").member))


@dataclass
class Parts:
    """The parts of a node that say nothing, until a test makes one say something."""

    membership: Any = field(
        default_factory=lambda: part(log_title=lambda name: f"<{name}>", federation=object(), seated=True)
    )
    replication: Any = field(
        default_factory=lambda: part(
            own_log=part(refusal=None),
            quotas=part(full={}),
            pauses=part(why=""),
            charges=part(warnings=lambda: iter(())),
            side_object_repair=part(missing=()),
            start=part(no_peer_answered=False),
            peers=part(links={}),
        )
    )
    offers: Any = field(
        default_factory=lambda: part(faulty=list, over_quota=set(), unanswered=lambda: UnansweredRequests(0, 0))
    )
    scrub: Any = field(default_factory=lambda: part(damage=[]))
    followed: Any = field(default_factory=lambda: part(warnings=lambda: iter(())))
    queue: Any = field(default_factory=lambda: part(warnings=lambda: iter(())))
    policy: Any = field(default_factory=lambda: part(problem=""))
    reading: Any = field(default_factory=lambda: part(behind=()))

    def warnings(self, governance: GovernanceStatus | None = None, **logs: LogStatus) -> list[str]:
        return list(self.report(Metrics())._warnings(logs, governance))

    def report(self, metrics: Metrics) -> StatusReport:
        unused: Any = None
        return StatusReport(
            ledger=unused,
            pools=unused,
            clock=lambda: 1_000_000.0,
            started=0,
            membership=self.membership,
            replication=self.replication,
            listing=unused,
            served=unused,
            metrics=metrics,
            offers=self.offers,
            copies=unused,
            scrub=unused,
            ledger_scrub=self.scrub,
            capacity=unused,
            followed=self.followed,
            queue=self.queue,
            policy=self.policy,
            reading=self.reading,
        )


@pytest.fixture
def parts() -> Parts:
    return Parts()


def test_what_the_process_used_is_summed_over_all_callers_since_the_start(parts: Parts) -> None:
    metrics = Metrics()
    for peer, count in (("node-a", 5), ("open", 7)):
        metrics.served_bytes.labels(peer).inc(count)
    metrics.pull_bytes.labels("node-a").inc(3)
    parts.replication.replicas = part(copying_seconds=61.7)
    usage = parts.report(metrics)._usage()
    assert (usage.seconds, usage.sent_bytes, usage.received_bytes, usage.copying_seconds) == (1_000_000, 12, 3, 61)
    assert usage.cpu_milliseconds > 0


def test_a_healthy_node_has_no_warning(parts: Parts) -> None:
    assert parts.warnings(own=LOG) == []


def test_warnings_come_in_the_order_of_their_urgency(parts: Parts) -> None:
    parts.replication.own_log.refusal = "its log diverged"
    parts.scrub.damage.append(DAMAGE)
    parts.offers.faulty = lambda: [offer("GPU hours")]
    parts.replication.quotas.full = {FAR.verifier: "too many entries"}
    parts.policy.problem = "a bad line"
    parts.reading.behind = (UnfinishedReading("log entries", 1_000, 4_000, 10.0, 300),)
    parts.replication.pauses.why = "no room"
    parts.replication.charges.warnings = lambda: iter(["a member uses much"])
    parts.followed.warnings = lambda: iter(["a repository is gone"])
    parts.offers.over_quota = {"b.example/log", "a.example/log"}
    parts.offers.unanswered = lambda: UnansweredRequests(1, 2)
    parts.replication.side_object_repair.missing = (1, 2, 3)
    parts.membership.federation = None
    parts.replication.start.no_peer_answered = True
    parts.replication.peers.links = {1: link("silent", error="timed out"), 2: link("well", reachable=True)}
    charter = GovernanceStatus(sha256(b"f"), 0, sha256(b"b"), False, 0, asks=2)
    assert parts.warnings(charter, far=replace(LOG, frozen=True)) == [
        "this node signs nothing: its log diverged",
        "LEDGER-CORRUPT: the ledger is damaged: a hash is missing; restore it",
        "<far> has shown two histories; it is frozen on this node at size 3",
        "<offers.example/log> is at fault in its offer 'GPU hours': RECEIPT: two of one number",
        "2 join requests are waiting",
        f"<{FAR.vkey}> is above its quota and does not advance: too many entries",
        "this node reads log entries: 1,000 of 4,000, 10 a second, 300 s left",
        "the policy of the gateway cannot be read, the one before it still counts: a bad line",
        "no copy begins: no room",
        "a member uses much",
        "a repository is gone",
        "<a.example/log> has more lines about compute offers than this node keeps; see limits",
        "<b.example/log> has more lines about compute offers than this node keeps; see limits",
        "unanswered requests for this node's offers: 1 in its own log, 2 in others' logs; see comity grant ls",
        "3 side objects of logged entries are missing; the node asks its peers for them",
        "this node belongs to no federation yet",
        "no peer answered when this node started",
        "silent does not answer: timed out",
    ]


def test_findings_that_others_can_multiply_are_shown_to_a_number(parts: Parts) -> None:
    parts.scrub.damage = [DAMAGE] * (MAX_DAMAGE_SHOWN + 1)
    assert len(parts.warnings()) == MAX_DAMAGE_SHOWN
    parts.scrub.damage = []
    parts.offers.faulty = lambda: [offer(str(number)) for number in range(MAX_CONVICTED + 1)]
    assert len(parts.warnings()) == MAX_CONVICTED
    parts.offers.faulty = list
    parts.followed.warnings = lambda: iter(["gone"] * (MAX_CONVICTED + 1))
    assert len(parts.warnings()) == MAX_CONVICTED


@pytest.mark.parametrize(
    ("own", "elsewhere", "said"),
    [
        (0, 0, None),
        (1, 0, "1 in its own log, 0 in others' logs"),
        (0, 1, "0 in its own log, 1 in others' logs"),
        (0, MAX_COUNTED, f"0 in its own log, {MAX_COUNTED} or more in others' logs"),
    ],
)
def test_unanswered_requests_are_counted_to_a_number(parts: Parts, own: int, elsewhere: int, said: str | None) -> None:
    parts.offers.unanswered = lambda: UnansweredRequests(own, elsewhere)
    warnings = parts.warnings()
    assert len(warnings) == (said is not None) and (said is None or said in warnings[0])


def test_a_node_outside_the_charter_is_told_so(parts: Parts) -> None:
    parts.membership.seated = False
    assert parts.warnings() == ["the newest charter does not list this node's member"]
    parts.membership.federation = None
    assert parts.warnings() == ["this node belongs to no federation yet"]


def test_a_peer_that_was_not_asked_is_named_so(parts: Parts) -> None:
    parts.replication.peers.links = {1: link("new")}
    assert parts.warnings() == ["new does not answer: not asked yet"]


def test_a_peer_whose_member_left_is_a_former_one() -> None:
    seats = [seat("CH"), seat("ES"), seat("SG")]
    body, asked = draft([each.member for each in seats]), link("node-ch.example", error="x")
    status = peer_status(asked, body)
    assert (status.name, status.jurisdiction, status.address) == ("node-ch.example", "CH", "node.example:1")
    assert (status.reachable, status.last_seen, status.lag, status.last_error) == (False, 5, 7, "x")
    assert not status.former
    assert peer_status(asked, draft([each.member for each in seats[1:]])).former
    assert not peer_status(asked, None).former


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[AsyncLedger]:
    opened = AsyncLedger(Ledger.open(tmp_path, lambda: 1_000))
    opened.tables.logs.create(FAR.origin, FAR.vkey)
    opened.tables.logs.create(OWN.origin, OWN.vkey, own=True)
    yield opened
    opened.close()


def test_the_own_log_is_first_and_each_log_has_its_state(ledger: AsyncLedger) -> None:
    ledger.tables.logs.append(OWN.vkey, statement_lines(0, 4))
    membership = part(cosigned_times=lambda note: {})
    replication = part(misbehaviour=part(frozen=lambda key: key == FAR.verifier), quotas=part(full={OWN.verifier: "x"}))
    states = LogStates(ledger, membership, replication, lambda: 1_000.0).by_key()
    assert list(states) == [OWN.vkey, FAR.vkey]
    assert states[OWN.vkey] == LogStatus(OWN.origin, 4, True, 0, (), frozen=False, full=True)
    assert states[FAR.vkey] == LogStatus(FAR.origin, 0, False, 0, (), frozen=True, full=False)


def test_the_cosigners_of_the_newest_checkpoint_are_named_once(ledger: AsyncLedger) -> None:
    lines = statement_lines(0, 4)
    note = OWN.note_over(lines)
    ledger.tables.logs.append(OWN.vkey, lines)
    ledger.tables.logs.set_note(OWN.vkey, note)
    by = node(seat("CH"))
    head = Checkpoint.parse(note.text)
    ledger.tables.cosignatures.add(OWN.vkey, head.size, head.root, by.cosign(head))
    membership = part(cosigned_times=lambda cosigned: dict.fromkeys(range(len(cosigned.signatures) - 1), 500))
    replication = part(misbehaviour=part(frozen=lambda key: False), quotas=part(full={}))
    state = LogStates(ledger, membership, replication, lambda: 1_000.0).by_key()[OWN.vkey]
    assert state.cosigners == ("node-ch.example/cosigner",) and state.checkpoint_time == 500
