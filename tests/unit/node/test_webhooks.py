"""Webhooks against a real HTTP receiver: signed, retried, kept over a restart, sent to the operator's URL alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest
from attackers.forging import Identity, Release
from click.testing import CliRunner
from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine, ProvenTables
from comity.node import webhook_deliveries
from comity.node.maintenance.settings_shown import setting_problems
from comity.node.metrics import Metrics
from comity.node.projection import START, Position
from comity.node.publisher_watch import Concern, FoundConcerns, WatchReader
from comity.node.reading import ReadState
from comity.node.statement_groups import StatementGroups
from comity.node.supervisor import LoopTiming, Step, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.node.webhook_deliveries import (
    GIVE_UP,
    EventQueue,
    FoundConditions,
    NodeConditions,
    NodeEvent,
    StatementEvents,
    Webhooks,
    source_of,
    statement_event,
)
from comity.node.webhooks import EVENTS, OF_PUBLISHER, Webhook, parse_hooks
from comity.rules.precedence import MEMBERS, NAMED, OTHERS
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Refused, Unavailable
from comity.trust.statement import parse_entry
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise
from comity.webhook_requests import parse_secret
from comity_cli.main import command
from comity_cli.output import Output
from support.case import case
from support.context import node_context
from support.logs import LogKeys
from support.webhook_receiver import receiving
from support.world import identity

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NOW = 1_800_000_000.0
GROUPS = cast(StatementGroups, SimpleNamespace(of=lambda statement: OTHERS))
STATEMENTS = StatementEvents(cast(ProvenTables, None), GROUPS, cast(WatchReader, None), ())


@pytest.fixture(autouse=True)
def _closed_queues(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes the queues that a test opened."""
    opened, made = EventQueue.__init__, list[EventQueue]()

    def remembered(queue: EventQueue, folder: Path) -> None:
        opened(queue, folder)
        made.append(queue)

    monkeypatch.setattr(EventQueue, "__init__", remembered)
    yield
    for queue in made:
        queue.close()


class Node:
    """The queue and the deliveries of a node, over a folder and a clock that a test sets."""

    def __init__(self, folder: Path, *hooks: Webhook) -> None:
        self.now = NOW
        self.hooks = hooks
        self.queue = EventQueue(folder)
        self.metrics = Metrics()
        (folder / "secret").write_text(SECRET + "\n")
        (folder / "secret").chmod(0o600)
        context = node_context(ledger=None, pools=None, clock=lambda: self.now, metrics=self.metrics)
        self.webhooks = Webhooks(hooks, self.queue, folder, context, "a/log", cast(NodeConditions, None), STATEMENTS)

    def tell(self, *events: NodeEvent) -> int:
        return self.queue.add(self.hooks, events, source_of("node-ch.example/log"), self.now)


def hook(url: str, *events: str, name: str = "ops") -> Webhook:
    return Webhook(name, url, "secret", events or EVENTS)


def event(kind: str = "alert", key: str = "1") -> NodeEvent:
    return NodeEvent(kind, key, "subject", {"basis": "here", "text": "é"})


def test_an_event_is_a_signed_cloud_event(tmp_path: Path) -> None:
    with receiving() as receiver:
        node = Node(tmp_path, hook(receiver.url))
        node.tell(event())
        node.webhooks.deliver(node.hooks[0])
    ((headers, body),) = receiver.got
    document = json.loads(body)
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert (document["specversion"], document["type"]) == ("1.0", "dev.comity.alert.v1")
    assert (document["source"], document["time"]) == ("comity://node-ch.example/log", "2027-01-15T08:00:00Z")
    assert document["data"] == {"basis": "here", "text": "é"}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    assert node.queue.waiting() == {}


def test_a_receiver_that_fails_first_gets_the_event_later_with_the_same_id_also_after_a_restart(tmp_path: Path) -> None:
    with receiving(500, 302, 204) as receiver:
        node = Node(tmp_path, hook(receiver.url))
        node.tell(event())
        for pause in (5.0, 10.0):
            with pytest.raises(Unavailable) as refused:
                node.webhooks.deliver(node.hooks[0])
            assert refused.value.code == "WEBHOOK"
            node.webhooks.deliver(node.hooks[0])  # nothing is due
            later = node.now + pause
            node = Node(tmp_path, *node.hooks)
            node.now = later
        node.webhooks.deliver(node.hooks[0])
    assert len(receiver.got) == 3  # the redirect was not followed
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1
    assert node.queue.waiting() == {}


def test_an_event_for_a_receiver_that_is_down_for_days_is_dropped_and_counted(tmp_path: Path) -> None:
    node = Node(tmp_path, hook("http://127.0.0.1:1/"))
    node.tell(event())
    for _ in range(60):
        with pytest.raises(Unavailable):
            node.webhooks.deliver(node.hooks[0])
        if not node.queue.waiting():
            break
        node.now += webhook_deliveries.LONGEST_PAUSE
    assert GIVE_UP <= node.now - NOW <= GIVE_UP + 2 * webhook_deliveries.LONGEST_PAUSE
    assert node.metrics.registry.get_sample_value("comity_webhook_requests_total", {"outcome": "dropped"}) == 1


class Steps:
    """The steps of loops, for a test to run."""

    def __init__(self) -> None:
        self.named: dict[str, Step] = {}

    def loop(self, name: str, step: Step, timing: LoopTiming) -> None:
        self.named[name] = step


async def test_a_receiver_that_never_ends_its_answer_delays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, hook("http://127.0.0.1:1/", name="slow"), hook("http://127.0.0.1:1/"))
    end, delivered = Event(), Event()

    def deliver(to: Webhook) -> None:
        if to.name == "slow":
            end.wait()
        else:
            delivered.set()

    monkeypatch.setattr(node.webhooks, "deliver", deliver)
    steps = Steps()
    node.webhooks.begin(cast(Supervisor, steps))
    for _ in range(3):
        late = asyncio.ensure_future(steps.named["webhook slow"]())
        await asyncio.sleep(0)
        late.cancel()  # as at the deadline of a step
        await asyncio.gather(late, return_exceptions=True)
    try:
        async with asyncio.timeout(30):
            await steps.named["webhook ops"]()
        assert delivered.is_set()
    finally:
        end.set()
        node.webhooks.close()


def test_a_node_that_stops_does_not_wait_for_a_receiver(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = Node(tmp_path, hook(f"http://127.0.0.1:{silent.getsockname()[1]}/"))
        node.tell(event())
        with ThreadPoolExecutor(1) as threads:
            posting = threads.submit(node.webhooks.deliver, node.hooks[0])
            connection, _ = silent.accept()
            assert connection.recv(1)
            node.webhooks.close()
            assert isinstance(posting.exception(timeout=5), Unavailable)
            connection.close()
    assert node.queue.waiting() == {"ops": 1}


def test_a_node_that_stops_does_not_wait_for_the_end_of_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a receiver that closes its connection after each answer, as most do."""
    reading, read = Event(), http.client.HTTPResponse.read

    def noted(answer: http.client.HTTPResponse, amount: int | None = None) -> bytes:
        reading.set()
        return read(answer, amount)

    monkeypatch.setattr(http.client.HTTPResponse, "read", noted)
    with socket.create_server(("127.0.0.1", 0)) as slow:
        node = Node(tmp_path, hook(f"http://127.0.0.1:{slow.getsockname()[1]}/"))
        node.tell(event())
        with ThreadPoolExecutor(1) as threads:
            posting = threads.submit(node.webhooks.deliver, node.hooks[0])
            connection, _ = slow.accept()
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n")
            assert reading.wait(10)
            node.webhooks.close()
            posting.exception(timeout=30)
            connection.close()


def test_many_versions_drop_no_alert_and_alerts_are_sent_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_deliveries, "MAX_WAITING", 10)
    with receiving() as receiver:
        node = Node(tmp_path, hook(receiver.url))
        versions = [event("version", str(number)) for number in range(50)]
        assert node.tell(versions[0], event("alert"), *versions[1:]) == 40
        node.webhooks.deliver(node.hooks[0])
    kinds = [json.loads(body)["type"] for _, body in receiver.got]
    assert kinds == ["dev.comity.alert.v1", *["dev.comity.version.v1"] * 10]


def test_a_webhook_gets_its_kinds_of_events_without_delaying_another(tmp_path: Path) -> None:
    with receiving() as receiver:
        dead = hook("http://127.0.0.1:1/", "alert", name="dead")
        node = Node(tmp_path, dead, hook(receiver.url, "version"))
        node.tell(event("alert"), event("version"))
        with pytest.raises(Unavailable):
            node.webhooks.deliver(dead)
        node.webhooks.deliver(node.hooks[1])
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["dev.comity.version.v1"]
    assert node.queue.waiting() == {"dead": 1}
    node.queue.forget_others(node.hooks[1:])
    assert node.queue.waiting() == {}


def test_a_condition_is_sent_when_it_begins_and_again_only_after_it_ended(tmp_path: Path) -> None:
    node = Node(tmp_path, hook("http://127.0.0.1:1/"))

    def waiting(*keys: str, unknown: str = "") -> int:
        found = FoundConditions(tuple(event(key=key) for key in keys), frozenset({unknown}))
        node.queue.begun(node.hooks, found, "comity://a", node.now)
        return sum(node.queue.waiting().values())

    assert [waiting("a"), waiting("a"), waiting("a", "b")] == [1, 1, 2]
    assert waiting(unknown="alert") == 2  # just started: an unknown condition has not ended
    assert [waiting("a", "b"), waiting(), waiting("a")] == [2, 2, 3]


def test_alerts_of_a_kind_that_is_not_known_yet_have_not_ended(tmp_path: Path) -> None:
    node = Node(tmp_path, hook("http://127.0.0.1:1/"))

    def waiting(*keys: str, unknown: str = "") -> int:
        found = FoundConditions(tuple(event(key=key) for key in keys), frozenset({unknown}))
        node.queue.begun(node.hooks, found, "comity://a", node.now)
        return sum(node.queue.waiting().values())

    both = "lost-key 1", "charter-fork 2"
    assert [waiting(*both), waiting(unknown="alert lost-key"), waiting(*both)] == [2, 2, 3]


async def test_events_of_a_ledger_that_began_again_are_sent(tmp_path: Path) -> None:
    """As after a move to another database: statements are counted from 1 again, and the queue has seen a million."""
    log, publisher = LogKeys.generate("node-ch.example/log"), Identity.made("a publisher")
    ledger, pools = AsyncLedger(Ledger.open(tmp_path / "ledger", lambda: 1_000)), Pools()
    hooks, queue = (hook("http://127.0.0.1:9/", "version"),), EventQueue(tmp_path)
    queue.add(hooks, (), source_of(log.origin), NOW, Position(1_000_000))
    conditions = cast(NodeConditions, SimpleNamespace(now=nothing_found))
    node = Webhooks(
        hooks,
        queue,
        tmp_path,
        node_context(ledger=ledger, pools=pools, clock=lambda: NOW, metrics=Metrics()),
        log.origin,
        conditions,
        STATEMENTS,
    )
    try:
        ledger.tables.logs.create(log.origin, log.vkey, own=True)
        for number in range(2):
            ledger.tables.logs.append(log.vkey, [publisher.publish(f"a/b@v{number}", Release(b"%d\n" % number))])
            await node.collect()
        assert queue.waiting() == {"ops": 1}, "statements from before the first look cause no events"
    finally:
        node.close()
        pools.close()
        ledger.close()


async def test_a_webhook_of_a_publisher_is_told_what_concerns_it_once_that_is_known(tmp_path: Path) -> None:
    log, ours, other = LogKeys.generate("node-ch.example/log"), Identity.made("ours"), Identity.made("other")
    ledger, pools = AsyncLedger(Ledger.open(tmp_path / "ledger", lambda: 1_000)), Pools()
    lines = ours.publish("a/b@v1", Release(b"1")), other.publish("a/b@v2", Release(b"2"))
    entries = list(map(parse_entry, lines))
    by_us, by_other = (entry.statement.by.id for entry in entries if entry.statement.by)
    concerns = [Concern(by_us, "own", by_us, 2), Concern(by_us, "name", by_other, 3)]
    asked, read = list[tuple[object, ...]](), 2

    def found(publisher: Digest, most: int, after: int, upto: int) -> FoundConcerns:
        asked.append((publisher, after, upto))
        return FoundConcerns(tuple(each for each in concerns if after < each.number <= upto), more=False)

    rows = SimpleNamespace(concerns=found)
    watch = cast(WatchReader, SimpleNamespace(watch=rows, progress=lambda: ReadState(read, 3)))
    hooks = (Webhook("us", "http://127.0.0.1:9/", "secret", OF_PUBLISHER, by_us), hook("http://127.0.0.1:9/", "alert"))
    queue, conditions = EventQueue(tmp_path), cast(NodeConditions, SimpleNamespace(now=nothing_found))
    context = node_context(ledger=ledger, pools=pools, clock=lambda: NOW, metrics=Metrics())
    statements = StatementEvents(ledger.tables.proven, GROUPS, watch, [by_us])
    node = Webhooks(hooks, queue, tmp_path, context, log.origin, conditions, statements)
    try:
        ledger.tables.logs.create(log.origin, log.vkey, own=True)
        ledger.tables.logs.append(log.vkey, [other.publish("x/y@v1", Release(b"0"))])
        await node.collect()
        ledger.tables.logs.append(log.vkey, [entry.line for entry in entries])
        await node.collect()
        assert queue.waiting() == {"us": 1}, "the third statement is not read yet"
        read = 3
        await node.collect()
        told = [json.loads(each.body) for each in queue.due("us", NOW)]
        assert [(each["type"], each["subject"]) for each in told] == [("dev.comity.publisher.v1", by_us)] * 2
        assert [(each["data"]["why"], each["data"]["by"], each["data"]["name"]) for each in told] == [
            ("own", by_us, "a/b@v1"),
            ("name", by_other, "a/b@v2"),
        ]
        assert asked == [(by_us, 1, 2), (by_us, 2, 3)]
        assert "ops" not in queue.waiting()
    finally:
        node.close()
        pools.close()
        ledger.close()


async def nothing_found() -> FoundConditions:
    return FoundConditions((), frozenset())


def test_a_secret_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    node = Node(tmp_path, hook("http://127.0.0.1:1/"))
    node.tell(event())
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(Refused):
        node.webhooks.deliver(node.hooks[0])
    assert node.queue.waiting() == {"ops": 1}


def test_a_report_of_a_lost_key_is_told_as_one_and_not_as_a_warning_about_an_artifact() -> None:
    owner = identity("Swiss AI", "CH")
    lost = Compromise(owner.signer.public.id, "node-ch.example/log", 812)
    said = Advisory(owner.inception.author, owner.id, KEY_COMPROMISE, "critical", "the laptop is gone", lost)
    made = statement_event(ProvenLine("log", "log+key", 3, sign_content(said, owner.signer).line, 4), GROUPS)
    assert made is not None and made.kind == "advisory" and "artifact" not in made.data
    assert (made.data["identity"], made.data["key"]) == (owner.id, lost.key)
    assert made.data["since"] == {"origin": lost.origin, "index": 812}


def test_a_publications_event_names_its_author() -> None:
    line = ProvenLine("node.example/log", "key", 4, case().publication.line, 9)
    made = statement_event(line, GROUPS)
    assert made is not None
    assert (made.kind, made.data["basis"], made.data["entry"]) == ("version", "claimed", 4)
    assert made.subject == made.data["name"]


def test_a_url_that_is_not_safe_is_refused() -> None:
    with pytest.raises(Malformed):
        hook("http://10.0.0.1/")


@pytest.mark.parametrize(
    "text",
    [
        'x = 1\n[[webhook]]\nname = "a"',
        '[[webhook]]\nname = "a"\nurl = "https://a.example"\n',
        '[[webhook]]\nname = "A"\nurl = "https://a.example"\nsecret_file = "s"\n',
        '[[webhook]]\nname = "a"\nurl = "https://a.example"\nsecret_file = "s"\nevents = ["all"]\n',
        '[[webhook]]\nname = "a"\nurl = "https://a.example"\nsecret_file = "s"\n' * 2,
        f'[[webhook]]\nname = "a"\nurl = "https://a.example"\nsecret_file = "s"\npublisher = "{"A" * 64}"\n',
        f'[[webhook]]\nname = "a"\nurl = "https://a.b"\nsecret_file = "s"\npublisher = "{"a" * 64}"\nevents=[]\n',
        '[[webhook]]\nname = "a"\nurl = "https://a.example"\nsecret_file = "s"\nevents = ["publisher"]\n',
        '[[webhook]]\nname = 1\nurl = "https://a.example"\nsecret_file = "s"\n',
    ],
)
def test_a_file_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_hooks(text.encode())
    assert refused.value.code == "WEBHOOKS"


def test_the_command_writes_a_webhook_whose_secret_only_its_owner_reads(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(
        '[node]\nname = "node-ch"\n[listen]\nmutual = "127.0.0.1:1"\nopen = "127.0.0.1:2"\n'
    )

    def run(*words: str) -> dict[str, object]:
        ran = CliRunner(env={"COLUMNS": "200"}).invoke(
            command, ["webhook", *words, "--node", str(tmp_path), "--json"], obj=Output()
        )
        assert ran.exception is None, ran.exception
        found = json.loads(ran.stdout)
        assert isinstance(found, dict)
        return found

    home_file = tmp_path / "node.toml"
    home_file.write_text(home_file.read_text() + '[webhooks]\nfile = "webhooks.toml"\n')
    made = run("new", "ops", "https://chat.example.org/comity", "--event", "alert")
    run("new", "all", "http://127.0.0.1:8080/")
    path = tmp_path / "keys" / "webhook-ops.secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip() == made["secret"]
    assert len(parse_secret(path.read_bytes())) == 32
    assert setting_problems(home_file, {}) == ()
    path.chmod(0o644)
    assert [problem.code for problem in setting_problems(home_file, {})] == ["SECRET-EXPOSED"]
    listed = run("ls")["webhooks"]
    assert isinstance(listed, list)
    assert [(each["name"], each["waiting"]) for each in listed] == [("ops", 0), ("all", 0)]
    assert [found.events for found in parse_hooks((tmp_path / "webhooks.toml").read_bytes())] == [("alert",), EVENTS]
    assert str(made["secret"]) not in (tmp_path / "webhooks.toml").read_text() + (tmp_path / "audit.log").read_text()


def test_a_node_starts_with_an_empty_queue_where_the_file_is_damaged(tmp_path: Path) -> None:
    with closing(EventQueue(tmp_path)) as made:
        made.add((), (), "urn:x", 1.0, Position(7))
    file = tmp_path / "webhooks.sqlite"
    damaged = b"\0" * 100 + file.read_bytes()[100:]
    file.write_bytes(damaged)
    queue = EventQueue(tmp_path)
    assert queue.position == START, "it begins with the next statement"
    assert file.with_name("webhooks.sqlite.damaged").read_bytes() == damaged


def test_a_log_with_many_statements_drops_its_own_events_and_none_of_another_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_deliveries, "MAX_WAITING", 10)
    with receiving() as receiver:
        node = Node(tmp_path, hook(receiver.url))
        flood = [replace(event("advisory", str(number)), subject="flood", place="flooded") for number in range(50)]
        warnings = [replace(event("advisory", f"warning {number}"), place=f"quiet {number}") for number in range(3)]
        assert node.tell(*flood[:20], *warnings, *flood[20:]) == 43
        node.webhooks.deliver(node.hooks[0])
    subjects = [json.loads(body)["subject"] for _, body in receiver.got]
    assert sorted(subjects) == ["flood"] * 7 + ["subject"] * 3


@pytest.mark.parametrize("author", ["fresh", "one"])
def test_many_warnings_of_others_drop_none_of_a_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, author: str
) -> None:
    """Also in the same log."""
    monkeypatch.setattr(webhook_deliveries, "MAX_WAITING", 12)
    with receiving() as receiver:
        node = Node(tmp_path, hook(receiver.url))
        one = replace(event("advisory"), place="open log", group=OTHERS)
        junk = [
            replace(one, key=f"junk {number}", subject="junk", author=str(number) if author == "fresh" else "")
            for number in range(200)
        ]
        own = [replace(one, key=f"member {number}", author="member", group=NAMED) for number in range(3)]
        publisher = replace(one, key="publisher", subject="publisher", author="publisher", group=MEMBERS)
        for some in ([*own, publisher], junk[:100], junk[100:]):
            node.tell(*some)
        node.webhooks.deliver(node.hooks[0])
    subjects = [json.loads(body)["subject"] for _, body in receiver.got]
    assert sorted(subjects) == ["junk"] * 8 + ["publisher"] + ["subject"] * 3


@pytest.mark.parametrize("column", ["log", "author", "place"])
def test_a_queue_of_an_older_version_is_still_used(tmp_path: Path, column: str) -> None:
    EventQueue(tmp_path)
    with closing(sqlite3.connect(tmp_path / "webhooks.sqlite")) as database, database:
        database.execute(f"ALTER TABLE event DROP COLUMN {column}")
    queue = EventQueue(tmp_path)
    queue.add((hook("http://127.0.0.1:1/"),), (event("alert"),), "comity://a", 1.0)
    assert queue.waiting() == {"ops": 1}
