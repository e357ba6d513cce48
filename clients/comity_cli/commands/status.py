"""`comity status`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from comity_cli.command import Command, client, examples, output
from comity_cli.following import follow
from comity_cli.output import plural


@examples("comity status", "comity status --json", "comity status --dir /var/lib/comity")
@click.command(cls=Command, name="status", short_help="Show the state of the nodes of your federation.")
@click.option(
    "--socket", type=click.Path(path_type=Path), help="Ask the node of this machine through its operator socket."
)
@click.option("--dir", "home", type=click.Path(path_type=Path), help="Ask the node of this machine, by its home.")
def command(socket: Path | None, home: Path | None) -> None:
    """Ask every node of the pinned federations for its state, and compare their logs with the checkpoints that you saw
    before. With --socket or --dir: show your own node's peers, logs, store and callers."""
    if socket is not None and home is not None:
        raise click.UsageError("--socket and --dir name the same node; give one")
    if socket is not None or home is not None:
        _own_node(socket, home)
    else:
        _federation()


def _own_node(socket: Path | None, home: Path | None) -> None:
    from comity_client.session import operator_socket, operator_status

    from comity_cli import node_view

    out = output()
    status = operator_status(socket or operator_socket(home or Path()))
    node_view.show(out, status, time.time())
    out.document("node-status", node_view.document(status))


def _federation() -> None:
    out = output()
    with follow(out, "asking") as on_event:
        states = client().status(on_event=on_event)
    rows = [
        (
            s.name,
            s.jurisdiction,
            "up" if s.reachable else "DOWN",
            "-" if s.size is None else f"{s.size} entries",
            ", ".join(name.removesuffix("/cosigner") for name in s.cosigners) or "-",
            str(s.logs),
            str(s.misbehaviour) if s.misbehaviour else "-",
        )
        for s in states
    ]
    if states:
        headers = ("node", "jurisdiction", "state", "own log", "cosigned by", "logs", "misbehaviour")
        out.table(headers, rows)
    else:
        out.say("No federation is pinned, so no node is known.")
        out.hint("comity trust pin FILE")
    if gateways := [(s.name, s.gateway) for s in states if s.gateway]:
        out.say("Gateways, as each node claims:")
        for name, url in gateways:
            out.fact(name, url)
    for state in states:
        if not state.reachable:
            out.warn(f"{state.name}: {state.why}")
        if state.misbehaviour:
            proofs = plural(state.misbehaviour, "proof")
            out.warn(f"{state.name} keeps {proofs} of misbehaviour: comity log misbehaviour --all")
    out.document(
        "status",
        {
            "nodes": [
                {
                    "name": s.name,
                    "member": s.member,
                    "jurisdiction": s.jurisdiction,
                    "reachable": s.reachable,
                    "why": s.why,
                    "software": s.software,
                    "origin": s.origin,
                    "size": s.size,
                    "cosigners": list(s.cosigners),
                    "logs": s.logs,
                    "misbehaviour": s.misbehaviour,
                    "gateway_claimed": s.gateway,
                }
                for s in states
            ]
        },
    )
