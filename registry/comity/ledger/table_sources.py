"""From where each table of a ledger can be made again. The one list of it: the repair of damaged pages, `comity doctor`
and docs/operations/repair.md follow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from comity.ledger import name_search, schema


class Source(StrEnum):
    """What a table is made from; the value tells people."""

    ENTRIES = "derived from the entries of all logs, which the node verifies again"
    BLOBS = "derived from the files of the store when they are read"
    COSIGNERS = "collected again with the next checkpoint of each log"
    PROOF = "from this ledger or from peers, under a proof to a signed checkpoint"
    LINES = "computed from the lines of the logs at once"
    HERE = "only in this ledger"


SOURCES: Final[Mapping[str, Source]] = {
    schema.logs.name: Source.HERE,
    schema.entries.name: Source.PROOF,
    schema.tiles.name: Source.LINES,
    schema.log_objects.name: Source.LINES,
    schema.outside_shares.name: Source.HERE,
    schema.checkpoints.name: Source.HERE,
    schema.cosignatures.name: Source.COSIGNERS,
    schema.witnessed.name: Source.HERE,
    schema.statements.name: Source.ENTRIES,
    schema.subjects.name: Source.ENTRIES,
    schema.identities.name: Source.ENTRIES,
    schema.rotations.name: Source.ENTRIES,
    schema.nodes.name: Source.ENTRIES,
    schema.publications.name: Source.ENTRIES,
    schema.claimants.name: Source.ENTRIES,
    schema.intake.name: Source.ENTRIES,
    schema.side_object_positions.name: Source.ENTRIES,
    schema.kept_positions.name: Source.ENTRIES,
    schema.replicas.name: Source.ENTRIES,
    schema.lacking_replicas.name: Source.ENTRIES,
    schema.waiting_copies.name: Source.ENTRIES,
    schema.mirror_charges.name: Source.ENTRIES,
    schema.proven_times.name: Source.ENTRIES,
    schema.pins.name: Source.HERE,
    schema.parked.name: Source.ENTRIES,
    schema.revisits.name: Source.ENTRIES,
    schema.misbehaviour.name: Source.HERE,
    schema.piece_records.name: Source.BLOBS,
    schema.pieces.name: Source.BLOBS,
    schema.charter_epochs.name: Source.HERE,
    schema.asks.name: Source.HERE,
    schema.writer.name: Source.HERE,
    schema.writer_heartbeat.name: Source.HERE,
    schema.marks.name: Source.HERE,
    name_search.TABLE: Source.ENTRIES,
}
"""By table. Tables of ENTRIES are made again together, because their rows refer to each other by numbers that depend on
the order of the verification; so are those of BLOBS. A time in `proven_times` is lost with them: what was known before
counts as known since the repair, so that a copy that waits for an age waits again."""


def emptied_with(tables: frozenset[str]) -> frozenset[str]:
    """The tables that are made again, empty at first, if these are damaged."""
    together = {source_of(table) for table in tables} & {Source.ENTRIES, Source.BLOBS}
    alone = {table for table in tables if source_of(table) in (Source.COSIGNERS, Source.LINES)}
    return frozenset(alone | {table for table, source in SOURCES.items() if source in together})


def source_of(table: str) -> Source:
    """Of a table of the database. The index of names is several tables with its name in front of theirs. One that this
    version does not know is made again by nobody."""
    return SOURCES[name_search.TABLE] if table.startswith(f"{name_search.TABLE}_") else SOURCES.get(table, Source.HERE)
