"""Publications, warnings, names and logs by the public API, with fake nodes behind the real wire."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import (
    ComityError,
    Conflict,
    Equivocation,
    Malformed,
    NotFound,
    Refused,
    Unavailable,
    Untrusted,
)
from comity.trust.home_logs import home_origin
from comity.trust.rotation import parse_rotation
from comity.trust.statement import parse_entry
from comity.trust.statements import Parent
from comity.wire import asking
from comity.wire.messages import LocatedEntry
from comity.wire.publish import PublishCalls
from comity_cli.commands import publish as publishing
from comity_cli.main import command
from comity_cli.output import Output
from comity_client import uplink
from comity_client.client import Client
from comity_client.events import Event, Note, Progress, Started
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.fakes import FakeFederation, FakeNode, fork
from support.weights import as_tensor

FILES = {
    "LICENSE": b"Apache License\n",
    "README.md": b"# Tiny\n",
    "model.safetensors": as_tensor(os.urandom(5 * 1024 * 1024)),
}


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


@pytest.mark.parametrize("prefix", ["", "unix:"])
def test_an_operators_socket_is_known_by_its_path(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation, prefix: str
) -> None:
    federation.nodes[0].accepts = False
    nodes = [f"{prefix}{federation.sockets['node-ch.example']}"]
    receipt = client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="MIT", nodes=nodes)
    assert receipt.logged[0].node == "node-ch.example"


def write(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for path, data in (files or FILES).items():
        (folder / path).write_bytes(data)
    return folder


def test_a_published_artifact_is_pulled_by_its_name(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    receipt = client.publish(
        write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0", nodes=["node-ch.example"]
    )
    (logged,) = receipt.logged
    assert (logged.node, logged.origin) == ("node-ch.example", "node-ch.example/log")
    assert logged.size > logged.index
    assert len(logged.cosigners) == 3
    assert federation.nodes[0].log.lines[logged.index].startswith(b'{"payload"')
    pulled = client.pull("lab/tiny", to=tmp_path / "model")
    assert pulled.artifact == receipt.artifact
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("nodes", [["node-ch.example"], ["node-ch.example", "node-es.example"]])
def test_the_counted_bytes_of_a_publication_or_a_pull_are_those_announced(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation, nodes: list[str]
) -> None:
    """Each byte once for each node: also of files that a node had before, which are all of them in the second run."""
    source, size = write(tmp_path / "source"), sum(map(len, FILES.values()))
    for _ in range(2):
        events: list[Event] = []
        client.publish(source, "lab/tiny@v1", publisher=publisher, licence="MIT", nodes=nodes, on_event=events.append)
        assert counted(events) == (size * len(nodes), size * len(nodes))
    to = tmp_path / "model"
    events = []
    client.pull("lab/tiny", to=to, on_event=events.append)
    assert counted(events) == (size, size)
    (to / "model.safetensors").unlink()
    events = []
    client.pull("lab/tiny", to=to, on_event=events.append)
    assert counted(events) == (len(FILES["model.safetensors"]),) * 2, "only what is missing is work"


def counted(events: list[Event]) -> tuple[int, int]:
    """The bytes that were announced, and the bytes that were counted since."""
    (start,) = [number for number, event in enumerate(events) if isinstance(event, Started)]
    begun = events[start]
    assert isinstance(begun, Started)
    return begun.work, sum(event.count for event in events[start:] if isinstance(event, Progress))


def test_publishing_again_logs_nothing_twice(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    source = write(tmp_path / "source")
    first = client.publish(source, "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    size = len(federation.nodes[0].log.lines)
    again = client.publish(source, "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    assert again.logged[0].index == first.logged[0].index
    assert len(federation.nodes[0].log.lines) == size


def test_a_version_is_never_given_to_other_bytes(tmp_path: Path, client: Client, publisher: Publisher) -> None:
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    write(tmp_path / "source", {"README.md": b"# Changed\n"})
    with pytest.raises(Conflict) as caught:
        client.publish(tmp_path / "source", "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    assert caught.value.code == "VERSION-TAKEN"


def test_the_operators_socket_takes_files_by_link(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    federation.nodes[0].accepts = False
    source = write(tmp_path / "source")
    socket = federation.sockets["node-ch.example"]
    client.publish(
        source, "lab/tiny@v1", publisher=publisher, licence="Apache-2.0", nodes=[f"unix:{socket}"], link=True
    )
    assert source / "model.safetensors" in federation.nodes[0].adopted


def test_files_are_linked_for_operators_only(tmp_path: Path, client: Client, publisher: Publisher) -> None:
    with pytest.raises(Refused):
        client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0", link=True)


def test_a_node_that_takes_no_publications_refuses(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    federation.nodes[0].accepts = False
    with pytest.raises(Refused):
        client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")


def test_one_node_of_two_is_enough(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    federation.kill("node-sg.example")
    nodes = ["node-sg.example", "node-es.example"]
    receipt = client.publish(
        write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0", nodes=nodes
    )
    assert [logged.node for logged in receipt.logged] == ["node-es.example"]


def test_an_upload_continues_where_it_was_cut(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    big = FILES["model.safetensors"]
    federation.nodes[0].partial[sha256(big)] = bytearray(big[: 2 * 1024 * 1024 + 5])
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    assert federation.nodes[0].blobs[sha256(big)] == big


@pytest.mark.parametrize("change", [b"", b"short", bytes(5 * 1024 * 1024)], ids=["emptied", "shorter", "other bytes"])
def test_a_file_that_changed_after_signing_is_reported_as_changed(
    tmp_path: Path, client: Client, publisher: Publisher, change: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "RETRY_DELAY", 0)
    source = write(tmp_path / "source")

    def change_it(event: Event) -> None:
        if isinstance(event, Started):
            (source / "model.safetensors").write_bytes(change)

    with pytest.raises(Conflict) as caught:
        client.publish(
            source, "lab/tiny@v1", publisher=publisher, licence="MIT", nodes=["node-ch.example"], on_event=change_it
        )
    assert caught.value.code == "CHANGED"
    write(source)
    nodes = ["node-ch.example"]
    assert client.publish(source, "lab/tiny@v1", publisher=publisher, licence="MIT", nodes=nodes).logged


def test_a_file_that_grows_while_it_is_published_is_published_as_it_was_signed(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    source = write(tmp_path / "source")

    def append(event: Event) -> None:
        if isinstance(event, Started):
            with (source / "model.safetensors").open("ab") as file:
                file.write(b"more")

    client.publish(
        source, "lab/tiny@v1", publisher=publisher, licence="MIT", nodes=["node-ch.example"], on_event=append
    )
    client.pull("lab/tiny", to=tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_an_empty_folder_is_no_artifact(tmp_path: Path, client: Client, publisher: Publisher) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(Malformed):
        client.publish(tmp_path / "source", "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")


def test_a_withdrawn_version_is_passed_over_by_the_bare_name_and_pulled_by_its_own(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    source = write(tmp_path / "source")
    first = client.publish(source, "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    write(source, {"README.md": b"# Second\n"})
    second = client.publish(source, "lab/tiny@v2", publisher=publisher, licence="Apache-2.0")
    assert client.resolve("lab/tiny").artifact == second.artifact
    client.advise("lab/tiny@v2", "yank", "high", "wrong tokenizer", publisher=publisher)
    assert client.resolve("lab/tiny").artifact == first.artifact
    exact = client.resolve("lab/tiny@v2")
    assert exact.artifact == second.artifact
    assert [advisory.kind for advisory in exact.advisories] == ["yank"]


def test_a_strangers_yank_is_shown_and_moves_nothing(tmp_path: Path, client: Client, publisher: Publisher) -> None:
    receipt = client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    stranger = client.new_publisher("Rival", "SG", "node-sg.example/log")
    client.advise("lab/tiny@v1", "yank", "critical", "mine is better", publisher=stranger)
    assert client.resolve("lab/tiny").artifact == receipt.artifact
    assert len(client.resolve("lab/tiny").advisories) == 1


def test_a_later_claimant_changes_nothing_until_the_owner_binds_the_name(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    mine = client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    rival = client.new_publisher("Rival", "SG", "node-sg.example/log")
    other = write(tmp_path / "other", {"README.md": b"# Not the same\n"})
    client.publish(other, "lab/tiny@v1", publisher=rival, licence="MIT")
    found = client.resolve("lab/tiny@v1")
    assert found.artifact == mine.artifact
    assert rival.id in found.rivals[0]
    client.bind("lab", rival.id)
    assert client.resolve("lab/tiny@v1").artifact != mine.artifact
    client.bind("lab", publisher.id)
    assert client.resolve("lab/tiny@v1").artifact == mine.artifact


def test_show_has_lineage_and_documents(tmp_path: Path, client: Client, publisher: Publisher) -> None:
    parents = [Parent("finetune", "swiss-ai/base@v1")]
    client.publish(
        write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0", parents=parents
    )
    info = client.show("lab/tiny")
    assert info.publication is not None
    assert info.publication.published.lineage == tuple(parents)
    assert set(info.publication.published.documents) == {"card"}
    assert [candidate.version for candidate in info.versions] == ["v1"]
    assert "published" in {said.predicate for said in info.said}


@pytest.mark.parametrize("asked", ["lab/tiny", "lab/tiny@v1"])
def test_a_version_of_another_claimant_is_not_listed_as_one_of_the_publisher(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation, asked: str
) -> None:
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="MIT")
    rival = client.new_publisher("Rival", "SG", "node-sg.example/log")
    client.publish(write(tmp_path / "source"), "lab/tiny@v9", publisher=rival, licence="MIT")
    liar = federation.nodes[1]
    lines = [
        LocatedEntry(log.origin, index, line) for log in liar.logs_held.values() for index, line in enumerate(log.lines)
    ]
    liar.junk_claims = tuple((located, parse_entry(located.line)) for located in lines)
    assert [candidate.version for candidate in client.show(asked).versions] == ["v1"]


def test_a_name_without_version_is_asked_for_once_with_its_publisher(
    tmp_path: Path, client: Client, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="MIT")
    asked, resolve = list[Digest | None](), FakeNode.resolve

    def counted(
        self: FakeNode,
        name: str,
        version: str | None = None,
        publisher: Digest | None = None,
        named: Collection[Digest] = (),
    ) -> AsyncGenerator[LocatedEntry, None]:
        asked.append(publisher)
        return resolve(self, name, version, publisher, named)

    monkeypatch.setattr(FakeNode, "resolve", counted)
    assert [candidate.version for candidate in client.show("lab/tiny").versions] == ["v1"]
    assert asked.count(publisher.id) == 4


def test_search_finds_by_words_and_names_the_proving_nodes(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    (listing,) = client.search("TINY lab")
    assert (listing.name, listing.label, listing.proven) == ("lab/tiny@v1", "Lab One", True)
    assert client.search("absent") == []


def test_search_offers_near_names_and_lists_a_republication_once(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    source = write(tmp_path / "source")
    for licence in ("MIT", "Apache-2.0"):
        client.publish(source, "lab/apertus-8b@v1", publisher=publisher, licence=licence)
    client.publish(source, "lab/whisper@v1", publisher=publisher, licence="MIT")
    for text in ("apertus", "pertus lab"):
        (exact,) = client.search(text)
        assert (exact.name, exact.licence, exact.near) == ("lab/apertus-8b@v1", "Apache-2.0", False)
    for text in ("apertsu", "apertus 9b", "Aperturs-8B"):
        (near,) = client.search(text)
        assert (near.name, near.near) == ("lab/apertus-8b@v1", True)
    assert client.search("llama") == client.search("mistral large") == []


def test_whereis_separates_copies_and_claims(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    federation.kill("node-kr.example")
    replicas = {replica.node: replica for replica in client.whereis("lab/tiny")}
    assert replicas["node-ch.example"].complete
    assert replicas["node-sg.example"].held == 0
    assert replicas["node-kr.example"].held is None
    assert replicas["node-kr.example"].why


def test_status_shows_which_nodes_answer_and_cosigned(client: Client, federation: FakeFederation) -> None:
    federation.kill("node-kr.example")
    states = {state.name: state for state in client.status()}
    assert states["node-ch.example"].cosigners == (
        "node-es.example/cosigner",
        "node-kr.example/cosigner",
        "node-sg.example/cosigner",
    )
    assert states["node-ch.example"].size == 2
    assert not states["node-kr.example"].reachable
    assert states["node-kr.example"].why


def test_new_keys_that_no_node_accepted_are_used_again(
    client: Client, publisher: Publisher, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(client.home.root))
    federation.nodes[0].accepts = False
    ran = CliRunner().invoke(command, ["publisher", "rotate", publisher.label, "--yes"], obj=Output())
    assert isinstance(ran.exception, Refused)
    (made,) = client.publishers()
    assert len(made.rotation_lines) == 1
    assert ran.exception.hint.startswith(f"the new keys are in {made.keys}")


def test_a_named_node_that_did_not_log_a_statement_is_an_exit_status(
    client: Client, publisher: Publisher, federation: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(client.home.root))
    named = [federation.nodes[0].node.record.name, federation.nodes[1].node.record.name]
    arguments = ["publish", str(write(tmp_path / "source")), "--as", "lab/tiny@v1", "--licence", "MIT"]
    arguments += [word for name in named for word in ("--node", name)]
    federation.nodes[1].accepts = False
    for status in (8, 0):
        ran = CliRunner().invoke(command, arguments, obj=Output(), standalone_mode=False)
        assert (ran.return_value, ran.exception) == (status, None)
        federation.nodes[1].accepts = True


def test_a_log_is_checked_from_its_entries_and_remembered(client: Client, publisher: Publisher, tmp_path: Path) -> None:
    origin = "node-ch.example/log"
    assert client.log_check(origin).continues == 0
    receipt = client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    check = client.log_check(origin)
    assert check.continues > 0
    assert check.size == client.log_checkpoint(origin).checkpoint.size
    entries = client.log_entries(origin, 0, check.size)
    assert [entry.index for entry in entries] == list(range(check.size))
    (proven,) = client.log_proof(receipt.logged[0].line)
    assert proven.index == receipt.logged[0].index


def test_a_log_that_forked_is_caught_by_check(client: Client, federation: FakeFederation) -> None:
    origin = "node-ch.example/log"
    client.log_check(origin)
    forked = fork(federation.nodes[0].log, 1)
    forked.append(federation.publisher.entry.line)
    for fake in federation.nodes:
        fake.logs_held[origin] = forked
    with pytest.raises(Equivocation):
        client.log_check(origin)
    assert client.misbehaviour()[0].kind == "split-view"


def test_a_log_that_forked_is_caught_by_check_where_no_node_proves_anything(
    client: Client, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> Sequence[bytes]:
        raise NotFound("not here")

    monkeypatch.setattr(FakeNode, "consistency", silent)
    log, origin = federation.nodes[0].log, "node-ch.example/log"
    seen = client.log_check(origin).size
    log.append(federation.publisher.entry.line)
    grown = client.log_check(origin)
    assert (grown.size, grown.continues, grown.seen) == (seen + 1, seen, seen)
    forked = fork(log, 1)
    for line in (federation.publisher.entry.line, *log.lines[1:]):
        forked.append(line)
    for fake in federation.nodes:
        fake.logs_held[origin] = forked
    with pytest.raises(Untrusted) as caught:
        client.log_check(origin)
    assert caught.value.code == "UNRECONCILED"
    assert [item.log for item in client.misbehaviour()] == [origin]


def test_a_log_that_is_shorter_than_before_is_refused(client: Client, federation: FakeFederation) -> None:
    origin, log = "node-ch.example/log", federation.nodes[0].log
    earlier = fork(log, log.tree.size - 1)
    client.log_check(origin)
    for fake in federation.nodes:
        fake.logs_held[origin] = earlier
    found = client.log_check(origin)
    assert (found.size, found.continues, found.seen) == (earlier.tree.size, 0, log.tree.size)


def test_an_unknown_log_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        client.log_checkpoint("elsewhere.example/log")


def test_with_every_node_down_the_error_names_each(client: Client, federation: FakeFederation) -> None:
    for fake in federation.nodes:
        federation.kill(fake.node.record.name)
    with pytest.raises(Unavailable) as caught:
        client.resolve("lab/tiny")
    assert all(fake.node.record.name in caught.value.why for fake in federation.nodes)


def test_statements_under_a_publishers_old_and_new_key_stay_its_own(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    size = len(federation.nodes[0].log.lines)
    changed, logged = client.change_keys(publisher)
    assert changed.id == publisher.id
    assert changed.signer().public != publisher.signer().public
    assert client.publisher("Lab One") == changed, "the next command finds the new keys"
    assert logged[0].log == publisher.home
    (rotated,) = (parse_rotation(parse_entry(line))[0] for line in changed.rotation_lines)
    assert [(cut.origin, cut.size) for cut in rotated.cut] == [(home_origin(publisher.home), size)]

    (tmp_path / "source" / "more.txt").write_text("second version")
    client.publish(tmp_path / "source", "lab/tiny@v2", publisher=changed, licence="Apache-2.0")
    client.bind("lab", publisher.id)
    for version in ("v1", "v2"):
        pulled = client.pull(f"lab/tiny@{version}", to=tmp_path / version)
        assert pulled.verdict.row("signatures").state == "pass"


def test_a_missing_recovery_key_is_named_and_anothers_is_refused(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    away = tmp_path / "stick.pem"
    (publisher.folder / "recovery.pem").rename(away)
    with pytest.raises(NotFound):
        client.change_keys(publisher)
    with pytest.raises(Untrusted) as refused:
        client.change_keys(publisher, recovery=[client.new_publisher("Rival", "SG", "").folder / "recovery.pem"])
    assert refused.value.code == "ROTATION"
    assert not (publisher.folder / "rotation-1").exists()
    first, _ = client.change_keys(publisher, recovery=[away])
    second, _ = client.change_keys(first)
    assert [path.name for path in sorted(second.keys.iterdir())] == ["key.pem", "recovery.pem", "rotated.line"]
    assert second.keys.name == "rotation-2"


def test_an_unknown_version_is_named_with_the_known_ones(tmp_path: Path, client: Client, publisher: Publisher) -> None:
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    with pytest.raises(NotFound, match="lab/tiny@v2 is not published") as raised:
        client.pull("lab/tiny@v2", to=tmp_path / "model")
    assert raised.value.why == "its publisher has these versions, the newest first: v1"
    assert raised.value.hint == "comity pull lab/tiny@v1"
    with pytest.raises(NotFound, match="lab/other is not known"):
        client.resolve("lab/other@v2")


def test_a_publisher_without_a_home_log_is_asked_for_a_node(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    client.publish(write(tmp_path / "source"), "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    homeless = client.new_publisher("Homeless", "CH", "")
    received: list[Event] = []
    with pytest.raises(NotFound) as raised:
        client.advise("lab/tiny@v1", "yank", "info", "why", publisher=homeless, on_event=received.append)
    assert (raised.value.code, received) == ("NO-NODE-NAMED", [])
    with pytest.raises(Conflict) as refused:
        client.report_lost_key(homeless, 4, "the laptop is gone", nodes=["node-ch.example"])
    assert refused.value.code == "NO-HOME-LOG"


MANY = {f"{number:04}.json": b'{"number": %d}' % number for number in range(600)}


def test_many_small_files_are_sent_with_few_calls(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation
) -> None:
    node, events = federation.nodes[0], list[Event]()
    client.publish(
        write(tmp_path / "source", MANY),
        "lab/many@v1",
        publisher=publisher,
        licence="MIT",
        nodes=["node-ch.example"],
        on_event=events.append,
    )
    assert {sha256(data) for data in MANY.values()} <= set(node.blobs)
    assert (len(node.batches) <= 2, node.partial) == (True, {})
    sent = sum(event.count for event in events if isinstance(event, Progress) and event.path in MANY)
    assert sent == sum(map(len, MANY.values()))


def test_a_small_file_that_changed_after_signing_is_reported_as_changed(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    source = write(tmp_path / "source", MANY)

    def change_it(event: Event) -> None:
        if isinstance(event, Started):
            (source / "0099.json").write_bytes(b"other bytes")

    with pytest.raises(Conflict) as caught:
        client.publish(
            source, "lab/many@v1", publisher=publisher, licence="MIT", nodes=["node-ch.example"], on_event=change_it
        )
    assert caught.value.code == "CHANGED"


@pytest.mark.parametrize(
    ("error", "batches"),
    [
        pytest.param(Unavailable("no such call", code="UNIMPLEMENTED"), 0, id="an older node"),
        pytest.param(Refused("too many calls", code="RATE"), 1, id="a busy node"),
    ],
)
def test_files_are_sent_to_an_older_node_one_by_one_and_to_a_busy_one_later(
    tmp_path: Path,
    client: Client,
    publisher: Publisher,
    federation: FakeFederation,
    monkeypatch: pytest.MonkeyPatch,
    error: ComityError,
    batches: int,
) -> None:
    monkeypatch.setattr(asking, "PAUSE", 0.01)
    genuine, refused = PublishCalls.upload_objects, list[ComityError]()

    async def upload_objects(calls: PublishCalls, *sent: Any, **given: Any) -> int:
        if error.code == "UNIMPLEMENTED" or len(refused) < 3:
            refused.append(error)
            raise error
        return await genuine(calls, *sent, **given)

    monkeypatch.setattr(PublishCalls, "upload_objects", upload_objects)
    files = dict(list(MANY.items())[:20])
    source = write(tmp_path / "source", files)
    client.publish(source, "lab/many@v1", publisher=publisher, licence="MIT", nodes=["node-ch.example"])
    assert {sha256(data) for data in files.values()} <= set(federation.nodes[0].blobs)
    assert (len(federation.nodes[0].batches), bool(refused)) == (batches, True)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("base_model: org/base", "--parent finetune=hf:org/base"),
        ("base_model: [org/a, org/b]\nbase_model_relation: merge", "--parent merge=hf:org/a --parent merge=hf:org/b"),
        ("base_model: org/base\nbase_model_relation: <b>", "--parent finetune=hf:org/base"),
        ("tags: [x]", ""),
    ],
)
def test_a_card_that_names_a_base_model_is_a_warning_without_a_parent(
    tmp_path: Path, client: Client, publisher: Publisher, card: str, said: str
) -> None:
    files = FILES | {"README.md": f"---\n{card}\n---\n# Tiny\n".encode()}
    source = write(tmp_path / "source", files)
    for parents in ([], [Parent("finetune", "lab/base@v1")]):
        events: list[Event] = []
        client.publish(
            source, "lab/tiny@v1", publisher=publisher, licence="MIT", parents=parents, on_event=events.append
        )
        warned = [event.text for event in events if isinstance(event, Note) and "names no parent" in event.text]
        assert [said in text for text in warned] == ([True] if said and not parents else [])


def test_publish_asks_a_person_for_the_parent_that_the_card_names(
    tmp_path: Path, client: Client, publisher: Publisher, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(publishing, "person_can_answer", lambda: True)
    source = write(tmp_path / "source", FILES | {"README.md": b"---\nbase_model: org/base\n---\n"})
    words = ["publish", str(source), "--as", "lab/tiny@v1", "--licence", "MIT"]
    before = len(federation.nodes[0].log.lines)
    declined = CliRunner().invoke(command, words, obj=Output(), input="n\n", standalone_mode=False)
    assert declined.return_value == 130 and "--parent finetune=hf:org/base" in declined.output
    assert len(federation.nodes[0].log.lines) == before
    agreed = CliRunner().invoke(command, words, obj=Output(), input="y\n", standalone_mode=False)
    assert (agreed.exception, agreed.exit_code) == (None, 0)
