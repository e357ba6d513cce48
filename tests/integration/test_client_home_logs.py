"""A member binds a log of its own to the origin of another member's log; over the real wire.

The member's node has the name of that origin, all nodes mirror its log before all others, and it has the statements of
others in another order. This changes nothing for the publications, resolutions, searches, rotations and checks of
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.rules.signing import sign_content
from comity.trust.errors import NotFound
from comity.trust.home_logs import home_origin
from comity.trust.rotation import parse_rotation
from comity.trust.statement import parse_entry
from comity.trust.tlog.note import log_verifier_key
from comity_client.client import Client
from comity_client.events import Event, MisbehaviourFound
from comity_client.home import Home
from comity_client.publishers import Publisher, new_publisher
from support.fakes import FakeFederation, FakeNode
from support.world import Log, Node, node

ORIGIN = "node-ch.example/log"


class LyingFederation(FakeFederation):
    """`lying` is the log of the second member under the origin of the first one's."""

    def __init__(self) -> None:
        super().__init__()
        liar = _lying_node(self.nodes[1].node)
        self.lying = Log(ORIGIN, liar.log)
        for fake in self.nodes:
            fake.logs_held = {"lying": self.lying, **fake.logs_held}
        home = self.nodes[0].log
        logs = {**self.nodes[1].logs_held, "home": home, ORIGIN: self.lying}
        self.nodes.insert(0, FakeNode(liar, logs, self.nodes[0].cosigners))
        self.lying.append(liar.seat.entry.line)
        self.lying.append(liar.entry.line)

    @property
    def home(self) -> FakeNode:
        return self.nodes[1]

    def lie(self) -> None:
        """Log the statements of others in the opposite order, below all other lines."""
        lines = [line for line in self.home.log.lines if line not in self.lying.lines]
        for line in reversed(lines):
            self.lying.append(line)


def _lying_node(of: Node) -> Node:
    other = node(of.seat, "second.example")
    record = replace(other.record, name=ORIGIN, log=log_verifier_key(ORIGIN, other.log.public))
    return replace(other, record=record, entry=sign_content(record, of.seat.signer, *other.bound))


@pytest.fixture
def federation() -> Iterator[LyingFederation]:
    with LyingFederation().running() as running:
        assert isinstance(running, LyingFederation)
        yield running


@pytest.fixture(params=["knows the liar's node", "does not"])
def client(tmp_path: Path, federation: LyingFederation, request: pytest.FixtureRequest) -> Client:
    client = Client(Home(tmp_path / "home"))
    nodes = list(federation.nodes)
    if request.param == "does not":
        federation.nodes = nodes[1:]
    client.pin(federation.file({}))
    federation.nodes = nodes
    return client


@pytest.fixture(params=["named by its origin", "named by its key"])
def publisher(client: Client, federation: LyingFederation, request: pytest.FixtureRequest) -> Publisher:
    if request.param == "named by its origin":
        folder = client.home.ensure(client.home.publishers)
        return new_publisher(folder, label="Lab One", jurisdiction="CH", home=ORIGIN)
    made = client.new_publisher("Lab One", "CH", ORIGIN)
    assert made.home == str(federation.home.node.record.log)
    return made


Publish = Callable[[str, str], None]


@pytest.fixture
def publish(client: Client, federation: LyingFederation, publisher: Publisher, tmp_path: Path) -> Publish:
    def work(version: str, licence: str) -> None:
        source = tmp_path / version
        source.mkdir(exist_ok=True)
        (source / "weights").write_bytes(version.encode() * 100)
        made = client.publish(source, f"lab/tiny@{version}", publisher=publisher, licence=licence)
        assert [item.log for item in made.logged] == [str(federation.home.node.record.log)]

    return work


def test_a_bare_name_is_the_last_version_in_the_home_log(
    client: Client, federation: LyingFederation, publish: Publish
) -> None:
    for version in ("v2", "v9", "v1"):
        publish(version, "MIT")
    federation.lie()
    assert client.resolve("lab/tiny").title == "lab/tiny@v1"


def test_the_newest_statement_about_the_same_bytes_counts(
    client: Client, federation: LyingFederation, publish: Publish, tmp_path: Path
) -> None:
    for licence in ("ISC", "MIT", "Apache-2.0"):
        publish("v1", licence)
    federation.lie()
    shown = client.show("lab/tiny")
    assert shown.current is not None and shown.current.published.licence.spdx == "Apache-2.0"
    (listed,) = client.search("tiny")
    assert listed.licence == "Apache-2.0"
    verdict = client.pull("lab/tiny@v1", to=tmp_path / "pulled").verdict
    assert verdict.row("licence").summary.endswith("claimed: Apache-2.0")


def test_a_rotation_is_cut_at_the_home_log(
    client: Client, federation: LyingFederation, publish: Publish, publisher: Publisher
) -> None:
    publish("v1", "MIT")
    federation.lie()
    size, root = len(federation.home.log.lines), federation.home.log.checkpoint().root
    changed, logged = client.change_keys(publisher, home_log=ORIGIN)
    rotation, _ = parse_rotation(parse_entry(changed.rotation_lines[0]))
    assert [(cut.origin, cut.size, cut.root) for cut in rotation.cut] == [(ORIGIN, size, root)]
    assert rotation.home == changed.home == str(federation.home.node.record.log) == logged[0].log
    assert home_origin(publisher.home) == ORIGIN


def test_a_log_is_checked_by_the_key_of_its_owner(
    client: Client, federation: LyingFederation, publish: Publish
) -> None:
    publish("v1", "MIT")
    federation.lie()
    checkpoint = federation.home.log.checkpoint()
    for name in (ORIGIN, str(federation.home.node.record.log)):
        checked = client.log_check(name)
        assert (checked.origin, checked.size, checked.root) == (ORIGIN, checkpoint.size, checkpoint.root)
        assert client.log_checkpoint(name).checkpoint == checkpoint
        assert [entry.line for entry in client.log_entries(name, 0, 2)] == federation.home.log.lines[:2]
    with pytest.raises(NotFound):
        client.log_checkpoint("elsewhere.example/log")


def test_a_grown_log_is_consistent_with_its_remembered_checkpoint(
    client: Client, federation: LyingFederation, publish: Publish, tmp_path: Path
) -> None:
    publish("v1", "MIT")
    client.log_checkpoint(ORIGIN)
    federation.lie()
    for number in range(9):
        federation.lying.append(federation.lying.lines[number % 2])
    publish("v2", "MIT")
    federation.lie()
    assert client.log_checkpoint(ORIGIN).checkpoint == federation.home.log.checkpoint()
    alarms: list[Event] = []
    client.pull("lab/tiny@v2", to=tmp_path / "pulled", on_event=alarms.append)
    client.status(on_event=alarms.append)
    assert not [event for event in alarms if isinstance(event, MisbehaviourFound)]
