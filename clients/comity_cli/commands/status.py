"""`comity status`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import click
from comity.trust.errors import Unavailable
from comity.trust.exit_statuses import EVIDENCE_MISSING, OK, PARTIAL, VERIFICATION_FAILED
from comity.trust.frozen import frozen

from comity_cli.command import Command, examples, output, user
from comity_cli.document import document
from comity_cli.following import follow
from comity_cli.nodes import node_option
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity.wire.node import ReplicaCounts
    from comity_client.events import Event
    from comity_client.node_states import NodeState

WELL: Final = OK
TWO_HISTORIES: Final = VERIFICATION_FAILED
DOWN: Final = EVIDENCE_MISSING
SHORT: Final = PARTIAL
WAIT_SECONDS: Final = 300
WATCH_SECONDS: Final = 5
POLL_SECONDS: Final = 2.0
"""Seconds between two looks of --wait."""


@frozen
class NodeItem:
    """A node of a pinned federation."""

    name: str
    member: str
    jurisdiction: str
    reachable: bool
    former: bool
    why: str
    software: str
    origin: str
    size: int | None
    cosigners: tuple[str, ...]
    logs: int
    misbehaviour: int
    gateway_claimed: str
    replicas_claimed: ReplicaCounts | None

    @classmethod
    def of(cls, state: NodeState) -> NodeItem:
        return cls(
            name=state.name,
            member=state.member,
            jurisdiction=state.jurisdiction,
            reachable=state.reachable,
            former=state.former,
            why=state.why,
            software=state.software,
            origin=state.origin,
            size=state.size,
            cosigners=state.cosigners,
            logs=state.logs,
            misbehaviour=state.misbehaviour,
            gateway_claimed=state.gateway,
            replicas_claimed=state.replicas,
        )


@document("status")
class StatusDocument:
    """Nodes of the pinned federations, as `comity status --json` prints them.

    `gateway_claimed` and `replicas_claimed` are what the node says; `cosigners` are verified. `size` is null without a
    checkpoint. `alarms`: logs that contradict a checkpoint that this user saw before. `exit_status` is that of the
    command.
    """

    nodes: tuple[NodeItem, ...]
    alarms: tuple[str, ...]
    exit_status: Annotated[int, {"enum": [WELL, TWO_HISTORIES, DOWN, SHORT]}]


@examples("comity status", "comity status --wait 60 --json", "comity status --node /var/lib/comity --watch")
@click.command(cls=Command, name="status", short_help="Show the state of the nodes of your federation.")
@node_option(
    "Show this node: of your own node on this machine (its home or operator socket) everything, of another what it "
    "tells everybody. Default: every node.",
    old=("--socket", "--dir"),
)
@click.option(
    "--wait",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=WAIT_SECONDS,
    metavar="[SECONDS]",
    help=f"Look again until all is well, for at most SECONDS ({WAIT_SECONDS} if not given); then show the state.",
)
@click.option(
    "--watch",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=WATCH_SECONDS,
    metavar="[SECONDS]",
    help=f"Show the state again every SECONDS ({WATCH_SECONDS} if not given), until you stop it.",
)
def command(node: str | None, wait: int | None, watch: int | None) -> int:
    """Ask every node of the pinned federations for its state, and compare their logs with the checkpoints that you saw
    before. LACKS counts the artifacts that a node wants and does not have completely; SHORT those with fewer copies,
    jurisdictions or reaches than the charter asks for. Both are what the node says. Of your own node you also see
    which artifacts it lacks, and why.

    Exit status: 0 all is well, 3 a log contradicts a checkpoint that you saw before, 5 a node is down, 8 all nodes
    answer and something is lacking, short or at its quota; of your own node also a limit that is reached, such as a
    full disk, and a damaged ledger.
    """
    out = output()
    if watch is not None and (wait is not None or out.as_json):
        raise click.UsageError("--watch goes neither with --wait nor with --json")
    look = _look(node)
    if watch is not None:
        _watch(out, look, watch)
    deadline = time.monotonic() + (wait or 0)
    while (found := look()).exit_status not in (WELL, TWO_HISTORIES) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    found.show()
    return found.exit_status


@frozen
class _StatusView:
    """One look at the state, and how to print it."""

    exit_status: int
    show: Callable[[], None]


def _look(node: str | None) -> Callable[[], _StatusView]:
    """How to look at the node of this machine that `node` names, or at the nodes of the federations."""
    from comity_client.own_node import local_socket

    socket = local_socket(node) if node is not None else None
    return (lambda: _own_node(socket)) if socket is not None else (lambda: _federation(node or ""))


def _watch(out: Output, look: Callable[[], _StatusView], seconds: int) -> None:
    """Print the state every few seconds; Ctrl-C ends it. A node that does not answer is asked again."""
    while True:
        found = look()
        out.clear()
        try:
            found.show()
        except Unavailable as error:
            out.warn(str(error))
        time.sleep(seconds)


def _own_node(socket: Path) -> _StatusView:
    from comity_client.own_node import operator_status

    from comity_cli import node_view

    out = output()
    try:
        status = operator_status(socket)
    except Unavailable as error:
        return _StatusView(DOWN, partial(_raise, error))

    def show() -> None:
        node_view.show(out, status, time.time())
        out.answer(node_view.NodeStatusDocument.of(status))

    return _StatusView(node_view.exit_status(status), show)


def _raise(error: Unavailable) -> None:
    raise error


def _federation(node: str) -> _StatusView:
    from comity_client.events import MisbehaviourFound
    from comity_client.node_states import ask_node_states

    out = output()
    events: list[Event] = []
    states = ask_node_states(user(), events.append, node)
    seen = list(dict.fromkeys(events))
    alarms = [event.text for event in seen if isinstance(event, MisbehaviourFound)]

    def show() -> None:
        with follow(out, "asking") as on_event:
            for event in seen:
                on_event(event)
        _show(out, states, alarms)

    return _StatusView(_exit_status(states, alarms), show)


def _exit_status(states: Sequence[NodeState], alarms: Sequence[str]) -> int:
    if alarms:
        return TWO_HISTORIES
    if any(not state.reachable and not state.former for state in states):
        return DOWN
    counts = [state.replicas for state in states if state.replicas is not None]
    return SHORT if any(each.lacking or each.short for each in counts) else WELL


def _show(out: Output, states: Sequence[NodeState], alarms: Sequence[str]) -> None:
    if states:
        headers = ("node", "jur", "state", "entries", "cosigners", "logs", "holds", "lacks", "short")
        out.table(headers, [_row(state) for state in states], shorten=("node",))
    else:
        out.say("No federation is pinned, so no node is known.")
        out.hint("comity trust pin FILE")
    if gateways := [(s.name, s.gateway) for s in states if s.gateway]:
        out.say("Gateways, as each node claims:")
        for name, url in gateways:
            out.fact(name, url)
    for state in states:
        _warn(out, state)
    lacking = [s.name for s in states if s.replicas is not None and (s.replicas.lacking or s.replicas.short)]
    if lacking:
        out.hint(f"on the machine of {lacking[0]}: comity status --node HOME")
    out.answer(StatusDocument(tuple(map(NodeItem.of, states)), tuple(alarms), _exit_status(states, alarms)))


def _row(state: NodeState) -> tuple[str, ...]:
    counts = state.replicas
    return (
        state.name,
        state.jurisdiction,
        "up" if state.reachable else "left" if state.former else "DOWN",
        "-" if state.size is None else str(state.size),
        str(len(state.cosigners)) if state.size is not None else "-",
        str(state.logs) if state.reachable else "-",
        *("-" if counts is None else str(count) for count in (counts and counts.held, counts and counts.lacking)),
        "-" if counts is None or not counts.counted else str(counts.short),
    )


def _warn(out: Output, state: NodeState) -> None:
    if not state.reachable and not state.former:
        out.warn(f"{state.name}: {state.why}")
    if state.misbehaviour:
        proofs = plural(state.misbehaviour, "proof")
        out.warn(f"{state.name} keeps {proofs} of misbehaviour: comity log misbehaviour --all")
