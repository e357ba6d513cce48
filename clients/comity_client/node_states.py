"""The state of each node of the pinned federations: what it tells of itself, and its log beside what was seen before.

Loads neither what judges artifacts nor what reads claims: people look at their nodes all day.
"""

from __future__ import annotations

from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.tlog.note import VerifierKey, open_checkpoint
from comity.wire.client import NodeClient
from comity.wire.log import LogHead
from comity.wire.node import NodeFacts, ReplicaCounts

from comity_client.events import MisbehaviourFound, OnEvent, ignore_event
from comity_client.seen import CONTRADICTION_CODES, SeenLogs, consistency_proofs, cosigner_names, reconcile_checkpoint
from comity_client.session import RemoteNode, Session
from comity_client.uplink import find_node
from comity_client.user import User


def ask_node_states(user: User, on_event: OnEvent = ignore_event, node: str = "") -> list[NodeState]:
    """Return the state of every known node, or of the one that `node` names. `on_event` gets logs that contradict an
    earlier checkpoint. Raises as `find_node` does."""

    async def work(session: Session) -> list[NodeState]:
        named = await find_node(session, node) if node else None
        states = await node_states(session, user.seen_logs(), on_event)
        return [state for state in states if named is None or state.origin == named.record.origin]

    return user.run(work, on_event)


@frozen
class NodeState:
    """State of a node. `size` of its own log is None without a checkpoint; `cosigners` are verified on it; `logs`:
    number of logs that it has. `gateway`: claimed URL. `replicas`: claimed counts, None from older software. `former`:
    the pinned charter no longer lists its member. `why`: reason if not `reachable`."""

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
    replicas: ReplicaCounts | None = None
    former: bool = False


@frozen
class _NodeAnswer:
    facts: NodeFacts
    heads: tuple[LogHead, ...]
    misbehaviour: int


async def node_states(session: Session, seen_logs: SeenLogs, on_event: OnEvent) -> list[NodeState]:
    """Query every node. Checkpoints of pinned logs are reconciled with the stored ones; contradictions are reported."""
    answers = await session.ask(_query_node)
    keys = {str(node.record.log): node.record.log for node in session.nodes}
    heads = (head for answer in answers.found.values() for head in answer.heads)
    notes = dict.fromkeys((head.vkey, head.note) for head in heads if head.note and head.vkey in keys)
    for log, note in sorted(notes, key=lambda item: item[0]):
        await _reconcile(session, seen_logs, keys[log], note, on_event)
    return [_state(session, node, answers.found.get(node), str(answers.failed.get(node, ""))) for node in session.nodes]


async def _query_node(node: NodeClient) -> _NodeAnswer:
    return _NodeAnswer(await node.node(), await node.logs(), len(await node.misbehaviour()))


async def _reconcile(session: Session, seen_logs: SeenLogs, log: VerifierKey, note: bytes, on_event: OnEvent) -> None:
    try:
        await reconcile_checkpoint(seen_logs, log, session.reader.note(note), consistency_proofs(session))
    except (
        ComityError
    ) as error:  # other errors: not signed by the log, or no consistency proof; no evidence of misbehaviour
        if error.code in CONTRADICTION_CODES:
            on_event(MisbehaviourFound(str(error), error.hint))


def _state(session: Session, node: RemoteNode, answer: _NodeAnswer | None, why: str) -> NodeState:
    known = (node.name, node.member.name, node.jurisdiction, node.addresses)
    if answer is None:
        return NodeState(*known, reachable=False, why=why, origin=node.record.origin, former=node.former)
    size, cosigners = _own_checkpoint(session, node, answer.heads)
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
        replicas=answer.facts.replicas,
        former=node.former,
    )


def _own_checkpoint(
    session: Session, node: RemoteNode, heads: tuple[LogHead, ...]
) -> tuple[int | None, tuple[str, ...]]:
    for head in heads:
        if head.origin != node.record.origin or not head.note:
            continue
        try:
            note = session.reader.note(head.note)
            checkpoint = open_checkpoint(note, node.record.log)
            cosigners = cosigner_names(session, note, checkpoint)
        except ComityError:
            continue
        return checkpoint.size, cosigners
    return None, ()
