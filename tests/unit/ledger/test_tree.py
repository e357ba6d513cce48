"""Hash tiles of a log in the ledger, and its checkpoints: what is stored, and which damage is found when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger import schema
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.ledger import Ledger
from comity.ledger.tree import (
    all_heads,
    extend_tree,
    head_at,
    newest_head,
    node_reader,
    read_tile,
    root_at,
    root_mismatch,
    signed_head,
    split_hashes,
    store_head,
)
from comity.rules.tiles import Tile
from comity.rules.tree_proofs import consistency_proof
from comity.trust.errors import ComityError, Equivocation, Untrusted
from comity.trust.tlog.merkle import EMPTY_ROOT, leaf_hash, root, verify_consistency
from comity.trust.tlog.note import SignedNote
from sqlalchemy import Connection, select, update
from support.logs import LogKeys

LOG = LogKeys.generate("own.example/log")
LEAVES = [leaf_hash(b"%d" % number) for number in range(600)]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    ledger.logs.create(LOG.origin, LOG.vkey, own=True)
    yield ledger._database
    ledger.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.writing("test") as opened:
        yield opened


@pytest.fixture
def log(connection: Connection) -> LogRow:
    return find_log(connection, LOG.vkey)


@pytest.mark.parametrize("cuts", [(600,), (1, 600), (255, 256, 257, 600), (256, 512, 600), (100, 100, 300, 600)])
def test_a_tree_is_the_same_in_whatever_steps_it_grew(
    connection: Connection, log: LogRow, cuts: tuple[int, ...]
) -> None:
    before = 0
    for size in cuts:
        extend_tree(connection, log, before, LEAVES[before:size])
        before = size
        assert root_at(connection, log, size) == root(LEAVES[:size])
    for size in (0, 1, 255, 256, 257, 511, 512, 600):
        assert root_at(connection, log, size) == root(LEAVES[:size])  # readers of an earlier size use the same rows
    assert read_tile(connection, log, Tile(1, 0, 2)) == b"".join(root(LEAVES[at : at + 256]) for at in (0, 256))
    proof = consistency_proof(100, 600, node_reader(connection, log, 600))
    verify_consistency(100, root(LEAVES[:100]), 600, root(LEAVES), proof)


def test_leaves_that_are_written_again_replace_all_after_them(connection: Connection, log: LogRow) -> None:
    extend_tree(connection, log, 0, LEAVES)
    other = [leaf_hash(b"other %d" % number) for number in range(10)]
    extend_tree(connection, log, 250, other)
    assert root_at(connection, log, 260) == root(LEAVES[:250] + other)
    with pytest.raises(Untrusted) as raised:
        root_at(connection, log, 261)
    assert raised.value.code == "LEDGER-CORRUPT"
    rows = connection.execute(select(schema.tiles.c.level, schema.tiles.c.number))
    assert {(level, number) for level, number in rows} == {(0, 0), (0, 1), (1, 0)}


def test_an_empty_tree_has_no_rows(connection: Connection, log: LogRow) -> None:
    extend_tree(connection, log, 0, [])
    assert connection.execute(select(schema.tiles)).all() == []
    assert root_at(connection, log, 0) == EMPTY_ROOT


@pytest.mark.parametrize("hashes", [b"", b"".join(LEAVES[:4])[:-1], b"".join(LEAVES[:4])])
def test_missing_hashes_are_damage(connection: Connection, log: LogRow, hashes: bytes) -> None:
    extend_tree(connection, log, 0, LEAVES[:5])
    connection.execute(update(schema.tiles).values(hashes=hashes))
    with pytest.raises(Untrusted, match=f"has {len(hashes) // 32} hashes") as raised:
        read_tile(connection, log, Tile(0, 0, 5))
    assert raised.value.code == "LEDGER-CORRUPT"
    with pytest.raises(Untrusted, match="has 0 hashes"):
        read_tile(connection, log, Tile(0, 7, 1))


def test_hashes_beyond_what_is_asked_for_are_left_out(connection: Connection, log: LogRow) -> None:
    extend_tree(connection, log, 0, LEAVES[:5])
    assert split_hashes(read_tile(connection, log, Tile(0, 0, 3))) == LEAVES[:3]


def test_checkpoints_are_found_by_size(connection: Connection, log: LogRow) -> None:
    heads = {size: signed_head(log, LOG.note(size, root(LEAVES[:size]))) for size in (3, 10, 20)}
    for size, head in heads.items():
        store_head(connection, log, head, root(LEAVES[:size]))
        store_head(connection, log, head, root(LEAVES[:size]))  # once
    assert all_heads(connection, log) == list(heads.values())
    assert head_at(connection, log, 10) == heads[10] and head_at(connection, log, 11) is None
    assert newest_head(connection, log) == heads[20]
    assert newest_head(connection, log, up_to=19) == heads[10]
    assert newest_head(connection, log, up_to=20) == heads[20]
    assert newest_head(connection, log, up_to=2) is None
    assert newest_head(connection, log, covering=19) == heads[20]
    assert newest_head(connection, log, covering=20) is None
    assert newest_head(connection, log, covering=10, up_to=19) is None


def test_a_head_keeps_the_signature_of_the_log_alone(log: LogRow) -> None:
    note = LOG.note(3, root(LEAVES[:3]))
    other = LogKeys(LOG.origin, LogKeys.generate(LOG.origin).key).note(3, root(LEAVES[:3]))
    both = SignedNote(note.text, (*other.signatures, *note.signatures))
    assert signed_head(log, both).note == note.encode()
    with pytest.raises(Untrusted):
        signed_head(log, other)
    with pytest.raises(ComityError):
        signed_head(log, LogKeys("far.example/log", LOG.key).note(3, root(LEAVES[:3])))


def test_a_root_that_is_not_that_of_the_entries_is_never_stored(connection: Connection, log: LogRow) -> None:
    right, wrong = root(LEAVES[:3]), root(LEAVES[1:4])
    head = signed_head(log, LOG.note(3, wrong))
    with pytest.raises(Untrusted, match="signed another root") as raised:
        store_head(connection, log, head, right)
    assert raised.value.code == "ROOT-MISMATCH" and not isinstance(raised.value, Equivocation)
    assert all_heads(connection, log) == []
    first = signed_head(log, LOG.note(3, right))
    store_head(connection, log, first, right)
    with pytest.raises(Equivocation) as proven:
        store_head(connection, log, head, right)
    assert proven.value.proof == (first.note, head.note)
    assert not isinstance(root_mismatch(connection, log, signed_head(log, LOG.note(4, wrong)), right), Equivocation)
