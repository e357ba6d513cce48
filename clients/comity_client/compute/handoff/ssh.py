"""A note for whoever opens an account by hand, and for whoever logs in. No key, password or token is in it."""

from __future__ import annotations

from datetime import UTC, datetime

from comity_client.compute.handoff.facts import HandOff
from comity_client.compute.handoff.spelling import comments, shell


def render(facts: HandOff) -> dict[str, str]:
    """Texts by file name."""
    lines = [*facts.sentences(), f"Account: {facts.user or 'to be agreed'}   Host: {facts.target or 'to be agreed'}"]
    for part in facts.parts:
        machine = f"{part.count} x {part.accelerator}" if part.count else f"{part.cpus} CPUs"
        lines.append(
            f"{part.nodes} nodes of {machine} ({part.name}), from {_when(part.start)} up to {_when(part.end)}, "
            f"at most {part.amount} {facts.measure}"
        )
    lines.append("Access is between the two of you: send no password or private key through Comity, it is logged.")
    exports = "".join(f"export {name}={shell(value)}\n" for name, value in facts.environment)
    return {"README.txt": comments(lines, ""), "environment.sh": exports}


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
