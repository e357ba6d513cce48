"""Which offers can hold a model, with the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from comity_cli.command import output

if TYPE_CHECKING:
    from comity_client.offers.fit import AcceleratorGroup, Model, Workload
    from comity_client.offers.market import FoundChain


def own_room(text: str) -> tuple[str, AcceleratorGroup]:
    """Machines as they are typed: `NAME:COUNT:GIB[:NODES]`. Raises click.UsageError."""
    from comity_client.offers.fit import AcceleratorGroup

    name, *numbers = text.split(":")
    if not name or not 2 <= len(numbers) <= 3 or not all(n.isdecimal() and 0 < int(n) < 10**6 for n in numbers):
        raise click.UsageError(f"--room {text!r}: write NAME:COUNT:GIB or NAME:COUNT:GIB:NODES")
    count, memory, nodes = (*map(int, numbers), 1)[:3]
    return text, AcceleratorGroup(name, count, memory, nodes, fabric="what you have" if nodes > 1 else "")


def show_fits(
    model: Model, work: Workload, own: Sequence[tuple[str, AcceleratorGroup]], found: Sequence[FoundChain]
) -> None:
    """Each room with its answer: whether the model fits, with how many accelerators, and why."""
    from comity_client.offers.fit import fit, room_of

    out, listed = output(), list[dict[str, Any]]()
    rooms: list[tuple[str, str, str, AcceleratorGroup | str]] = [(text, "", "your own", room) for text, room in own]
    for seen in found:
        book, lent = seen.view.book, seen.view.circle.name(seen.view.offer.provider)
        for part in seen.view.offer.slices:
            rooms.append((f"{book.chain[:12]} {part.name}", book.chain, f"{lent}, {seen.view.state}", room_of(part)))
    out.say(model.title)
    for at, (name, chain, lent, room) in enumerate(rooms):
        if isinstance(room, str):
            out.warn(f"{name}: not judged, {room}")
            continue
        answer = fit(model, room, work)
        if at == 0:
            for what, how in answer.lines[:-3]:
                out.fact(what, how)
        out.say(f"{name}  ({lent})")
        for what, how in answer.lines[-3:]:
            out.fact(what, how)
        out.say(f" {answer.because}", sign=f"  {out.mark('✓', 'green') if answer.fits else out.mark('!', 'yellow')}")
        listed.append({"room": name, "chain": chain, "fits": answer.fits, "accelerators": answer.accelerators,
                       "per_node": answer.per_node, "nodes": answer.nodes, "because": answer.because,
                       "lines": [list(line) for line in answer.lines]})  # fmt: skip
    if not rooms:
        out.say("Nothing is offered. Name machines of your own: --room H100:8:80")
    weights = {"total": model.weights.total, "by_type": dict(model.weights.by_type), "source": model.weights.source}
    out.document("fit", {"model": model.title, "weights": weights, "fits": listed})
    best = next((each for each in listed if each["fits"] and each["chain"]), None)
    if best is not None:
        out.hint(
            f"comity offer request {best['chain'][:12]} --want {best['room'].split()[1]}:{best['nodes']} --dir HOME"
        )
