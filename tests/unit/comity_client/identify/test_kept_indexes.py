"""Indexes on this machine: what was signed is read, and anything else is refused as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from comity.rules.file_records import FileRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, Unavailable, Untrusted
from comity.wire.files import file_reference
from comity_client.identify import kept_indexes
from comity_client.identify.kept_indexes import IndexesHere, KeptIndex, KeptIndexes, NamedByIndex, find_files
from support.file_indexes import TIME, state_of
from support.world import Node, identity, node

FILES = [file_reference(sha256(b"%d" % number)) for number in range(8)]
ARTIFACTS = [sha256(b"artifact %d" % number) for number in range(4)]


def ours() -> Node:
    return node(identity("CH"), "ours.example")


def theirs() -> Node:
    return node(identity("SG"), "theirs.example")


def record(artifact: Digest, *files: bytes, whose: int = 0, name: str = "a/b@v1") -> bytes:
    return FileRecord(whose, artifact, name, b"".join(files)).encode()


RECORDS = [record(artifact, *FILES[at : at + 3], name=f"a/b@v{at}") for at, artifact in enumerate(ARTIFACTS)]


@pytest.fixture
def indexes(tmp_path: Path) -> KeptIndexes:
    (tmp_path / "indexes").mkdir()
    return KeptIndexes(tmp_path / "indexes", [ours().record, theirs().record])


def keep(indexes: KeptIndexes, records: Sequence[bytes] = RECORDS, line: bytes | None = None) -> KeptIndex:
    with indexes.writing(ours().record) as writer:
        writer.add(b"".join(records[writer.count :]))
        return writer.keep(line or state_of(ours(), records))


def test_files_are_found_with_every_artifact_that_the_index_names(indexes: KeptIndexes) -> None:
    kept = keep(indexes)
    assert indexes.all().kept == (kept,) and indexes.of(theirs().record) is None
    found = find_files(kept, frozenset({FILES[2], file_reference(sha256(b"unknown"))}))
    assert found.files == 3 * len(RECORDS)
    assert found.artifacts == {
        artifact: NamedByIndex(0, f"a/b@v{at}", frozenset({FILES[2]})) for at, artifact in enumerate(ARTIFACTS[:3])
    }


def test_records_of_one_artifact_are_one_and_that_it_is_a_members_counts(indexes: KeptIndexes) -> None:
    first = record(ARTIFACTS[0], FILES[0], whose=1, name="x/y@v1")
    kept = keep(indexes, [first, record(ARTIFACTS[0], FILES[0], FILES[1])])
    found = find_files(kept, frozenset(FILES)).artifacts
    assert found == {ARTIFACTS[0]: NamedByIndex(0, "a/b@v1", frozenset(FILES[:2]))}


def test_what_is_new_is_added_and_what_is_there_stays(indexes: KeptIndexes) -> None:
    first = keep(indexes, RECORDS[:1])
    later = keep(indexes)
    assert (later.records, len(list(later.read()))) == (first.records, len(RECORDS))
    assert len(list(first.read())) == 1  # who opened it before reads what was signed then


def test_what_was_cut_short_is_forgotten(indexes: KeptIndexes) -> None:
    keep(indexes, RECORDS[:1])
    with pytest.raises(ZeroDivisionError), indexes.writing(ours().record) as writer:
        writer.add(b"".join(RECORDS[1:]))
        raise ZeroDivisionError
    assert len(list(keep(indexes, RECORDS[:2]).read())) == 2
    with pytest.raises(ZeroDivisionError), indexes.writing(ours().record, again=True) as writer:
        writer.add(RECORDS[3])
        raise ZeroDivisionError
    (kept,) = indexes.all().kept
    assert len(list(kept.read())) == 2
    assert sorted(path.name for path in indexes.folder.iterdir() if path.name != ".lock") == [
        f"{ours().record.node.id}.1",
        f"{ours().record.node.id}.json",
    ]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(lambda: state_of(theirs(), RECORDS), id="another node"),
        pytest.param(lambda: state_of(ours(), RECORDS[:2]), id="fewer records"),
        pytest.param(lambda: state_of(ours(), RECORDS[::-1]), id="another order"),
        pytest.param(lambda: state_of(ours(), RECORDS).replace(b'"sig":"', b'"sig":"AAAA', 1), id="another signature"),
        pytest.param(lambda: b"{}", id="no statement"),
    ],
)
def test_what_the_node_did_not_sign_is_not_kept(indexes: KeptIndexes, line: object) -> None:
    assert callable(line)
    with pytest.raises((Untrusted, Malformed)):
        keep(indexes, RECORDS, line())
    assert indexes.all() == IndexesHere((), ())


@pytest.mark.parametrize("at", [0, 40, -1])
def test_one_changed_byte_is_found_when_it_is_read(indexes: KeptIndexes, at: int) -> None:
    kept = keep(indexes)
    data = bytearray(kept.records.read_bytes())
    data[at] ^= 1
    kept.records.write_bytes(data)
    with pytest.raises(Untrusted) as refused:
        find_files(kept, frozenset(FILES))
    assert (refused.value.code, refused.value.hint) == ("FILE-INDEX-DAMAGED", "comity index fetch --again")


@pytest.mark.parametrize("cut", [1, len(RECORDS[-1])])
def test_records_that_end_early_are_found(indexes: KeptIndexes, cut: int) -> None:
    kept = keep(indexes)
    kept.records.write_bytes(kept.records.read_bytes()[:-cut])
    with pytest.raises(Untrusted, match="end too early"):
        find_files(kept, frozenset(FILES))


def damage(indexes: KeptIndexes) -> Path:
    path = indexes.folder / f"{ours().record.node.id}.json"
    path.write_bytes(path.read_bytes()[:-1])
    return path


def test_a_damaged_state_is_told_with_its_file_and_the_next_step_and_costs_no_other_index(indexes: KeptIndexes) -> None:
    keep(indexes)
    with indexes.writing(theirs().record) as writer:
        other = writer.keep(state_of(theirs(), []))
    path = damage(indexes)
    found = indexes.all()
    assert found.kept == (other,) and found.nodes == {ours().record.node.id, theirs().record.node.id}
    (damaged,) = found.damaged
    assert str(path) in damaged.problem and damaged.problem.endswith("; to replace it: comity index fetch")


def test_a_state_that_cannot_be_read_costs_no_other_index(indexes: KeptIndexes) -> None:
    keep(indexes)
    (indexes.folder / f"{theirs().record.node.id}.json").mkdir()
    found = indexes.all()
    assert len(found.kept) == 1 and [type(each.error) for each in found.damaged] == [Unavailable]


def test_a_damaged_index_is_replaced_as_if_it_had_been_removed(indexes: KeptIndexes, tmp_path: Path) -> None:
    file = carried(tmp_path, keep(indexes))
    damage(indexes)
    kept = keep(indexes)
    assert len(list(kept.read())) == len(RECORDS)
    damage(indexes)
    (taken,) = indexes.import_file(file)
    assert indexes.all() == IndexesHere((taken,), ())
    assert sorted(path.name for path in indexes.folder.glob(f"{ours().record.node.id}.*")) == [
        taken.records.name,
        f"{ours().record.node.id}.json",
    ]


def test_records_are_compared_with_what_their_nodes_signed(indexes: KeptIndexes) -> None:
    kept = keep(indexes)
    with indexes.writing(theirs().record) as writer:
        other = writer.keep(state_of(theirs(), []))
    assert indexes.all().checked() == indexes.all() == IndexesHere((kept, other), ())
    kept.records.write_bytes(kept.records.read_bytes()[:-1])
    found = indexes.all().checked()
    assert found.kept == (other,) and str(kept.records) in found.damaged[0].problem


def test_an_index_has_a_bound(indexes: KeptIndexes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_indexes, "MAX_BYTES", len(RECORDS[0]))
    with pytest.raises(Malformed) as refused:
        keep(indexes)
    assert refused.value.code == "UNBOUNDED"


def carried(folder: Path, *indexes: KeptIndex) -> Path:
    path = folder / "carried"
    path.write_bytes(b"".join(block for index in indexes for block in index.carried()))
    return path


def elsewhere(folder: Path) -> KeptIndexes:
    (folder / "elsewhere").mkdir()
    return KeptIndexes(folder / "elsewhere", [ours().record, theirs().record])


def test_indexes_are_carried_in_one_file(indexes: KeptIndexes, tmp_path: Path) -> None:
    first = keep(indexes)
    with indexes.writing(theirs().record) as writer:
        second = writer.keep(state_of(theirs(), []))
    other = elsewhere(tmp_path)
    taken = other.import_file(carried(tmp_path, first, second))
    assert [each.state for each in taken] == [first.state, second.state]
    assert [list(each.read()) for each in other.all().kept] == [list(first.read()), []]


def test_a_carried_index_that_is_older_is_refused_unless_it_is_asked_for(indexes: KeptIndexes, tmp_path: Path) -> None:
    old = carried(tmp_path, keep(indexes, RECORDS[:1]))
    newer = keep(indexes, RECORDS, state_of(ours(), RECORDS, time=TIME + 1))
    with pytest.raises(Conflict) as refused:
        indexes.import_file(old)
    assert refused.value.code == "FILE-INDEX-OLDER"
    assert indexes.all().kept == (newer,)
    assert [each.state.records for each in indexes.import_file(old, again=True)] == [1]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data[:-1], id="cut"),
        pytest.param(lambda data: data + b"x", id="more"),
        pytest.param(lambda data: data[:-1] + bytes((data[-1] ^ 1,)), id="a changed byte"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"PK" + data, id="another file"),
    ],
)
def test_a_damaged_file_is_refused_and_what_was_here_stays(
    indexes: KeptIndexes, tmp_path: Path, change: object
) -> None:
    assert callable(change)
    path = carried(tmp_path, keep(indexes))
    path.write_bytes(change(path.read_bytes()))
    before = list(indexes.all().kept[0].read())
    with pytest.raises((Untrusted, Malformed)):
        indexes.import_file(path)
    assert list(indexes.all().kept[0].read()) == before


def test_an_index_of_a_node_that_is_not_pinned_is_refused(indexes: KeptIndexes, tmp_path: Path) -> None:
    path = carried(tmp_path, keep(indexes))
    with pytest.raises(Untrusted) as refused:
        KeptIndexes(elsewhere(tmp_path).folder, [theirs().record]).import_file(path)
    assert refused.value.code == "FILE-INDEX-SIGNER"
