"""Which proofs of a line are fetched: two nodes give theirs, and the others say what theirs have.

A proof with the cosignatures of all members is large, and most nodes have the same. What a node says of its proof is a
claim and only widens the choice: the best proofs are chosen from those that were fetched, by what they prove. A proof
that is said to be better than these is fetched too, the best one first, and then twice as many each time: so a node
that says more than it has costs little, and one that has the best proof is asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from comity.rules.collected import best_proofs
from comity.trust.bound_nodes import BoundNode
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.frozen import frozen
from comity.trust.key_validity import prove_entry
from comity.trust.statement import Entry
from comity.wire.client import NodeClient
from comity.wire.log import LocatedProof, ProofSummary

from comity_client.session import Question, RemoteNode, Session

IN_FULL: Final = 2
"""Nodes that give their proofs at once, where there are more than `FEW`."""
FEW: Final = 4
"""Nodes that all give their proofs: these are small then."""


def proofs_of(entry: Entry, located: Iterable[LocatedProof | ProofSummary]) -> list[InclusionEvidence]:
    """The offered proofs of a line, each once."""
    found = (InclusionEvidence(entry.digest, item.proof) for item in located if isinstance(item, LocatedProof))
    return list(dict.fromkeys(found))


async def offered_proofs(session: Session, entry: Entry, bound: tuple[BoundNode, ...]) -> tuple[InclusionEvidence, ...]:
    """Return proofs of a line, not verified: among them are the best that the nodes that answer have, in each log."""
    count = IN_FULL if len(session.nodes) > FEW else FEW
    full = frozenset(session.soonest(session.nodes, count))
    answers = await session.ask_each(lambda node: _asked(entry, brief=node not in full), session.nodes)
    offered, worth = dict[InclusionEvidence, None](), _Worth(entry, bound, session.reader)
    said = dict[RemoteNode, list[ProofSummary]]()
    for node, items in answers.found.items():
        offered |= dict.fromkeys(proofs_of(entry, items))
        said[node] = [item for item in items if isinstance(item, ProofSummary)]
    count = 1
    while better := worth.better(said, offered):
        asked, count = better[:count], 2 * count
        more = await session.ask_each(lambda node: _asked(entry, brief=False), asked, enough=lambda found: True)
        for items in more.found.values():
            offered |= dict.fromkeys(proofs_of(entry, items))
        said = {node: items for node, items in said.items() if node not in asked}
    return tuple(offered)


def _asked(entry: Entry, *, brief: bool) -> Question[Sequence[LocatedProof | ProofSummary]]:
    async def ask(node: NodeClient) -> Sequence[LocatedProof | ProofSummary]:
        return await (node.proofs_in_brief(entry.digest) if brief else node.proofs(entry.digest))

    return ask


@frozen
class _Worth:
    """Compares proofs of a line as `best_proofs` does: by the members who cosigned, then by the size of the tree."""

    entry: Entry
    bound: tuple[BoundNode, ...]
    reader: EvidenceReader

    def better(
        self, said: Mapping[RemoteNode, Iterable[ProofSummary]], offered: Iterable[InclusionEvidence]
    ) -> list[RemoteNode]:
        """The nodes that say of a proof that it is better than those that were offered, the best ones first."""
        here: dict[str, tuple[int, int]] = {}
        for kept in best_proofs(self.entry, offered, self.bound, self.reader):
            for each in prove_entry(self.entry, (kept.proof,), self.bound, self.reader)[0]:
                here[each.log] = each.cosigning_members, each.size
        found: dict[RemoteNode, tuple[int, int]] = {}
        for node, items in said.items():
            claims = [claim for item in items for log, claim in self._claims(item) if claim > here.get(log, (-1, -1))]
            if claims:
                found[node] = max(claims)
        return sorted(found, key=lambda node: found[node], reverse=True)

    def _claims(self, item: ProofSummary) -> Iterator[tuple[str, tuple[int, int]]]:
        """The worth of a proof by what is said of it, in each bound log that it may be from."""
        ids = frozenset(item.signers)
        members = {b.member.lineage for b in self.bound if any(key.key_id in ids for key in b.record.cosigners)}
        for log in {b.record.log for b in self.bound if b.record.origin == item.origin}:
            if log.key_id in ids:
                yield str(log), (len(members), item.size)
