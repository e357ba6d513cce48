"""A drill of a real federation: what its nodes answer, given to `trust.party_drill`; and the page about the result.

It reads only. The copies are what one node computes from the logs; which logs a node has, and whether it answers, is
asked of every node. Entries that were logged just now are on their way to the other nodes, so those are asked again for
some seconds while the loss of one party would take entries from which the copies were computed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from comity.trust.copies import CopyPolicy, Party
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.party_drill import (
    CA_STORE,
    CLOCK,
    DNS,
    HUB,
    DrillArtifact,
    DrillInput,
    DrillNode,
    PartyOutcome,
    drill,
)
from comity.trust.places import Reach, declared_reach
from comity.trust.tlog.note import SignedNote, open_checkpoint
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.log import LogHead
from comity_client.copies import CopyList, copies_of_federation
from comity_client.reports import page_template
from comity_client.session import RemoteNode, Session

ARRIVAL_TIME: Final = 10
"""Seconds in which entries that were logged just now reach the other nodes; news takes one or two."""
PAUSE: Final = 0.5
"""Seconds between two questions."""
KIND_WORDS: Final[Mapping[str, str]] = {
    "member": "member",
    "jurisdiction": "jurisdiction",
    "reach": "law of",
    "cloud": "cloud",
    "publisher": "publisher",
    HUB: "hub",
    DNS: "DNS",
    CA_STORE: "CA store",
    CLOCK: "clock",
}


@dataclass(frozen=True, slots=True)
class FederationDrill:
    """The outcome for each party. `source` is the node whose computation of copies was used; `silent` are the nodes
    that did not answer; `names` has names of members by id."""

    source: str
    outcomes: tuple[PartyOutcome, ...]
    silent: tuple[str, ...]
    names: Mapping[Digest, str]
    policy: CopyPolicy
    artifacts: int

    @property
    def survived(self) -> int:
        """The parties whose loss every artifact survives."""
        return sum(outcome.survived for outcome in self.outcomes)

    def name(self, party: Party) -> str:
        """The name of a member, if it is known; otherwise what identifies the party; empty for one of a kind."""
        return self.names.get(Digest(party.name), party.name) if party.kind == "member" else party.name


async def drill_federation(session: Session, node: str = "", hubs: Sequence[str] = ()) -> FederationDrill:
    """Raises NotFound, Unavailable if no node lists copies."""
    listed = await copies_of_federation(session, node)
    source = session.named(listed.source)
    read = _sizes(await source.ask(_heads), session)  # after the list, so at least what the list was computed from
    artifacts = tuple(
        DrillArtifact(item.artifact, listed.label(item), listed.holders(item)) for item in listed.artifacts
    )
    publishers = tuple(sorted({publisher for pin in session.pins for publisher in pin.body.namespaces.values()}))
    given = DrillInput((), artifacts, listed.policy, read, publishers, tuple(hubs))
    given = await _with_nodes(given, session, declared_places(listed))
    silent = tuple(item.name for item in given.nodes if not item.answers)
    return FederationDrill(listed.source, drill(given), silent, listed.names, listed.policy, len(artifacts))


async def _with_nodes(given: DrillInput, session: Session, declared: Mapping[Digest, tuple[Reach, str]]) -> DrillInput:
    """The same, with what each node answers now; asked again while entries that were read may be on their way."""
    clock = asyncio.get_running_loop().time
    ends = clock() + ARRIVAL_TIME
    while True:
        answers = await session.ask(_heads)
        nodes = tuple(
            _node(remote, answers.found.get(remote), session, declared) for remote in session.nodes if not remote.former
        )
        given = replace(given, nodes=nodes)
        if not given.on_their_way() or clock() >= ends:
            return given
        await asyncio.sleep(PAUSE)


async def _heads(node: NodeClient) -> tuple[LogHead, ...]:
    return await node.logs()


def declared_places(listed: CopyList) -> dict[Digest, tuple[Reach, str]]:
    """Reach and cloud by node, as the node that lists the copies reads them in the newest records."""
    copies = (item.copy for artifact in listed.artifacts for item in artifact.copies)
    return {copy.node: (copy.reach, copy.cloud) for copy in copies}


def _node(
    remote: RemoteNode,
    heads: Sequence[LogHead] | None,
    session: Session,
    declared: Mapping[Digest, tuple[Reach, str]],
) -> DrillNode:
    """A node, with the place that its newest known record declares: a pin may have an older one."""
    place = remote.record.place
    pinned = declared_reach(remote.jurisdiction, place), place.cloud if place else ""
    reach, cloud = declared.get(remote.record.node.id, pinned)
    return DrillNode(
        name=remote.name,
        member=remote.member.id,
        jurisdiction=remote.jurisdiction,
        reach=reach,
        cloud=cloud,
        answers=heads is not None,
        numeric=any(Address.parse(address).target.startswith("ipv") for address in remote.addresses),
        entries=_sizes(heads or (), session),
    )


def _sizes(heads: Sequence[LogHead], session: Session) -> dict[str, int]:
    """The sizes of the logs of known nodes by verifier key, by checkpoints that these logs signed."""
    writers = {str(remote.record.log): remote.record.log for remote in session.nodes}
    found = {}
    for head in heads:
        key = writers.get(head.vkey)
        if key is None or not head.note:
            continue
        try:
            found[head.vkey] = open_checkpoint(SignedNote.parse(head.note), key).size
        except ComityError:
            continue  # not a checkpoint of this log: as if the node did not have it
    return found


def render_drill(found: FederationDrill, when: str) -> str:
    """The page: self-contained HTML without a script."""
    return page_template("party-drill.html").render(drill=found, when=when, kinds=KIND_WORDS)
