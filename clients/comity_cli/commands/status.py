"""`comity status`."""

from __future__ import annotations

import click

from comity_cli.command import Command, client, examples, output
from comity_cli.following import follow
from comity_cli.output import plural


@examples("comity status", "comity status --json")
@click.command(cls=Command, name="status", short_help="Show the state of the nodes of your federation.")
def command() -> None:
    """Ask every node of the pinned federations how it is, and check their logs against what you saw before."""
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
        headers = ("node", "jurisdiction", "state", "own log", "cosigned by", "logs held", "misbehaviour")
        out.table(headers, rows)
    else:
        out.say("No federation is pinned, so no node is known.")
        out.hint("comity trust pin FILE")
    for state in states:
        if not state.reachable:
            out.warn(f"{state.name}: {state.why}")
        if state.misbehaviour:
            out.warn(
                f"{state.name} holds {plural(state.misbehaviour, 'proof')} of misbehaviour: comity log misbehaviour"
            )
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
                }
                for s in states
            ]
        },
    )
