"""`comity peer ls|ping`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.exit_statuses import EVIDENCE_MISSING

from comity_cli import node_view
from comity_cli.command import Group, examples, output
from comity_cli.document import document
from comity_cli.node_home import node_file, node_installed
from comity_cli.nodes import home_option, node_option
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity.node.maintenance.network_checks import PingedAddress


@document("peers")
class PeersDocument:
    """The peers of a node, as `comity peer ls --json` prints them.

    Times are seconds since 1970, 0 for never. `lag` counts entries that the node has not copied yet.
    """

    node: str
    peers: tuple[node_view.PeerItem, ...]


@document("peer-ping")
class PeerPingDocument:
    """How addresses of peers answered, as `comity peer ping --json` prints it.

    `seconds`: the time of a call, null if none was answered; then `error`, `code` and `hint` say why. `unreachable`:
    the peers of which no address answered.
    """

    addresses: tuple[PingedAddress, ...]
    unreachable: tuple[str, ...]


@examples("comity peer ls", "comity peer ping", "comity peer ping node-es --node /var/lib/comity")
@click.group(cls=Group, name="peer", short_help="Show and call the nodes of other members.")
def command() -> None:
    """Show and call the nodes of other members, as your node sees them."""


@examples("comity peer ls", "comity peer ls --node /var/lib/comity", "comity peer ls --node ./node-ch --json")
@command.command("ls", short_help="List the peers of your running node.")
@node_option("Your running node, by its home or operator socket. Default: here.")
def ls(node: str | None) -> int:
    """List the peers that your node follows: whether they answer it, and how far its copy of their log is behind.

    Exit status: 0 all answer, 5 one does not.
    """
    from comity_client.own_node import operator_status, own_socket

    status, out, now = operator_status(own_socket(node)), output(), time.time()
    if status.peers:
        out.table(
            ("peer", "jur", "state", "address", "behind", "seen"),
            [
                (peer.name, peer.jurisdiction, node_view.peer_state(peer), peer.address or "-", str(peer.lag),
                 f"{node_view.span(now - peer.last_seen)} ago" if peer.last_seen else "never")
                for peer in status.peers
            ],
            shorten=("peer", "address"),
        )  # fmt: skip
    else:
        out.say("None is known.")
    down = [peer for peer in status.peers if node_view.peer_state(peer) == "DOWN"]
    for peer in down:
        out.warn(f"{peer.name}: {peer.last_error or 'does not answer'}")
    if down:
        home = shlex.quote(node or ".") if Path(node or ".").is_dir() else "HOME"
        out.hint(f"comity peer ping {down[0].name} --node {home}")
    items = (node_view.PeerItem(peer, node_view.peer_state(peer)) for peer in status.peers)
    out.answer(PeersDocument(status.origin, tuple(items)))
    return EVIDENCE_MISSING if down else 0


@examples("comity peer ping", "comity peer ping node-es --node /var/lib/comity", "comity peer ping --json")
@command.command("ping", short_help="Call the addresses of peers as your node does.")
@click.argument("name", default="")
@home_option("Your node, by its home. Default: here.", exists=False)
def ping(name: str, home: Path) -> int:
    """Call each address of the peer NAME, or of every peer in the federation file: with the certificate of your node at
    the mutual port, and the peer's certificate pinned. Your node need not run. What fails is shown with its cause: the
    name, the connection, the certificate, or the peer's refusal.

    Exit status: 0 every peer answered at some address, 5 one did not.
    """
    file = node_file(home)
    with node_installed():
        from comity.node.maintenance.network_checks import ping_peers
    out = output()
    with out.waiting("calling the peers"):
        pinged = ping_peers(file, name)
    out.table(
        ("peer", "jur", "port", "address", "answers in", "software"),
        [(one.peer, one.jurisdiction, one.port, one.address, _time(one), one.software or "-") for one in pinged],
        shorten=("peer", "address"),
    )
    for one in pinged:
        if one.error:
            out.warn(f"{one.peer} at {one.address}: {one.error}  [{one.code}]")
            if one.hint:
                out.fact("try", one.hint)
    down = sorted({one.peer for one in pinged} - {one.peer for one in pinged if one.seconds is not None})
    if down:
        out.say(f"{plural(len(down), 'peer')} answered nowhere: {', '.join(down)}")
    out.answer(PeerPingDocument(pinged, tuple(down)))
    return EVIDENCE_MISSING if down else 0


def _time(one: PingedAddress) -> str:
    return "-" if one.seconds is None else f"{1000 * one.seconds:.1f} ms"
