"""How the nodes of the pinned federations are, as seen from here; and whether their logs still tell one history."""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.errors import ComityError
from comity.trust.tlog.checkpoint import open_checkpoint
from comity.trust.tlog.cosignature import verified_cosigners
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.wire.client import NodeClient
from comity.wire.values import LogHead, NodeFacts

from comity_client.events import Alarm, OnEvent
from comity_client.evidence.heads import consistency_proofs, meet
from comity_client.nodes.session import RemoteNode, Session
from comity_client.owner.memory import ALARMS, Memory


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it answers now. `size` is of its own log, None where its checkpoint is not at hand; `cosigners` are the
    names that verify on it; `logs` counts the logs that it holds. `gateway` is the URL at which it claims to have one.
    `why` says why it is not `reachable`."""

    name: str
    member: str
    jurisdiction: str
    addresses: tuple[str, ...]
    reachable: bool
    why: str = ""
    software: str = ""
    origin: str = ""
    size: int | None = None
    cosigners: tuple[str, ...] = ()
    logs: int = 0
    misbehaviour: int = 0
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    facts: NodeFacts
    heads: tuple[LogHead, ...]
    misbehaviour: int


async def node_states(session: Session, memory: Memory, on_event: OnEvent) -> list[NodeState]:
    """Ask every node how it is. Each checkpoint of a pinned log meets what is remembered; contradictions are alarms."""
    answers = await session.ask(_ask)
    keys = {node.record.origin: node.record.log for node in session.nodes}
    notes = {
        (head.origin, head.note)
        for answer in answers.found.values()
        for head in answer.heads
        if head.note and head.origin in keys
    }
    for origin, note in sorted(notes, key=lambda item: item[0]):
        await _meet(session, memory, keys[origin], note, on_event)
    return [_state(session, node, answers.found.get(node), str(answers.failed.get(node, ""))) for node in session.nodes]


async def _ask(node: NodeClient) -> _Answer:
    return _Answer(await node.node(), await node.logs(), len(await node.misbehaviour()))


async def _meet(session: Session, memory: Memory, log: VerifierKey, note: bytes, on_event: OnEvent) -> None:
    try:
        await meet(memory, log, SignedNote.parse(note), consistency_proofs(session))
    except ComityError as error:  # else: the log did not sign it, or nobody links it: not evidence of anything
        if error.code in ALARMS:
            on_event(Alarm(str(error), error.hint))


def _state(session: Session, node: RemoteNode, answer: _Answer | None, why: str) -> NodeState:
    known = (node.name, node.member.name, node.jurisdiction, node.addresses)
    if answer is None:
        return NodeState(*known, reachable=False, why=why, origin=node.record.origin)
    size, cosigners = _own_head(session, node, answer.heads)
    return NodeState(
        *known,
        reachable=True,
        software=answer.facts.software,
        origin=node.record.origin,
        size=size,
        cosigners=cosigners,
        logs=len(answer.heads),
        misbehaviour=answer.misbehaviour,
        gateway=str(answer.facts.gateway or ""),
    )


def _own_head(session: Session, node: RemoteNode, heads: tuple[LogHead, ...]) -> tuple[int | None, tuple[str, ...]]:
    for head in heads:
        if head.origin != node.record.origin or not head.note:
            continue
        try:
            note = SignedNote.parse(head.note)
            checkpoint = open_checkpoint(note, node.record.log)
            keys = [key for other in session.nodes for key in other.record.cosigners]
            cosigners = {key.name for key in verified_cosigners(note, keys, checkpoint)}
        except ComityError:
            continue
        return checkpoint.size, tuple(sorted(cosigners))
    return None, ()
