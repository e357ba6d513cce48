"""Conditions for webhooks: which of those that hold are told, where there are more than places."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comity.content.inspections import ChangedAnswer
from comity.node import webhook_deliveries
from comity.node.charter.follower import CharterFollower
from comity.node.copies.counter import CopyCounter
from comity.node.inspector import Inspector
from comity.node.lost_keys import FoundLostKeys, LostKey, LostKeys
from comity.node.members import Membership
from comity.node.replication.setup import ReplicationTasks
from comity.node.threads import AsyncLedger
from comity.node.webhook_deliveries import EventQueue, FoundConditions, NodeConditions
from comity.node.webhooks import Webhook
from comity.rules.precedence import Precedence
from comity.trust.encoding import Digest, sha256
from comity.trust.evidence import Inspection
from comity.trust.statements import Compromise
from support.logs import LogKeys

NOW = 1_800_000_000.0


class Conditions:
    """What a node finds: the alerts of its parts, in which a test says what holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost = FoundLostKeys()
        self.worse: list[tuple[ChangedAnswer, str]] | None = []
        self.members: frozenset[Digest] = frozenset()
        self.log = LogKeys.generate("forked.example/log")
        monkeypatch.setattr(LostKeys, "now", lambda keys: self._lost())

    async def _lost(self) -> FoundLostKeys:
        return self.lost

    async def now(self) -> FoundConditions:
        async def logs(_: object) -> list[SimpleNamespace]:
            return [SimpleNamespace(vkey=self.log.vkey)]

        duty = SimpleNamespace(member="us", body="draft", action="vote", round=1, why="")
        findings = SimpleNamespace(tally=SimpleNamespace(duties=[duty]), forks=())
        membership = SimpleNamespace(
            own_node=SimpleNamespace(inception=SimpleNamespace(id="us")),
            precedence=Precedence(members=self.members),
            log_title=lambda vkey: "forked",
        )
        replication = SimpleNamespace(
            misbehaviour=SimpleNamespace(frozen=lambda key: True), own_log=SimpleNamespace(refusal=None)
        )
        ledger = SimpleNamespace(read=logs, tables=SimpleNamespace(logs=SimpleNamespace(all=None)))
        counts = SimpleNamespace(short=1, counted=2, min_copies=3)
        made = NodeConditions(
            cast(AsyncLedger, ledger),
            cast(ReplicationTasks, replication),
            cast(CopyCounter, SimpleNamespace(counts=lambda: counts)),
            cast(CharterFollower, SimpleNamespace(findings=findings)),
            cast(Membership, membership),
            cast(Inspector, SimpleNamespace(worse=self.worse)),
        )
        return await made.now()


def lost_key(publisher: Digest, number: int) -> LostKey:
    return LostKey(publisher, "Lab", Compromise(sha256(b"%d" % number), "a/log", number), "gone", 1)


FLOODING, QUIET, MEMBER = (sha256(name) for name in (b"flooding", b"quiet", b"member"))


async def test_lost_keys_of_one_publisher_displace_no_other_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Conditions(monkeypatch)
    flood = [lost_key(FLOODING, number) for number in range(1_000)]
    made.lost = FoundLostKeys((*flood, lost_key(QUIET, 0)), more=False)
    seen = Inspection("pickle", ("os.system",))
    changed = [ChangedAnswer(sha256(b"%d" % number), "a.bin", Inspection(""), seen) for number in range(1_000)]
    made.worse = [(each, "it runs code") for each in changed]
    found = await made.now()
    assert len(found.events) == webhook_deliveries.MAX_CONDITIONS
    told = Counter((each.kind, each.data.get("alert"), each.author) for each in found.events)
    assert told["copies-short", None, ""] == told["proposal-waiting", None, ""] == 1
    assert told["alert", "two-histories", ""] == told["alert", "lost-key", QUIET] == 1
    assert told["alert", "file-safety", ""] > 200 < told["alert", "lost-key", FLOODING]


async def test_lost_keys_of_one_publisher_drop_no_other_alert_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_deliveries, "MAX_WAITING", 8)
    hooks, made = (Webhook("ops", "http://127.0.0.1:1/", "secret", ("alert",)),), Conditions(monkeypatch)
    made.members = frozenset({MEMBER})
    with closing(EventQueue(tmp_path)) as queue:
        for lost in ([lost_key(QUIET, 0), lost_key(MEMBER, 0)], [lost_key(FLOODING, number) for number in range(100)]):
            made.lost = FoundLostKeys(tuple(lost))
            queue.begun(hooks, await made.now(), "comity://a", NOW)
        about = [json.loads(each.body)["subject"].partition(" ")[0] for each in queue.due("ops", NOW)]
    assert Counter(about) == {"forked": 1, QUIET: 1, MEMBER: 1, FLOODING: 5}


async def test_lost_keys_that_are_not_all_counted_have_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Conditions(monkeypatch)
    assert (await made.now()).unknown == frozenset()
    made.lost = FoundLostKeys(complete=False)
    assert (await made.now()).unknown == {"alert lost-key"}


async def test_an_alert_about_a_file_is_told_once_also_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks, made = (Webhook("ops", "http://127.0.0.1:1/", "secret", ("alert",)),), Conditions(monkeypatch)
    changed = [(ChangedAnswer(FLOODING, "a.bin", Inspection(""), Inspection("pickle", ("os.system",))), "it runs code")]
    told = list[int]()
    with closing(EventQueue(tmp_path)) as queue:
        for worse in (changed, None, changed):
            made.worse = worse
            queue.begun(hooks, await made.now(), "comity://a", NOW)
            told.append(sum(json.loads(each.body)["subject"] == FLOODING for each in queue.due("ops", NOW)))
    assert told == [1, 1, 1]
