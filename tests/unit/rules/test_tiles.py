"""Tiles of logs (C2SP tlog-tiles): their paths and contents."""

from __future__ import annotations

import functools
from itertools import pairwise

import pytest
from comity.rules.tiles import (
    ENTRIES,
    MAX_ENTRY,
    Tile,
    decode_entries,
    encode_entries,
    encode_tile,
    parse_tile_path,
    tile_at,
    tile_node_reader,
    tiles_between,
)
from comity.rules.tree_proofs import MemoryTree, consistency_proof, inclusion_proof
from comity.trust.errors import Malformed
from comity.trust.tlog.merkle import leaf_hash

SIZE = 70_000


@functools.cache
def tree() -> MemoryTree:
    return MemoryTree(leaf_hash(b"%d" % i) for i in range(SIZE))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(1, 999, 17), "tile/1/999.p/17"),
        (Tile(63, 1000, 1), "tile/63/x001/000.p/1"),
        (Tile(ENTRIES, 273, 112), "tile/entries/273.p/112"),
        (Tile(0, 2**63 - 1), "tile/0/x009/x223/x372/x036/x854/x775/807"),
    ],
)
def test_a_tile_has_one_path(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert parse_tile_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/00/001",
        "tile/01/001",
        "tile/-1/001",
        "tile/64/001",
        "tile/data/001",
        "tile/0/001.p/0",
        "tile/0/001.p/01",
        "tile/0/001.p/256",
        "tile/0/001.p/999",
        "tile/0/001.p",
        "tile/0/001.p/",
        "tile/0/001/",
        "/tile/0/001",
        "tile/0/001\n",
        "tile/0/../001",
        "tile/0/٠٠١",
        "tile/0/x009/x223/x372/x036/x854/x775/808",
        "tile/0/" + "x001/" * 1000 + "001",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(Malformed) as refusal:
        parse_tile_path(path)
    assert refusal.value.code == "TILE"


@pytest.mark.parametrize(("level", "index", "width"), [(-2, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_numbers_that_name_no_tile_are_refused(level: int, index: int, width: int) -> None:
    with pytest.raises(Malformed):
        Tile(level, index, width)


def test_seventy_thousand_entries_make_the_tiles_of_the_specification() -> None:
    tiles = tiles_between(0, SIZE)
    assert [tile for tile in tiles if not tile.full] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert sum(tile.full for tile in tiles if tile.level == 0) == 273
    assert sum(tile.full for tile in tiles if tile.level == 1) == 1


def test_a_full_tile_puts_one_hash_on_the_next_level() -> None:
    assert tiles_between(0, 256) == [Tile(0, 0), Tile(1, 0, 1)]


def test_growth_names_new_tiles_only() -> None:
    assert tiles_between(5, 5) == []
    assert tiles_between(5, 6) == [Tile(0, 0, 6)]
    assert tiles_between(255, 257) == [Tile(0, 0), Tile(0, 1, 1), Tile(1, 0, 1)]
    assert tiles_between(256, 257) == [Tile(0, 1, 1)]
    assert tiles_between(65_535, 65_536) == [Tile(0, 255), Tile(1, 0), Tile(2, 0, 1)]


@pytest.mark.parametrize(("old", "new"), [(-1, 0), (2, 1), (0, 2**63)])
def test_a_log_does_not_shrink(old: int, new: int) -> None:
    with pytest.raises(Malformed):
        tiles_between(old, new)


def test_steps_of_growth_add_up_to_the_whole() -> None:
    sizes = [0, 1, 2, 255, 256, 257, 300, 511, 512, 513, 1000]
    store: dict[str, bytes] = {}
    for old, new in pairwise(sizes):
        for tile in tiles_between(old, new):
            assert tile.path not in store
            store[tile.path] = encode_tile(tile, tree().node)
        assert {tile.path for tile in tiles_between(0, new)} <= store.keys()


@pytest.fixture(scope="module")
def store() -> dict[Tile, bytes]:
    return {tile: encode_tile(tile, tree().node) for tile in tiles_between(0, SIZE)}


def test_tiles_hold_the_hashes_that_proofs_need(store: dict[Tile, bytes]) -> None:
    node = tile_node_reader(SIZE, store.__getitem__)
    for index in (0, 1, 255, 256, 65_535, 65_536, SIZE - 113, SIZE - 1):
        assert inclusion_proof(index, SIZE, node) == inclusion_proof(index, SIZE, tree().node)
    for old in (0, 1, 2, 255, 256, 300, 65_536, 65_537, SIZE - 1, SIZE):
        assert consistency_proof(old, SIZE, node) == consistency_proof(old, SIZE, tree().node)


def test_every_complete_subtree_is_read_from_tiles(store: dict[Tile, bytes]) -> None:
    node = tile_node_reader(SIZE, store.__getitem__)
    for level in range(17):
        for index in {0, (SIZE >> level) // 2, (SIZE >> level) - 1}:
            assert node(level, index) == tree().node(level, index)


@pytest.mark.parametrize(("level", "index"), [(-1, 0), (0, -1), (0, SIZE), (1, SIZE // 2), (17, 0), (10_000_000, 0)])
def test_a_subtree_outside_the_log_is_not_read(level: int, index: int) -> None:
    with pytest.raises(Malformed) as refusal:
        tile_node_reader(SIZE, lambda tile: b"")(level, index)
    assert refusal.value.code == "RANGE"


@pytest.mark.parametrize("length", [0, 31, 2 * 32, 3 * 32 + 1, 256 * 32])
def test_a_tile_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(Malformed) as refusal:
        tile_node_reader(3, lambda tile: bytes(length))(0, 0)
    assert refusal.value.code == "TILE"


def test_a_tile_beyond_the_log_is_empty_and_refused() -> None:
    assert tile_at(SIZE, 1, 1) == Tile(1, 1, 17)
    assert tile_at(SIZE, ENTRIES, 273) == Tile(ENTRIES, 273, 112)
    with pytest.raises(Malformed):
        tile_at(256, 0, 1)


def test_entries_are_printed_after_their_length() -> None:
    assert encode_entries([b"one", b"", b"three"]) == b"\x00\x03one\x00\x00\x00\x05three"


@pytest.mark.parametrize("entries", [[], [b""], [b"a", b"bc"], [b"x" * MAX_ENTRY] * 2, [b"e"] * 256])
def test_an_entry_bundle_is_parsed_back(entries: list[bytes]) -> None:
    assert decode_entries(encode_entries(entries)) == entries


@pytest.mark.parametrize("entries", [[b"x" * (MAX_ENTRY + 1)], [b""] * 257])
def test_entries_that_do_not_fit_in_an_entry_bundle_are_refused(entries: list[bytes]) -> None:
    with pytest.raises(Malformed):
        encode_entries(entries)


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x01", b"\x00\x03ab", b"\x00\x00\x00", b"\x00\x00" * 257])
def test_an_entry_bundle_that_ends_early_or_late_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as refusal:
        decode_entries(data)
    assert refusal.value.code == "ENTRIES"
