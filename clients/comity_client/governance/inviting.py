"""A federation file out of what was verified here: for a newcomer, or for one's own next pin.

It brings the whole chain of charters with their certificates, so that whoever reads it proves it again, and the nodes.
What it cannot prove is that this *is* the federation they were told about: they take it from two members by separate
ways, and have the words read out. Source: protocol, section 7.9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.federation import Federation, FederationNode, prove_record
from comity.trust.identity import check_inception
from comity.trust.rotation import Chains
from comity.trust.spelling import syllables
from comity.trust.statement import Entry
from comity.trust.statements.claims import parse_addresses, signed_by_node
from comity.trust.statements.node_record import NodeRecord, parse_node_record

from comity_client.evidence.proving import readable
from comity_client.governance.sitting import Sitting
from comity_client.nodes.session import Session


@dataclass(frozen=True, slots=True)
class Invitation:
    """A federation file, and what both sides read out to each other."""

    federation: Federation
    data: bytes
    spoken: tuple[tuple[str, str], ...]


def invite(federation: Federation) -> Invitation:
    """`federation` as a file, with the words that name it and its newest charter."""
    spoken = (
        ("federation", syllables(federation.id)),
        (f"epoch {federation.body.epoch}", syllables(federation.body.digest)),
    )
    return Invitation(federation, federation.encode(), spoken)


def extended(federation: Federation, sitting: Sitting, nodes: Iterable[FederationNode] = ()) -> Federation:
    """The file with the epochs that the sitting certified, and with `nodes`; the newest record of a node wins.

    Raises Malformed/Untrusted where a node does not prove itself.
    """
    epochs = sitting.council.epochs
    known = {node.record.name: node for node in (*federation.nodes, *nodes)}
    return Federation.assemble(
        (*federation.chain, *(certificate.body for certificate in epochs)),
        (*federation.certificates, *(certificate.lines for certificate in epochs)),
        known.values(),
    )


def carried_nodes(sitting: Sitting) -> list[FederationNode]:
    """Nodes of current members whose records are among the lines at hand, with the addresses that they gave."""
    records = [entry for entry in sitting.entries if entry.statement.predicate == "node-record"]
    return list(_proven(sitting, records, sitting.entries))


async def announced_nodes(session: Session, sitting: Sitting) -> list[FederationNode]:
    """Nodes of current members, by what the session's nodes say about each member's home log. Proven here."""
    records, said = list[Entry](), list[Entry]()
    for home in _homes(sitting):
        records += await _about(session, sha256(home.encode()), "node-record")
    for entry in records:
        said += await _about(session, parse_node_record(entry).node.id, "addresses")
    return list(_proven(sitting, records, said))


def _homes(sitting: Sitting) -> list[str]:
    """Home logs of current members, by their inceptions at hand."""
    homes = dict[str, None]()
    for entry in sitting.entries:
        if entry.statement.predicate == "inception":
            with contextlib.suppress(ComityError):
                record = check_inception(entry)
                if record.home and sitting.current.member(record.id) is not None:
                    homes[record.home] = None
    return list(homes)


async def _about(session: Session, subject: Digest, predicate: str) -> list[Entry]:
    answers = await session.ask(lambda client: client.claims(subject))
    lines = dict.fromkeys(located.line for found in answers.found.values() for located in found)
    entries = (readable(line) for line in lines)
    return [entry for entry in entries if entry is not None and entry.statement.predicate == predicate]


def _proven(sitting: Sitting, records: Iterable[Entry], said: Iterable[Entry]) -> Iterable[FederationNode]:
    """Records that a current member signed, with the newest addresses that the node itself signed."""
    chains, entries = Chains(sitting.entries), list(said)
    for entry in records:
        try:
            record = prove_record(entry, sitting.current, chains)
        except ComityError:
            continue
        given = [parse_addresses(other.statement) for other in entries if _addresses_of(other, record)]
        mutual, open_ = (given[-1].mutual, given[-1].open) if given else ((), ())
        yield FederationNode(record, entry.line, mutual, open_)


def _addresses_of(entry: Entry, record: NodeRecord) -> bool:
    return entry.statement.predicate == "addresses" and signed_by_node(entry, record)
