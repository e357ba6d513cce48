"""A log as a stranger sees it, who has its public bytes and its key only."""

from __future__ import annotations

from comity.ledger.ledger import Ledger
from comity.rules.tiles import ENTRIES, Tile, decode_entries, tile_at, tile_node_reader, tiles_between
from comity.rules.tree_proofs import MemoryTree, tree_root
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, open_checkpoint
from support.logs import LogKeys


def read_log(ledger: Ledger, keys: LogKeys, size: int) -> tuple[list[bytes], MemoryTree]:
    """The first `size` entries and the tree over them, from entry bundles; every hash tile must agree with it."""
    lines: list[bytes] = []
    for number in range(-(-size // 256)):
        tile = tile_at(size, ENTRIES, number)
        lines += decode_entries(ledger.history.tile(keys.origin, tile))
    assert len(lines) == size
    tree = MemoryTree(map(leaf_hash, lines))
    for tile in tiles_between(0, size):
        hashes = [tree.node(8 * tile.level, tile.index * 256 + nth) for nth in range(tile.width)]
        assert ledger.history.tile(keys.origin, tile) == b"".join(hashes)
    return lines, tree


def signed_checkpoint(ledger: Ledger, keys: LogKeys, size: int | None = None) -> Checkpoint:
    """The checkpoint that is published, as bytes; its signature must verify."""
    note = SignedNote.parse(ledger.cosignatures.cosigned(keys.origin, size).encode())
    return open_checkpoint(note, keys.verifier)


def root_from_tiles(ledger: Ledger, keys: LogKeys, size: int) -> bytes:
    def load(tile: Tile) -> bytes:
        return ledger.history.tile(keys.origin, tile)

    return tree_root(size, tile_node_reader(size, load))
