"""What logs say about nodes: new ones, by records that the charter proves, and where known ones listen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comity.ledger.index import Query
from comity.ledger.ledger import Ledger
from comity.node.core import Core
from comity.node.membership import Peer
from comity.node.services.facts import newest_addresses
from comity.trust.claims import Addresses, parse_addresses, signed_by_node
from comity.trust.errors import ComityError
from comity.trust.node_record import NodeRecord
from comity.trust.statement import Entry, parse_entry


@dataclass(frozen=True, slots=True)
class _Said:
    records: tuple[Entry, ...]
    addresses: dict[str, Addresses]


async def get_acquainted(core: Core, log: str) -> tuple[Peer, ...]:
    """Read what a log says about nodes; the peers that were new."""
    members = core.membership
    said = await core.pools.ledger(_read, core.ledger, log, [peer.record for peer in members.peers])
    new = members.learn(said.records)
    for where, addresses in said.addresses.items():
        members.relocate(where, addresses)
    return new


def _read(ledger: Ledger, log: str, records: Sequence[NodeRecord]) -> _Said:
    found = ledger.index.find(Query(predicate="node-record", origin=log), limit=1000)
    addresses = {record.origin: _addresses(ledger, record) for record in records if str(record.log) == log}
    return _Said(
        tuple(parse_entry(item.line) for item in found),
        {where: said for where, said in addresses.items() if said is not None},
    )


def _addresses(ledger: Ledger, record: NodeRecord) -> Addresses | None:
    line = newest_addresses(ledger, record)
    if line is None:
        return None
    try:
        entry = parse_entry(line)
        return parse_addresses(entry.statement) if signed_by_node(entry, record) else None
    except ComityError:
        return None
