"""Pulls by the public API, from fake nodes behind the real wire."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from comity.rules.git_ids import commit_id
from comity.rules.pieces import CHAINED_LAYOUT
from comity.rules.signing import sign_content
from comity.transfer.limits import TransferLimits
from comity.trust.artifact import Manifest, PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, NotFound, OutOfSpace, PolicyNotMet, Unavailable, Untrusted
from comity.trust.names import Reference
from comity.trust.statements import Advisory
from comity.wire.log import LocatedProof
from comity_client.client import Client
from comity_client.events import (
    Event,
    FileDone,
    MisbehaviourFound,
    PolicyJudged,
    Progress,
    SourceDropped,
    Started,
)
from comity_client.home import Home
from comity_client.pull.cache import find_cached, remove_cached
from comity_client.pull.placed_pieces import PlacedPieces
from comity_client.seen import CONTRADICTION_CODES
from support.fakes import FakeFederation, FakeNode, Release, fork, misdescribed, release
from support.weights import as_tensor
from support.world import identity

FILES = {
    "config.json": b'{"hidden_size":8}\n',
    "copy.json": b'{"hidden_size":8}\n',
    "empty.txt": b"",
    "model.safetensors": as_tensor(os.urandom(9 * 1024 * 1024 + 17)),
    "tokenizer/vocab.txt": b"a\nb\n",
}
TINY = "swiss-ai/tiny"
PATIENT = TransferLimits(patience=20.0, read_timeout=1.0)


@pytest.fixture
def federation() -> Iterator[FakeFederation]:
    with FakeFederation().running() as running:
        yield running


@pytest.fixture(scope="module")
def unpublished(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release(tmp_path_factory.mktemp("source"), FILES, by=identity("Swiss AI", "CH"))


@pytest.fixture
def made(unpublished: Release, federation: FakeFederation) -> Release:
    federation.publish(unpublished)
    return unpublished


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    client = Client(Home(tmp_path / "home"), limits=PATIENT)
    client.pin(federation.file())
    return client


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".comity" not in path.relative_to(folder).parts
    }


def test_a_pull_into_a_folder_gives_the_published_files_read_only(
    tmp_path: Path, client: Client, made: Release
) -> None:
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == FILES
    assert pulled.verdict.accepted
    assert pulled.artifact == made.published.artifact
    modes = {stat.S_IMODE((tmp_path / "model" / path).stat().st_mode) for path in FILES}
    assert modes == {0o444}
    assert list((tmp_path / "model" / ".comity" / "incoming").iterdir()) == []


def test_what_was_pulled_verifies_offline_from_its_pack_alone(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    for fake in federation.nodes:
        federation.kill(fake.node.record.name)
    verdict = client.verify(tmp_path / "model")
    assert verdict.exit_status == 0
    assert verdict.row("replicas").state == "pass"


def test_a_hold_is_proven_by_the_first_node_that_proves_it(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = {sha256(fake.log.lines[-1]): fake for fake in federation.nodes}
    asked: Counter[Digest] = Counter()
    genuine = FakeNode.proofs

    async def proofs(fake: FakeNode, digest: Digest, origin: str | None) -> AsyncGenerator[LocatedProof, None]:
        asked[digest] += 1
        if holds.get(digest) is fake:  # who signed it is asked first
            yield LocatedProof(fake.log.origin, fake.log.proof(fake.log.lines[0]).data)
            return
        async for found in genuine(fake, digest, origin):
            yield found

    monkeypatch.setattr(FakeNode, "proofs", proofs)
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert len(pulled.verdict.row("replicas").facts) == len(federation.nodes)
    assert {asked[digest] for digest in holds} == {2}


def test_excluded_files_are_left_out_also_of_the_included_ones(tmp_path: Path, client: Client, made: Release) -> None:
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "model", exclude=["*.safetensors", "tokenizer/*"])
    assert set(files_in(tmp_path / "model")) == {"config.json", "copy.json", "empty.txt"}
    assert pulled.verdict.exit_status == 8
    client.pull("swiss-ai/tiny", to=tmp_path / "two", include=["*.json"], exclude=["copy*"])
    assert set(files_in(tmp_path / "two")) == {"config.json"}
    with pytest.raises(NotFound, match="no file matches"):
        client.pull("swiss-ai/tiny", to=tmp_path / "none", exclude=["*"])


def test_a_plan_tells_what_a_pull_would_fetch_and_writes_nothing(tmp_path: Path, client: Client, made: Release) -> None:
    plan = client.plan_pull("swiss-ai/tiny", to=tmp_path / "model", exclude=["*.txt"])
    assert {entry.path for entry in plan.files} == {"config.json", "copy.json", "model.safetensors"}
    assert plan.missing_bytes == len(FILES["config.json"]) + len(FILES["model.safetensors"]), "equal files come once"
    assert (plan.here, plan.folder, plan.free_bytes > 0) == (frozenset(), tmp_path / "model", True)
    assert not (tmp_path / "model").exists()
    client.pull("swiss-ai/tiny", to=tmp_path / "model", include=["*.json"])
    again = client.plan_pull("swiss-ai/tiny", to=tmp_path / "model")
    assert again.here == {"config.json", "copy.json"}
    assert (again.here_bytes, again.begun_bytes) == (2 * len(FILES["config.json"]), 0)
    weights = next(entry for entry in again.files if entry.path == "model.safetensors")
    part = tmp_path / "model" / ".comity" / "incoming" / weights.sha256
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(FILES["model.safetensors"][:4096])
    begun = client.plan_pull("swiss-ai/tiny", to=tmp_path / "model")
    assert begun.begun_bytes == 4096 and begun.missing_bytes == again.missing_bytes - 4096


def test_a_plan_that_the_policy_refuses_is_refused_as_the_pull_would_be(
    tmp_path: Path, client: Client, made: Release
) -> None:
    with pytest.raises(NotFound):
        client.plan_pull("swiss-ai/nothing", to=tmp_path / "model")


def test_a_flipped_bit_after_the_pull_is_found(tmp_path: Path, client: Client, made: Release) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    damaged = tmp_path / "model" / "config.json"
    damaged.chmod(0o644)
    damaged.write_bytes(b'{"hidden_size":9}\n')
    assert client.verify(tmp_path / "model").exit_status == 3
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert client.verify(tmp_path / "model").exit_status == 0


def test_a_second_pull_fetches_nothing(tmp_path: Path, client: Client, made: Release) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    again = client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert again.here == again.bytes
    assert again.tally.by_node == {}


def test_pieces_of_a_placed_file_are_not_fetched_for_another_folder(
    tmp_path: Path, client: Client, made: Release
) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    other = client.pull("swiss-ai/tiny", to=tmp_path / "other")
    assert other.tally.reused == len(FILES["model.safetensors"]) + len(FILES["config.json"]) + 4
    assert other.tally.by_node == {}
    assert files_in(tmp_path / "other") == FILES


def test_no_piece_is_looked_for_here_if_none_can_be(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look opens a database, and a large file has tens of thousands of pieces."""
    for fake in federation.nodes:
        fake.records_held = {key: data for key, data in fake.records_held.items() if key[1] != CHAINED_LAYOUT}
    looked: list[PieceRecord] = []

    def find(placed: PlacedPieces, record: PieceRecord) -> list[tuple[Path, int]]:
        looked.append(record)
        return []

    monkeypatch.setattr(PlacedPieces, "find", find)
    client.pull(TINY, to=tmp_path / "model")
    assert looked == []


def test_an_unmodified_hub_client_finds_the_artifact_offline(tmp_path: Path, client: Client, made: Release) -> None:
    hub = pytest.importorskip("huggingface_hub")
    pulled = client.pull("swiss-ai/tiny", hub_cache=tmp_path / "hub")
    commit = commit_id(Manifest.parse(made.blobs[made.published.artifact]))
    for revision in (commit, "v1", "main", None):
        found = hub.snapshot_download(
            "swiss-ai/tiny", revision=revision, cache_dir=tmp_path / "hub", local_files_only=True
        )
        assert Path(found) == pulled.folder
        one = hub.hf_hub_download(
            "swiss-ai/tiny", "tokenizer/vocab.txt", revision=revision, cache_dir=tmp_path / "hub", local_files_only=True
        )
        assert Path(one).read_bytes() == FILES["tokenizer/vocab.txt"]
    assert files_in(pulled.folder) == FILES
    links = [pulled.folder / path for path in FILES]
    assert all(link.is_symlink() and not link.readlink().is_absolute() for link in links)
    cache = hub.scan_cache_dir(tmp_path / "hub")
    assert not cache.warnings
    assert [repo.repo_id for repo in cache.repos] == ["swiss-ai/tiny"]


def test_a_hub_cache_verifies_by_reference(tmp_path: Path, client: Client, made: Release) -> None:
    client.pull("swiss-ai/tiny", hub_cache=tmp_path / "hub")
    for reference in ("swiss-ai/tiny", "swiss-ai/tiny@v1", f"sha256:{made.published.artifact}"):
        assert client.verify(reference, hub_cache=tmp_path / "hub").exit_status == 0
    with pytest.raises(NotFound):
        client.verify("swiss-ai/other", hub_cache=tmp_path / "hub")


def test_a_partial_pull_says_so_until_the_rest_is_pulled(tmp_path: Path, client: Client, made: Release) -> None:
    partial = client.pull("swiss-ai/tiny", to=tmp_path / "model", include=["*.json"])
    assert partial.verdict.exit_status == 8
    assert sorted(files_in(tmp_path / "model")) == ["config.json", "copy.json"]
    assert client.verify(tmp_path / "model").exit_status == 8
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert client.verify(tmp_path / "model").exit_status == 0


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path, client: Client, made: Release) -> None:
    with pytest.raises(NotFound) as caught:
        client.pull("swiss-ai/tiny", to=tmp_path / "model", include=["*.gguf"])
    assert caught.value.code == "NO-FILE-MATCHES"


def test_a_lying_node_is_dropped_and_the_others_bring_the_file(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    federation.nodes[0].lies_about = {sha256(data) for data in FILES.values()}
    events: list[Event] = []
    client.pull("swiss-ai/tiny", to=tmp_path / "model", on_event=events.append)
    assert files_in(tmp_path / "model") == FILES
    dropped = {event.node for event in events if isinstance(event, SourceDropped)}
    assert dropped <= {federation.nodes[0].node.record.name}


def test_bytes_that_only_lying_nodes_have_are_never_placed(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    for fake in federation.nodes:
        fake.lies_about = {sha256(FILES["model.safetensors"])}
    with pytest.raises(Untrusted):
        client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == {}


def test_nodes_that_claim_no_copy_are_not_asked_before_one_that_does(
    tmp_path: Path, client: Client, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[FakeNode, str]] = []
    records = FakeNode.records

    async def noted(node: FakeNode, digest: Digest, layout: str) -> bytes:
        asked.append((node, layout))
        return await records(node, digest, layout)

    monkeypatch.setattr(FakeNode, "records", noted)
    holder = federation.nodes[-1]
    federation.publish(release(tmp_path / "source", FILES, by=federation.publisher), holders=[holder])
    client.pull(TINY, to=tmp_path / "model")
    assert {node.node.origin for node, layout in asked if layout != CHAINED_LAYOUT} == {holder.node.origin}


def test_a_silent_node_does_not_hold_the_others_up(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    federation.nodes[1].silent = True
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == FILES


def test_a_pull_goes_on_when_all_holders_but_one_vanish_in_the_middle(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    for fake in federation.nodes[1:]:
        fake.fail_after = 1
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == FILES


def test_an_interrupted_pull_goes_on_where_it_was(
    tmp_path: Path, federation: FakeFederation, made: Release, client: Client
) -> None:
    hasty = Client(client.home, limits=TransferLimits(patience=2.0, read_timeout=0.5))
    for fake in federation.nodes:
        fake.blobs = {**fake.blobs}
        del fake.blobs[next(d for d, data in fake.blobs.items() if data == FILES["config.json"])]
    with pytest.raises(ComityError):
        hasty.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == {}
    for fake in federation.nodes:
        fake.blobs |= made.blobs
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == FILES
    assert pulled.tally.resumed + sum(pulled.tally.by_node.values()) >= len(FILES["model.safetensors"])


def test_too_few_cosigners_place_nothing_and_say_how_to_relax(
    tmp_path: Path, federation: FakeFederation, made: Release, client: Client
) -> None:
    for fake in federation.nodes:
        fake.cosigners = {}
    with pytest.raises(PolicyNotMet) as caught:
        client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert caught.value.exit_status == 4
    assert "--policy" in caught.value.hint
    assert files_in(tmp_path / "model") == {}


def test_an_unpinned_client_finds_no_node(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        Client(Home(tmp_path / "home")).pull("swiss-ai/tiny", to=tmp_path / "model")
    assert caught.value.hint == "comity trust pin FILE"


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path, client: Client, made: Release) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("years of work")
    with pytest.raises(Conflict):
        client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == {"thesis.tex": b"years of work"}


def test_a_link_in_the_folder_is_never_written_through(tmp_path: Path, client: Client, made: Release) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("link", [".comity", ".comity/incoming", ".comity/objects", ".comity/proofs"])
def test_a_link_in_the_place_of_the_pack_is_never_written_through(
    tmp_path: Path, client: Client, made: Release, link: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model" / link).parent.mkdir(parents=True)
    (tmp_path / "model" / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_two_pulls_into_one_cache_share_the_work(tmp_path: Path, client: Client, made: Release) -> None:
    failures: list[BaseException] = []

    def pull() -> None:
        try:
            Client(client.home, limits=PATIENT).pull("swiss-ai/tiny", hub_cache=tmp_path / "hub")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert client.verify("swiss-ai/tiny", hub_cache=tmp_path / "hub").exit_status == 0


def test_a_file_that_another_pull_placed_meanwhile_is_not_fetched_again(
    tmp_path: Path, client: Client, made: Release
) -> None:
    def pull_too(event: Event) -> None:
        if isinstance(event, Started):  # this pull has read which files are here
            other = threading.Thread(target=client.pull, args=(TINY,), kwargs={"to": tmp_path / "model"})
            other.start()
            other.join()

    pulled = client.pull(TINY, to=tmp_path / "model", on_event=pull_too)
    assert (pulled.tally.by_node, pulled.tally.reused) == ({}, pulled.bytes - len(FILES["config.json"]))
    assert files_in(tmp_path / "model") == FILES
    assert list((tmp_path / "model" / ".comity" / "incoming").iterdir()) == []
    assert client.verify(tmp_path / "model").exit_status == 0


def test_a_folder_into_which_another_artifact_was_pulled_meanwhile_is_left_alone(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    other = {"config.json": b"{}", "other.bin": b"other"}
    federation.publish(release(tmp_path / "second", other, by=federation.publisher, name=f"{TINY}@v2"))

    def pull_the_other(event: Event) -> None:
        if isinstance(event, PolicyJudged) and event.final:
            pulling = threading.Thread(target=client.pull, args=(f"{TINY}@v2",), kwargs={"to": tmp_path / "model"})
            pulling.start()
            pulling.join()

    with pytest.raises(Conflict):
        client.pull(f"{TINY}@v1", to=tmp_path / "model", on_event=pull_the_other)
    assert files_in(tmp_path / "model") == other
    assert client.verify(tmp_path / "model").exit_status == 0


def test_a_corrupt_blob_in_a_hub_cache_is_replaced(tmp_path: Path, client: Client, made: Release) -> None:
    pulled = client.pull("swiss-ai/tiny", hub_cache=tmp_path / "hub")
    blob = (pulled.folder / "config.json").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"garbage")
    client.pull("swiss-ai/tiny", hub_cache=tmp_path / "hub")
    assert files_in(pulled.folder) == FILES


def test_a_log_that_shows_another_history_is_caught_and_its_proof_kept(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    writer = federation.nodes[0]
    forked = fork(writer.log, 2)
    warning = Advisory(identity("Swiss AI", "CH").inception.author, made.published.artifact, "vulnerability", "low", "")
    for line in (sign_content(warning, federation.publisher.signer).line, *writer.log.lines[2:]):
        forked.append(line)
    for fake in federation.nodes:
        fake.logs_held[writer.node.origin] = forked
    events: list[Event] = []
    with pytest.raises(Untrusted) as caught:
        client.pull("swiss-ai/tiny", to=tmp_path / "other", on_event=events.append)
    assert caught.value.code in CONTRADICTION_CODES
    assert any(isinstance(event, MisbehaviourFound) for event in events)
    assert [item.log for item in client.misbehaviour()] == [writer.node.origin]


def test_no_room_is_said_before_anything_is_fetched(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("comity_client.pull.destinations.shutil.disk_usage", lambda path: usage._replace(free=1024))
    reads = sum(fake.reads for fake in federation.nodes)
    with pytest.raises(OutOfSpace) as caught:
        client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert caught.value.exit_status == 7
    weights = sha256(FILES["model.safetensors"])
    assert not (tmp_path / "model" / ".comity" / "incoming" / weights).exists()
    assert sum(fake.reads for fake in federation.nodes) - reads < 10  # side objects, no file


def test_a_file_that_has_two_names_in_one_cache_needs_room_once(
    tmp_path: Path, client: Client, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = FILES["model.safetensors"]
    federation.publish(
        release(tmp_path / "source", {"a.bin": weights, "b.bin": weights, "c": b"c"}, by=federation.publisher)
    )
    usage = shutil.disk_usage(tmp_path)
    room = usage._replace(free=len(weights) + 1)
    monkeypatch.setattr("comity_client.pull.destinations.shutil.disk_usage", lambda path: room)
    pulled = client.pull(TINY, hub_cache=tmp_path / "hub")
    assert files_in(pulled.folder).keys() == {"a.bin", "b.bin", "c"}


def test_a_wrong_piece_index_costs_a_retry_and_no_file(
    tmp_path: Path, client: Client, federation: FakeFederation
) -> None:
    honest = release(tmp_path / "source", FILES, by=federation.publisher)
    federation.publish(misdescribed(honest, federation.publisher), holders=[])
    for fake in federation.nodes:
        fake.take(honest)
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == FILES


def test_main_names_the_newest_version_and_an_older_one_does_not_move_it(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    newer = {**FILES, "config.json": b'{"hidden_size":16}\n'}
    second = release(tmp_path / "second", newer, by=federation.publisher, name="swiss-ai/tiny@v2")
    federation.publish(second)
    newest = client.pull("swiss-ai/tiny", hub_cache=tmp_path / "hub")
    assert newest.artifact == second.published.artifact
    older = client.pull("swiss-ai/tiny@v1", hub_cache=tmp_path / "hub")
    refs = newest.folder.parent.parent / "refs"
    assert (refs / "main").read_text() == (refs / "v2").read_text() == newest.folder.name
    assert (refs / "v1").read_text() == older.folder.name
    assert older.here == older.bytes  # v2 has all of its blobs, some under other paths


def test_a_file_that_a_pull_found_in_the_cache_is_not_removed_before_it_is_linked(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    """A pull that finds all its files fetches none; up to its last step only the other version links them."""
    federation.publish(release(tmp_path / "second", FILES | {"new": b"2"}, by=federation.publisher, name=f"{TINY}@v2"))
    client.pull(f"{TINY}@v2", hub_cache=tmp_path / "hub")
    refused: list[str] = []

    def remove_the_other(event: Event) -> None:
        if isinstance(event, PolicyJudged) and event.final:
            with pytest.raises(Conflict) as caught:
                remove_cached(find_cached(tmp_path / "hub", Reference.parse(f"{TINY}@v2")))
            refused.append(caught.value.code)

    pulled = client.pull(f"{TINY}@v1", hub_cache=tmp_path / "hub", on_event=remove_the_other)
    assert (refused, pulled.here) == (["CACHE-BUSY"], pulled.bytes)
    remove_cached(find_cached(tmp_path / "hub", Reference.parse(f"{TINY}@v2")))
    assert files_in(pulled.folder) == FILES


def test_better_proofs_of_an_earlier_pull_are_kept(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    for fake in federation.nodes:
        fake.cosigners = {}
    assert client.pull("swiss-ai/tiny", to=tmp_path / "model").verdict.accepted


def test_a_broken_pack_is_replaced(tmp_path: Path, client: Client, made: Release) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    (tmp_path / "model" / ".comity" / "statements.jsonl").write_bytes(b"x" * 100_000)
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert client.verify(tmp_path / "model").exit_status == 0


def test_a_pull_renames_the_statements_of_an_older_pack_and_keeps_the_bundles_of_others(
    tmp_path: Path, client: Client, made: Release
) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    pack = tmp_path / "model" / ".comity"
    (pack / "statements.jsonl").rename(pack / "claims.jsonl")
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert (pack / "statements.jsonl").exists() and not (pack / "claims.jsonl").exists()
    (pack / "claims.jsonl").write_bytes(b'{"dsseEnvelope":{}}\n')
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert (pack / "claims.jsonl").exists()


def test_a_policy_file_decides_instead_of_the_default(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    (tmp_path / "federation.json").write_bytes(federation.file())
    path = tmp_path / "policy.toml"
    path.write_text('[[pin]]\nfile = "federation.json"\n[licences]\naccept = ["mit"]\n[rows]\nrequire = ["licence"]\n')
    with pytest.raises(PolicyNotMet, match="licence"):
        client.pull("swiss-ai/tiny", to=tmp_path / "model", policy=client.policy(path))


MANY = {f"part-{number // 100}/{number:04}.txt": b"%d\n" % number * 50 for number in range(700)}


@pytest.fixture
def many(tmp_path: Path, federation: FakeFederation) -> Release:
    made = release(tmp_path / "many", MANY, by=identity("Swiss AI", "CH"))
    federation.publish(made)
    return made


def calls_for_small(federation: FakeFederation) -> int:
    return sum(len(fake.asked_together) for fake in federation.nodes)


def test_many_small_files_take_few_calls(
    tmp_path: Path, client: Client, many: Release, federation: FakeFederation
) -> None:
    events: list[Event] = []
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "model", on_event=events.append)
    size = sum(map(len, MANY.values()))
    assert files_in(tmp_path / "model") == MANY
    assert calls_for_small(federation) <= 3 + len(federation.nodes)
    assert sum(pulled.tally.by_node.values()) == size
    [started] = [event for event in events if isinstance(event, Started)]
    assert sum(event.count for event in events if isinstance(event, Progress)) == started.work == size
    assert {event.path for event in events if isinstance(event, FileDone)} == MANY.keys()
    assert list((tmp_path / "model" / ".comity" / "incoming").iterdir()) == []


def test_small_files_that_are_whole_are_not_asked_for_again(
    tmp_path: Path, client: Client, many: Release, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*given: object) -> None:
        raise Unavailable("the disk failed", code="DISK")

    with monkeypatch.context() as patched, pytest.raises(Unavailable):
        patched.setattr("comity_client.pull.pull.place_small", failing)
        client.pull("swiss-ai/tiny", to=tmp_path / "model")
    calls, [torn, *_] = calls_for_small(federation), sorted((tmp_path / "model" / ".comity" / "incoming").iterdir())
    torn.chmod(0o600)
    torn.write_bytes(b"torn")
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert files_in(tmp_path / "model") == MANY
    assert (calls_for_small(federation) - calls, pulled.tally.reused) == (1, 0)
    assert 0 < pulled.tally.resumed < sum(map(len, MANY.values()))


@pytest.mark.slow
def test_small_files_of_other_folders_are_used_again(
    tmp_path: Path, client: Client, many: Release, federation: FakeFederation
) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "first")
    calls, changed = calls_for_small(federation), tmp_path / "first" / "part-0" / "0000.txt"
    changed.chmod(0o600)
    changed.write_bytes(bytes(len(MANY["part-0/0000.txt"])))
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "second")
    assert files_in(tmp_path / "second") == MANY
    assert calls_for_small(federation) - calls == 1
    assert sum(pulled.tally.by_node.values()) == len(MANY["part-0/0000.txt"])


def test_small_files_that_no_node_has_all_of_come_from_each_that_has_them(
    tmp_path: Path, client: Client, many: Release, federation: FakeFederation
) -> None:
    ours = [sha256(data) for data in MANY.values()]
    for number, fake in enumerate(federation.nodes):
        for digest in ours[number::2]:
            fake.blobs.pop(digest, None)
    client.pull("swiss-ai/tiny", to=tmp_path / "model", include=["part-0/000*"])
    assert files_in(tmp_path / "model").items() <= MANY.items()


def test_small_files_have_their_names_in_a_hub_cache(tmp_path: Path, client: Client, many: Release) -> None:
    pulled = client.pull("swiss-ai/tiny", hub_cache=tmp_path / "hub")
    names = {path.relative_to(pulled.folder).as_posix(): path for path in pulled.folder.rglob("*.txt")}
    assert {name: path.read_bytes() for name, path in names.items()} == MANY
    assert all(path.is_symlink() for path in names.values())
    assert list((tmp_path / "hub").glob("*/.comity/incoming/*")) == []
