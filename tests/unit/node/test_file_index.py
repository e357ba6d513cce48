"""The index of files: what proven publications name is found by the first bits of its digest, members' files apart."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attackers.forging import Identity, Release
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node import piece_rows
from comity.node.file_index import FileIndex, FileIndexReader, FilesFound, IndexedArtifact, _add, index_basis
from comity.node.members import Membership
from comity.node.projection import TOGETHER, Position
from comity.node.threads import AsyncLedger
from comity.rules.file_records import START, FileRecord, read_records
from comity.rules.pieces import SMALL_TENSOR, TENSOR_LAYOUT, encode_records
from comity.rules.precedence import Precedence
from comity.trust.artifact import FileEntry, PieceRecord
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import NotFound, OutOfSpace
from comity.trust.statement import parse_entry
from comity.wire import limits
from comity.wire.files import FilePrefixes, file_pairs, file_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.file_indexes import head_of
from support.file_prefixes import prefixes_of
from support.logs import LogKeys

LOG, MEMBER, STRANGER = LogKeys.generate("far.example/log"), Identity.made("member"), Identity.made("stranger")
EVERYTHING = FilePrefixes(0, (0,))


def id_of(identity: Identity) -> Digest:
    author = parse_entry(identity.publish("a/b@v1", Release(b""))).statement.by
    assert author is not None
    return author.id


class Pools:
    async def files(self, work: Any, *arguments: Any) -> Any:
        return work(*arguments)


class Scene:
    """A ledger, a store, and a charter that binds a namespace to a member."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger.open(folder / "ledger", lambda: 1_000)
        self.ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        self.store = FolderStore(folder / "blobs")
        self.bound = {"a": id_of(MEMBER)}
        self.index = FileIndex(folder / "files.sqlite", index_basis(self.membership))
        weakref.finalize(self, self.index.close)

    @property
    def membership(self) -> Membership:
        body = SimpleNamespace(namespaces=self.bound)
        members = frozenset(self.bound.values())
        return cast(Membership, SimpleNamespace(body=body, known={}, precedence=Precedence(members=members)))

    def publish(self, identity: Identity, name: str, *releases: Release, here: bool = True) -> None:
        for number, release in enumerate(releases):
            if here:
                self.store.put(sha256(release.manifest), release.manifest)
            self.ledger.logs.append(LOG.vkey, [identity.publish(f"{name}@v{number}", release)])

    async def read(self) -> None:
        membership: Any = SimpleNamespace(body=self.membership.body, known={}, precedence=self.membership.precedence)
        pools: Any = Pools()
        reader = FileIndexReader(AsyncLedger(self.ledger), self.store, pools, membership, self.index)
        await reader.read()
        assert reader.progress().done == reader.progress().total

    def found(self, asked: FilePrefixes = EVERYTHING) -> FilesFound:
        return self.index.with_prefixes(asked)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with closing(made.ledger), closing(made.index):
        yield made


def digest_of(release: Release) -> Digest:
    return Digest(hashlib.sha256(release.data).hexdigest())


def pairs(files: list[bytes]) -> list[tuple[bytes, Digest]]:
    return list(file_pairs(b"".join(files)))


def artifacts(found: FilesFound) -> set[Digest]:
    return {artifact for _, artifact in pairs([*found.of_members, *found.of_others])}


def reference(release: Release) -> bytes:
    return file_reference(digest_of(release))


async def test_files_of_publications_are_found_with_every_artifact_that_has_them(scene: Scene) -> None:
    releases = [Release(b"%d" % number) for number in range(40)]
    scene.publish(MEMBER, "a/b", *releases)
    scene.publish(STRANGER, "c/d", releases[0])  # the same artifact again
    await scene.read()
    assert scene.index.count == len(releases)
    for bits in (0, 4, 20, 32):
        found = scene.found(prefixes_of(bits, [digest_of(releases[7])]))
        assert (reference(releases[7]), sha256(releases[7].manifest)) in pairs(found.of_members)
    assert artifacts(scene.found()) == {sha256(each.manifest) for each in releases}
    assert scene.found(prefixes_of(32, [Digest("ab" * 32)])) == FilesFound([], [], [])


async def test_an_answer_has_the_files_of_the_prefix_alone(scene: Scene) -> None:
    releases = [Release(b"%d" % number) for number in range(64)]
    scene.publish(MEMBER, "a/b", *releases)
    await scene.read()
    asked = prefixes_of(3, [digest_of(releases[0])])
    expected = {reference(each) for each in releases if reference(each)[0] >> 5 == asked.prefixes[0]}
    assert {each for each, _ in pairs(scene.found(asked).of_members)} == expected


async def test_strangers_fill_no_part_of_members_and_what_is_left_out_is_said(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PREFIX_FILES", 3)
    scene.publish(STRANGER, "c/d", *(Release(b"stranger %d" % number) for number in range(9)))
    ours = [Release(b"ours %d" % number) for number in range(3)]
    scene.publish(MEMBER, "a/b", *ours)
    await scene.read()
    found = scene.found()
    assert {artifact for _, artifact in pairs(found.of_members)} == {sha256(each.manifest) for each in ours}
    assert (len(found.of_others), found.cut) == (3, [0])
    scene.publish(MEMBER, "a/c", Release(b"one more"))
    await scene.read()
    assert (len(artifacts(scene.found())), scene.found().cut) == (6, [0])


class LicensedRelease(Release):
    """A second file, which others have too."""

    @property
    def manifest(self) -> bytes:
        licence: Json = {"path": "LICENSE", "sha256": digest_of(LICENCE), "size": len(LICENCE.data)}
        file: Json = {"path": "weights.bin", "sha256": sha256(self.data), "size": len(self.data)}
        size = len(LICENCE.data) + len(self.data)
        return canonical({"files": [licence, file], "schema": "comity/manifest/v1", "size": size})


LICENCE = Release(b"licence")


async def test_artifacts_with_a_file_are_those_of_members_first_and_bounded(scene: Scene) -> None:
    scene.publish(STRANGER, "c/d", *(LicensedRelease(b"stranger %d" % number) for number in range(5)))
    ours = [LicensedRelease(b"ours %d" % number) for number in range(2)]
    scene.publish(MEMBER, "a/b", *ours)
    await scene.read()
    found, more = scene.index.artifacts_with(digest_of(LICENCE), 3)
    assert (found[:2], len(found), more) == ([sha256(each.manifest) for each in ours], 5, True)
    found, more = scene.index.artifacts_with(digest_of(LICENCE), 5)
    assert (len(found), more) == (7, False)
    assert scene.index.artifacts_with(Digest("ab" * 32), 3) == ([], False)


async def test_a_strangers_copy_of_a_members_artifact_does_not_keep_it_among_those_of_strangers(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PREFIX_FILES", 1)
    ours = Release(b"ours")
    scene.publish(STRANGER, "c/d", ours, *(Release(b"stranger %d" % number) for number in range(5)))
    await scene.read()
    scene.publish(MEMBER, "a/b", ours)
    await scene.read()
    assert {artifact for _, artifact in pairs(scene.found().of_members)} == {sha256(ours.manifest)}
    assert scene.index.whose([sha256(ours.manifest)]) == {sha256(ours.manifest): 0}


async def test_a_strangers_copy_that_is_read_together_with_a_members_artifact_takes_it_from_nobody(
    scene: Scene,
) -> None:
    ours = Release(b"ours")
    scene.publish(MEMBER, "a/b", ours)
    scene.publish(STRANGER, "c/d", ours)
    await scene.read()
    assert scene.index.whose([sha256(ours.manifest)]) == {sha256(ours.manifest): 0}
    assert [record.name for record, _ in all_records(scene.index)] == ["a/b@v0"]


async def test_rows_are_computed_again_when_the_charter_binds_a_namespace_to_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Release(b"theirs")
    scene.publish(STRANGER, "c/d", theirs)
    await scene.read()
    scene.bound = {"c": id_of(STRANGER)}
    await scene.read()
    assert scene.index.whose([sha256(theirs.manifest)]) == {sha256(theirs.manifest): 0}
    assert (scene.index.count, scene.index.basis) == (1, index_basis(scene.membership))


async def test_a_manifest_that_was_lost_is_passed_over(scene: Scene) -> None:
    lost, kept = Release(b"lost"), Release(b"kept")
    scene.publish(MEMBER, "a/b", lost, here=False)
    scene.publish(MEMBER, "a/c", kept)
    await scene.read()
    assert artifacts(scene.found()) == {sha256(kept.manifest)}


def all_records(index: FileIndex, size: int = 10**9) -> list[tuple[FileRecord, bytes]]:
    """All records, read in parts of this size."""
    found, after, head = list[tuple[FileRecord, bytes]](), 0, START
    while (read := index.records(after, head, size)).data:
        found += read_records(read.data)
        after, head = read.number, read.head
    assert head == head_of([data for _, data in found]) and after == len(found) == index.last_record
    return found


artifacts_of = st.builds(
    IndexedArtifact,
    st.integers(0, 8).map(lambda number: sha256(b"%d" % number)),
    st.sampled_from((0, 1)),
    st.frozensets(st.integers(0, 40).map(lambda number: file_reference(sha256(b"file %d" % number))), max_size=5),
    st.sampled_from(("a/b@v1", "hf:c/d@e")),
)


@settings(max_examples=examples(40))
@given(st.lists(artifacts_of, max_size=12), st.data())
def test_what_follows_earlier_records_makes_the_whole_index(made: list[IndexedArtifact], data: Any) -> None:
    """Records are what rows say; those after any position, with those before it, are those of one reading."""
    with TemporaryDirectory() as folder, closing(FileIndex(Path(folder) / "files.sqlite", "basis")) as index:
        cut = data.draw(st.integers(0, len(made)))
        index.add(made[:cut], Position(1, "a"))
        early = all_records(index)
        index.add(made[cut:], Position(2, "b"))
        later = all_records(index, data.draw(st.integers(600, 2_000)))
        assert later[: len(early)] == early
        since = index.records(len(early), head_of([each for _, each in early]), 10**9)
        assert [*early, *read_records(since.data)] == later
        said = {(reference, record.artifact) for record, _ in later for reference in record.references}
        found = index.with_prefixes(EVERYTHING)
        assert said == set(pairs([*found.of_members, *found.of_others]))
        assert said == {(reference, each.digest) for each in made for reference in each.references}


def test_other_records_than_those_of_the_index_are_continued_by_none(tmp_path: Path) -> None:
    with closing(FileIndex(tmp_path / "files.sqlite", "basis")) as index:
        index.add([IndexedArtifact(sha256(b"a"), 0, frozenset({bytes(16)}), "a/b@v1")], Position(1, "a"))
        read = index.records(0, START, 1_000)
        for after, head in ((0, read.head), (1, START), (2, read.head), (1, b"")):
            with pytest.raises(NotFound) as refused:
                index.records(after, head, 1_000)
            assert refused.value.code == "FILE-INDEX-REPLACED"
        assert (index.records(1, read.head, 1_000).data, index.records(0, START, 10).data) == (b"", b"")


async def test_an_artifact_of_which_some_files_were_written_is_read_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full between two transactions of an artifact with many files."""
    many = Release(b"many")
    references = [file_reference(sha256(b"%d" % number)) for number in range(2 * TOGETHER + 1)]
    files = tuple(FileEntry(f"f{number}", 1, sha256(b"%d" % number)) for number in range(len(references)))
    monkeypatch.setattr("comity.node.file_index.read_manifest", lambda store, manifest: SimpleNamespace(files=files))
    scene.publish(MEMBER, "a/b", many)
    monkeypatch.setattr("comity.node.file_index._add", failing_after(2, _add))
    with pytest.raises(OutOfSpace):
        await scene.read()
    assert scene.index.count == 2 * TOGETHER
    monkeypatch.undo()
    monkeypatch.setattr("comity.node.file_index.read_manifest", lambda store, manifest: SimpleNamespace(files=files))
    await scene.read()
    assert scene.index.count == len(references)
    said = {reference for record, _ in all_records(scene.index) for reference in record.references}
    assert said == set(references)
    assert {record.name for record, _ in all_records(scene.index)} == {"a/b@v0"}


def failing_after(calls: int, work: Any) -> Any:
    left = iter(range(calls))

    def fail(*arguments: Any) -> None:
        if next(left, None) is None:
            raise OutOfSpace("the disk is full")
        work(*arguments)

    return fail


@dataclass(frozen=True)
class Weights(Release):
    """A published weight file of pieces of 256 KiB, of which this node may have a copy."""

    count: int = 3
    first: bytes | None = None

    @property
    def hashes(self) -> list[bytes]:
        made = [hashlib.sha256(self.data + b"%d" % number).digest() for number in range(self.count)]
        return [self.first or made[0], *made[1:]]

    @property
    def digest(self) -> Digest:
        return digest_of(self)

    @property
    def manifest(self) -> bytes:
        size = self.count * SMALL_TENSOR
        file: Json = {"path": "model.safetensors", "sha256": self.digest, "size": size}
        return canonical({"files": [file], "schema": "comity/manifest/v1", "size": size})

    def store_in(self, scene: Scene) -> None:
        records = encode_records(PieceRecord(SMALL_TENSOR, each) for each in self.hashes)
        scene.ledger.pieces.store_records(self.digest, self.count * SMALL_TENSOR, TENSOR_LAYOUT, records)

    def pairs(self) -> set[tuple[bytes, Digest]]:
        return {(each[:16], self.digest) for each in self.hashes}


def pieces_of(scene: Scene) -> tuple[set[tuple[bytes, Digest]], set[tuple[bytes, Digest]]]:
    found = scene.found(FilePrefixes(0, (0,), pieces=True))
    return set(pairs(found.of_members)), set(pairs(found.of_others))


async def test_pieces_are_indexed_whether_the_copy_comes_before_the_publication_or_after_it(scene: Scene) -> None:
    before, after = Weights(b"before"), Weights(b"after")
    before.store_in(scene)
    await scene.read()
    assert pieces_of(scene) == (set(), set())  # what nobody published is not told
    scene.publish(MEMBER, "a/b", before, after)
    await scene.read()
    assert pieces_of(scene) == (before.pairs(), set())
    after.store_in(scene)
    await scene.read()
    assert pieces_of(scene) == (before.pairs() | after.pairs(), set())
    assert (scene.index.pieces, scene.index.count) == (6, 2)
    found = scene.found(prefixes_of(32, [Digest(before.hashes[1].hex())], pieces=True))
    assert pairs(found.of_members) == [(before.hashes[1][:16], before.digest)]


async def test_pieces_of_strangers_are_apart_and_come_among_those_of_members_with_their_file(scene: Scene) -> None:
    theirs = Weights(b"theirs")
    theirs.store_in(scene)
    scene.publish(STRANGER, "c/d", theirs)
    await scene.read()
    assert pieces_of(scene) == (set(), theirs.pairs())
    scene.publish(MEMBER, "a/b", theirs)
    await scene.read()
    assert pieces_of(scene) == (theirs.pairs(), theirs.pairs())


async def test_records_that_were_stored_after_others_were_deleted_are_read(scene: Scene) -> None:
    old, new = [Weights(b"old %d" % number) for number in range(3)], Weights(b"new")
    scene.publish(MEMBER, "a/b", *old, new)
    for each in old:
        each.store_in(scene)
    await scene.read()
    for each in old[1:]:
        scene.ledger.pieces.delete_records(each.digest)
    new.store_in(scene)
    await scene.read()
    assert new.pairs() <= pieces_of(scene)[0]


async def test_a_piece_of_many_files_and_the_pieces_of_a_large_one_are_indexed_in_part(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece_rows, "MOST", 5)
    zero = bytes(32)
    files = [Weights(b"file %d" % number, first=zero) for number in range(piece_rows.ALIKE + 2)]
    large = Weights(b"large", 9)
    for each in (*files, large):
        each.store_in(scene)
    scene.publish(MEMBER, "a/b", *files, large)
    await scene.read()
    found = pieces_of(scene)[0]
    zeros = [file for piece, file in found if piece == zero[:16]]
    assert (len(zeros), len(set(zeros))) == (piece_rows.ALIKE, piece_rows.ALIKE)
    assert {piece for piece, file in found if file == large.digest} == {each[:16] for each in sorted(large.hashes)[:5]}
    assert scene.index.pieces == len(found)


async def test_a_manifest_is_read_without_a_question_for_its_size(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement says it. A background reader asks for the size of no file of a hundred thousand."""
    scene.publish(MEMBER, "a/b", Release(b"1"), Release(b"2"))
    asked = list[Digest]()
    monkeypatch.setattr(FolderStore, "size", lambda store, digest: asked.append(digest))
    await scene.read()
    assert (scene.index.count, asked) == (2, [])
