"""What nodes keep against logs: proofs of misbehaviour, asked for and judged again here. No node can convict a log by
its word alone; and a log has a key to judge it by only where a pinned federation gives one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from comity.trust.errors import ComityError
from comity.trust.tlog.misbehaviour import convict
from comity.wire.values import Misbehaviour

from comity_client.evidence.catalogue import log_keys
from comity_client.nodes.session import RemoteNode, Session


@dataclass(frozen=True, slots=True)
class Accusation:
    """A proof that nodes show against a log. `why` says why it is not `proven` here: then it is no more than a claim of
    those nodes."""

    kind: str
    log: str
    parts: tuple[bytes, ...]
    nodes: tuple[str, ...]
    proven: bool
    why: str = ""


async def accusations(session: Session, names: Sequence[str] = ()) -> list[Accusation]:
    """What the named nodes keep, or all of them; each proof once, whoever shows it.

    Raises NotFound for a name that nobody has, and where nobody answers what kept them from it.
    """
    told = await _told(session, [session.named(name) for name in names])
    found: dict[Misbehaviour, Accusation] = {}
    for node, proofs in told.items():
        for proof in {replace(proof, parts=tuple(sorted(proof.parts))) for proof in proofs}:
            known = found.get(proof) or _judged(session, proof)
            found[proof] = replace(known, nodes=(*known.nodes, node.name))
    return sorted(found.values(), key=lambda item: (not item.proven, item.log, item.kind))


async def _told(session: Session, nodes: Sequence[RemoteNode]) -> dict[RemoteNode, tuple[Misbehaviour, ...]]:
    if nodes:
        return {node: await node.ask(lambda client: client.misbehaviour()) for node in nodes}
    answers = await session.ask(lambda client: client.misbehaviour())
    if not answers.found:
        raise answers.failure("nobody says what is kept against logs")
    return dict(answers.found)


def _judged(session: Session, proof: Misbehaviour) -> Accusation:
    claim = Accusation(proof.kind, proof.origin, proof.parts, (), proven=False, why="no pinned federation has this log")
    for key in log_keys(session, proof.origin):
        try:
            convict(proof.kind, proof.parts, key)
        except ComityError as error:
            claim = replace(claim, why=str(error))
        else:
            return replace(claim, proven=True, why="")
    return claim
