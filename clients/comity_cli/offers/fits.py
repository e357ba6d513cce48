"""Which offers can run a model, with the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from comity_cli.command import output

if TYPE_CHECKING:
    from comity_client.offers.fit import AcceleratorGroup, Model, Workload
    from comity_client.offers.offer_client import FoundChain


def parse_group(text: str) -> tuple[str, AcceleratorGroup]:
    """Parse own machines: `NAME:COUNT:GIB[:NODES]`. Raises click.UsageError."""
    from comity_client.offers.fit import AcceleratorGroup

    name, *numbers = text.split(":")
    if not name or not 2 <= len(numbers) <= 3 or not all(n.isdecimal() and 0 < int(n) < 10**6 for n in numbers):
        raise click.UsageError(f"--room {text!r}: write NAME:COUNT:GIB or NAME:COUNT:GIB:NODES")
    count, memory, nodes = (*map(int, numbers), 1)[:3]
    return text, AcceleratorGroup(name, count, memory, nodes, fabric="your own fabric" if nodes > 1 else "")


def show_fits(
    model: Model, work: Workload, own: Sequence[tuple[str, AcceleratorGroup]], found: Sequence[FoundChain]
) -> None:
    """Print for each group of accelerators whether the model fits, with how many, and why."""
    from comity_client.offers.fit import fit, group_of, need_lines

    out, listed = output(), list[dict[str, Any]]()
    groups: list[tuple[str, str, str, AcceleratorGroup | str]] = [(text, "", "your own", group) for text, group in own]
    for seen in found:
        state, lender = seen.view.state, seen.view.identities.name(seen.view.offer.provider)
        for part in seen.view.offer.slices:
            groups.append(
                (f"{state.chain[:12]} {part.name}", state.chain, f"{lender}, {seen.view.status}", group_of(part))
            )
    out.say(model.title)
    for what, how in need_lines(model, work):
        out.fact(what, how)
    for name, chain, lender, group in groups:
        if isinstance(group, str):
            out.warn(f"{name}: not checked, {group}")
            continue
        answer = fit(model, group, work)
        out.say(f"{name}  ({lender})")
        for what, how in answer.lines[len(need_lines(model, work)) :]:
            out.fact(what, how)
        out.say(f" {answer.because}", sign=f"  {out.mark('✓', 'green') if answer.fits else out.mark('!', 'yellow')}")
        listed.append({"room": name, "chain": chain, "fits": answer.fits, "accelerators": answer.accelerators,
                       "per_node": answer.per_node, "nodes": answer.nodes, "because": answer.because,
                       "figures": "measured" if group.measured else "declared",
                       "lines": [list(line) for line in answer.lines]})  # fmt: skip
    if not groups:
        out.say("No offer is known. Give machines of your own: --room H100:8:80")
    weights = {"total": model.weights.total, "by_type": dict(model.weights.by_type), "source": model.weights.source}
    out.document("fit", {"model": model.title, "weights": weights, "fits": listed})
    best = next((each for each in listed if each["fits"] and each["chain"]), None)
    if best is not None:
        out.hint(
            f"comity offer request {best['chain'][:12]} --want {best['room'].split()[1]}:{best['nodes']} --node HOME"
        )
