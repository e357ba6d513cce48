"""What files are by the indexes that are here: fetched from nodes that tell the truth or lie; then nobody is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from comity.rules.file_records import START
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound, Unavailable, Untrusted
from comity.trust.statements import Advisory
from comity.wire.files import FileIndexPart
from comity_client.client import Client
from comity_client.home import Home
from comity_client.identify import index_fetch
from comity_client.identify.by_index import identify_by_index
from comity_client.identify.index_fetch import FetchedIndex
from comity_client.identify.kept_indexes import IndexesHere
from support.fakes import FakeFederation, FakeNode
from support.file_indexes import TIME, index_parts, record_of, state_of
from support.known_files import FILES, LATER, two_versions, written


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with two_versions(tmp_path_factory.mktemp("index")) as running:
        yield running


@pytest.fixture
def client(running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    made = Client(Home(tmp_path / "home"))
    made.pin(running.file())
    return made


def no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, whatever opens a session fails."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a node was asked")

    monkeypatch.setattr("comity_client.user.User.run", refuse)
    monkeypatch.setattr("comity_client.session.RemoteNode.client", refuse)


def records_of(node: FakeNode) -> list[bytes]:
    manifests = [data for data in node.blobs.values() if b"manifest/v1" in data]
    return [record_of(data, f"a/b@v{number}") for number, data in enumerate(sorted(manifests))]


def lie(monkeypatch: pytest.MonkeyPatch, node: FakeNode, parts: Any) -> None:
    async def answer(after: int, head: bytes) -> AsyncGenerator[FileIndexPart, None]:
        for part in parts(after, head):
            yield part

    monkeypatch.setattr(node, "file_index", answer, raising=False)


def test_files_are_named_and_no_node_is_asked(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = client.fetch_indexes()
    assert [(each.problem, each.now and each.now.state.complete) for each in fetched] == [("", True)] * 3
    no_calls(monkeypatch)
    found = client.identify([written(tmp_path / "m", {**LATER, "mine.bin": b"nobody has this"})], by_index=True)
    named = {each.file.path.name: each for each in found.named}
    assert set(named) == {"config.json", "README.md", "tokens.json"}
    assert {each.name for each in named.values()} == {"swiss-ai/tiny@v2"}
    assert named["README.md"].of_members and set(named["README.md"].nodes) == {
        node.node.record.name for node in running.nodes
    }
    assert [each.path.name for each in found.matched.unknown] == ["mine.bin"]
    assert (found.matched.folders, found.artifacts, found.unsure) == ((), {}, ())
    assert {(each.as_of, each.indexed, each.unread) for each in found.nodes} == {(TIME, 6, 0)}


def test_a_pack_beside_the_files_proves_them_and_the_policy_judges(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.fetch_indexes()
    client.pull("swiss-ai/tiny@v1", to=tmp_path / "pulled")
    no_calls(monkeypatch)
    found = client.identify([tmp_path / "pulled"], by_index=True)
    assert (found.named, found.matched.unknown) == ((), ())
    (folder,), (known,) = found.matched.folders, found.artifacts.values()
    assert (folder.state, known.title) == ("complete", "swiss-ai/tiny@v1")
    assert known.verdict is not None and known.verdict.accepted and str(tmp_path / "pulled") in known.basis
    (tmp_path / "pulled" / "README.md").write_bytes(b"changed")
    assert client.identify([tmp_path / "pulled"], by_index=True).matched.folders[0].state == "changed"


def test_the_warnings_that_a_pack_proves_are_told_as_with_nodes(client: Client, tmp_path: Path) -> None:
    with two_versions(tmp_path / "warned") as running:
        client.pin(running.file())
        seat, log = running.nodes[0].node.seat, running.nodes[0].log
        artifact = client.resolve("swiss-ai/tiny@v1").artifact
        for by, kind in ((running.publisher, "vulnerability"), (seat, "malware")):
            log.append(sign_content(Advisory(by.inception.author, artifact, kind, "high", "a way in"), by.signer).line)
        client.pull("swiss-ai/tiny@v1", to=tmp_path / "pulled")
        client.fetch_indexes()
        (with_nodes,) = client.identify([tmp_path / "pulled"]).artifacts.values()
        (alone,) = client.identify([tmp_path / "pulled"], by_index=True).artifacts.values()
    assert len(alone.advised) == 2 and set(alone.advised) == set(with_nodes.advised)
    assert {each.own for each in alone.advised} == {True, False}


def test_a_pack_in_the_users_hub_cache_proves_files_elsewhere(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.fetch_indexes()
    client.pull("swiss-ai/tiny@v1")
    no_calls(monkeypatch)
    found = client.identify([written(tmp_path / "m", FILES)], by_index=True)
    assert [each.state for each in found.matched.folders] == ["complete"] and found.named == ()


def test_what_one_index_leaves_out_another_one_names(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in running.nodes[1:]:
        lie(monkeypatch, node, lambda after, head, node=node: index_parts([], node.node, after, head))
    client.fetch_indexes()
    found = client.identify([written(tmp_path / "m", FILES)], by_index=True)
    assert {each.nodes for each in found.named} == {(running.nodes[0].node.record.name,)}


def test_a_file_is_unknown_only_where_every_index_says_that_it_is_complete(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = running.nodes[1].node
    lie(monkeypatch, running.nodes[1], lambda after, head: [FileIndexPart(state=state_of(node, [], unread=3))])
    client.fetch_indexes()
    found = client.identify([written(tmp_path / "m", {"mine.bin": b"nobody has this"})], by_index=True)
    assert (found.matched.unknown, [each.path.name for each in found.unsure]) == ((), ["mine.bin"])


def test_without_an_index_nothing_is_said(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_calls(monkeypatch)
    with pytest.raises(NotFound) as refused:
        client.identify([written(tmp_path / "m", FILES)], by_index=True)
    assert (refused.value.code, refused.value.hint) == ("NO-FILE-INDEX", "comity index fetch")
    with pytest.raises(NotFound, match="no index"):
        identify_by_index(IndexesHere((), ()), [], client.policy(), ())


def test_a_damaged_index_is_told_and_the_others_count(client: Client, tmp_path: Path) -> None:
    client.fetch_indexes()
    first, *others = client.file_indexes().all().kept
    first.records.write_bytes(first.records.read_bytes()[:-1])
    found = client.identify([written(tmp_path / "m", FILES)], by_index=True)
    assert len(found.named) == 3 and ["damaged" in each.problem for each in found.nodes] == [True, False, False]
    for other in others:
        other.records.write_bytes(b"")
    with pytest.raises(Untrusted, match="damaged"):
        client.identify([tmp_path / "m"], by_index=True)


def damage(client: Client, node: FakeNode) -> Path:
    path = client.file_indexes().folder / f"{node.node.record.node.id}.json"
    path.write_bytes(b"{")
    return path


def test_an_index_whose_state_is_damaged_is_told_and_the_others_count(
    client: Client, running: FakeFederation, tmp_path: Path
) -> None:
    client.fetch_indexes()
    path = damage(client, running.nodes[0])
    found = client.identify([written(tmp_path / "m", FILES)], by_index=True)
    assert len(found.named) == 3 and found.by_index
    assert [each.problem for each in found.nodes][:2] == ["", ""] and str(path) in found.nodes[2].problem
    assert "comity index fetch" in found.nodes[2].problem
    for node in running.nodes[1:]:
        damage(client, node)
    with pytest.raises(Malformed, match="damaged") as refused:
        client.identify([tmp_path / "m"], by_index=True)
    assert refused.value.hint == "comity index fetch"


@pytest.mark.parametrize("again", [False, True])
def test_the_fetch_that_is_advised_replaces_a_damaged_index(
    client: Client, running: FakeFederation, tmp_path: Path, again: bool
) -> None:
    before = {each.node: each.now for each in client.fetch_indexes()}
    damage(client, running.nodes[0])
    fetched = {each.node: each for each in client.fetch_indexes(again=again)}
    assert fetched.keys() == before.keys() and not any(each.problem for each in fetched.values())
    again_here = fetched[running.nodes[0].node.record.name]
    assert again_here.before is None and again_here.now is not None and again_here.now.state.records == 2
    assert client.file_indexes().all().checked().damaged == ()
    assert len(client.identify([written(tmp_path / "m", FILES)], by_index=True).named) == 3


def test_records_that_are_damaged_are_replaced_by_the_fetch_that_is_advised(client: Client) -> None:
    client.fetch_indexes()
    first = client.file_indexes().all().kept[0]
    first.records.write_bytes(first.records.read_bytes()[:-1])
    (damaged,) = client.file_indexes().all().checked().damaged
    assert damaged.problem.endswith("to replace it: comity index fetch --again")
    client.fetch_indexes(again=True)
    assert client.file_indexes().all().checked().damaged == ()


def fetch_one(client: Client, node: FakeNode, *, again: bool = False) -> FetchedIndex:
    (fetched,) = client.fetch_indexes([node.node.record.name], again=again)
    return fetched


def test_only_what_is_new_is_fetched_and_each_answer_is_kept(
    client: Client, running: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, asked = running.nodes[0], list[int]()
    records = records_of(node)
    monkeypatch.setattr(index_fetch, "LEAST", 1)

    def parts(after: int, head: bytes) -> list[FileIndexPart]:
        asked.append(after)
        if after == 1 and len(asked) == 2:
            raise Unavailable("the line was cut")
        return list(index_parts(records, node.node, after, head, together=1))

    lie(monkeypatch, node, parts)
    cut = fetch_one(client, node)
    assert "the line was cut" in cut.problem and cut.now is not None and cut.now.state.records == 1
    whole = fetch_one(client, node)
    assert (whole.problem, whole.now and whole.now.state.records) == ("", 2)
    assert whole.received < cut.received + len(b"".join(records))
    assert asked[0] == 0 and set(asked[1:]) == {1}


def test_an_index_that_was_computed_again_takes_the_place_of_the_old_one(
    client: Client, running: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = running.nodes[0]
    fetch_one(client, node)
    records = records_of(node)[:1]
    lie(monkeypatch, node, lambda after, head: list(index_parts(records, node.node, after, head)))
    fetched = fetch_one(client, node)
    assert fetched.problem == "" and fetched.now is not None and fetched.now.state.records == 1
    assert [index.state.records for index in client.file_indexes().all().kept] == [1]


@pytest.mark.parametrize("again", [False, True])
def test_an_older_index_takes_the_place_of_none_unless_all_is_fetched_again(
    client: Client, running: FakeFederation, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    node, records = running.nodes[0], records_of(running.nodes[0])[:1]

    def old(after: int, head: bytes) -> list[FileIndexPart]:
        if (after, head) != (0, START):
            raise NotFound("the index has other records", code="FILE-INDEX-REPLACED")
        return [FileIndexPart(b"".join(records)), FileIndexPart(state=state_of(node.node, records, time=TIME - 1))]

    fetch_one(client, node)
    lie(monkeypatch, node, old)
    fetched = fetch_one(client, node, again=again)
    assert ("older" in fetched.problem, [each.state.records for each in client.file_indexes().all().kept]) == (
        (False, [1]) if again else (True, [2])
    )


@pytest.mark.parametrize("which", ["signer", "records", "garbage", "silence"])
def test_what_a_node_did_not_sign_is_not_taken(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    node, other, records = running.nodes[0], running.nodes[1].node, records_of(running.nodes[0])
    lies = {
        "signer": [FileIndexPart(b"".join(records)), FileIndexPart(state=state_of(other, records))],
        "records": [FileIndexPart(records[0]), FileIndexPart(state=state_of(node.node, records))],
        "garbage": [FileIndexPart(sha256(b"").encode()), FileIndexPart(state=state_of(node.node, []))],
        "silence": [FileIndexPart(records[0])],
    }
    lie(monkeypatch, node, lambda after, head: lies[which])
    fetched = fetch_one(client, node)
    assert fetched.problem and fetched.exit_status and fetched.now is None
    assert client.file_indexes().all() == IndexesHere((), ()) and not list(
        (tmp_path / "home" / "indexes").glob("*.[0-9]*")
    )
