"""From where each table of a ledger can be made again. The one list of it: the repair of damaged pages, `comity doctor`
and docs/operations/repair.md follow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from comity.ledger import name_search, schema


class TableSource(StrEnum):
    """What a table is made from; the value tells people."""

    ENTRIES = "derived from the entries of all logs, which the node verifies again"
    BLOBS = "derived from the files of the store when they are read"
    COSIGNERS = "collected again with the next checkpoint of each log"
    PROOF = "from this ledger or from peers, under a proof to a signed checkpoint"
    LINES = "computed from the lines of the logs at once"
    HERE = "only in this ledger"


SOURCES: Final[Mapping[str, TableSource]] = {
    schema.logs.name: TableSource.HERE,
    schema.entries.name: TableSource.PROOF,
    schema.tiles.name: TableSource.LINES,
    schema.log_objects.name: TableSource.LINES,
    schema.outside_shares.name: TableSource.HERE,
    schema.checkpoints.name: TableSource.HERE,
    schema.cosignatures.name: TableSource.COSIGNERS,
    schema.witnessed.name: TableSource.HERE,
    schema.statements.name: TableSource.ENTRIES,
    schema.subjects.name: TableSource.ENTRIES,
    schema.identities.name: TableSource.ENTRIES,
    schema.rotations.name: TableSource.ENTRIES,
    schema.nodes.name: TableSource.ENTRIES,
    schema.publications.name: TableSource.ENTRIES,
    schema.claimants.name: TableSource.ENTRIES,
    schema.intake.name: TableSource.ENTRIES,
    schema.side_object_positions.name: TableSource.ENTRIES,
    schema.kept_positions.name: TableSource.ENTRIES,
    schema.replicas.name: TableSource.ENTRIES,
    schema.lacking_replicas.name: TableSource.ENTRIES,
    schema.waiting_copies.name: TableSource.ENTRIES,
    schema.mirror_charges.name: TableSource.ENTRIES,
    schema.proven_times.name: TableSource.ENTRIES,
    schema.pins.name: TableSource.HERE,
    schema.parked.name: TableSource.ENTRIES,
    schema.revisits.name: TableSource.ENTRIES,
    schema.misbehaviour.name: TableSource.HERE,
    schema.piece_records.name: TableSource.BLOBS,
    schema.pieces.name: TableSource.BLOBS,
    schema.charter_epochs.name: TableSource.HERE,
    schema.asks.name: TableSource.HERE,
    schema.writer.name: TableSource.HERE,
    schema.writer_heartbeat.name: TableSource.HERE,
    schema.marks.name: TableSource.HERE,
    name_search.TABLE: TableSource.ENTRIES,
}
"""By table. Tables of ENTRIES are made again together, because their rows refer to each other by numbers that depend on
the order of the verification; so are those of BLOBS. A time in `proven_times` is lost with them: what was known before
counts as known since the repair, so that a copy that waits for an age waits again."""


def emptied_with(tables: frozenset[str]) -> frozenset[str]:
    """The tables that are made again, empty at first, if these are damaged."""
    together = {source_of(table) for table in tables} & {TableSource.ENTRIES, TableSource.BLOBS}
    alone = {table for table in tables if source_of(table) in (TableSource.COSIGNERS, TableSource.LINES)}
    return frozenset(alone | {table for table, source in SOURCES.items() if source in together})


def source_of(table: str) -> TableSource:
    """Of a table of the database. The index of names is several tables with its name in front of theirs. One that this
    version does not know is made again by nobody."""
    return (
        SOURCES[name_search.TABLE]
        if table.startswith(f"{name_search.TABLE}_")
        else SOURCES.get(table, TableSource.HERE)
    )
