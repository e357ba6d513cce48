"""`comity offer fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from comity_cli.command import Command, client, examples, options_as, output
from comity_cli.offers.arguments import Search, offer_query
from comity_cli.offers.context import OfferContext, reading_options

from comity.addons.fit.fit import Workload

if TYPE_CHECKING:
    from comity_client.offers.offer_client import FoundChain

    from comity.addons.fit.fit import AcceleratorGroup
    from comity.addons.fit.model_memory import Model

MAX_FIT_OFFERS = 200
"""Maximum offers that `fit` checks."""


def parse_group(text: str) -> tuple[str, AcceleratorGroup]:
    """Parse own machines: `NAME:COUNT:GIB[:NODES]`. Raises click.UsageError."""
    from comity.addons.fit.fit import AcceleratorGroup

    name, *numbers = text.split(":")
    if not name or not 2 <= len(numbers) <= 3 or not all(n.isdecimal() and 0 < int(n) < 10**6 for n in numbers):
        raise click.UsageError(f"--room {text!r}: write NAME:COUNT:GIB or NAME:COUNT:GIB:NODES")
    count, memory, nodes = (*map(int, numbers), 1)[:3]
    return text, AcceleratorGroup(name, count, memory, nodes, fabric="your own fabric" if nodes > 1 else "")


def show_fits(
    model: Model, work: Workload, own: Sequence[tuple[str, AcceleratorGroup]], found: Sequence[FoundChain]
) -> None:
    """Print for each group of accelerators whether the model fits, with how many, and why."""
    from comity.addons.fit.fit import fit, group_of, need_lines

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


@examples(
    "comity offer fit swiss-ai/apertus-70b --context 32768 --batch 8",
    "comity offer fit ./model --room H100:8:80 --offline",
    "comity offer fit org/model-gguf --file '*Q4_K_M*' --accelerator H100 --json",
)
@click.command(cls=Command, name="fit", short_help="Compute which offers can run a model.")
@click.argument("reference", metavar="REF")
@click.option("--context", default=8192, show_default=True, type=click.IntRange(1, 2**32), help="Tokens of a sequence.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1, 2**20), help="Sequences at a time.")
@click.option("--kv", default="bf16", show_default=True, type=click.Choice(["bf16", "fp16", "fp8", "fp32"]),
              help="Number type of the KV-cache.")  # fmt: skip
@click.option(
    "--margin",
    "margin_percent",
    default=10,
    show_default=True,
    type=click.IntRange(0, 90),
    help="Percentage of memory to keep free.",
)
@click.option("--file", "pattern", default="", metavar="PATTERN", help="Count only these files of REF.")
@click.option("--room", "groups", multiple=True, metavar="NAME:COUNT:GIB[:NODES]", help="Include machines of your own.")
@click.option("--accelerator", default="", metavar="NAME", help="Only offers with this accelerator.")
@options_as("work", Workload)
@reading_options
def command(
    reference: str, pattern: str, groups: Sequence[str], accelerator: str, work: Workload, **options: Any
) -> None:
    """Compute whether the weights and the KV-cache of REF fit the offered accelerators. REF is a name, a digest or a
    folder. Only the headers of its files are fetched, not the weights. For an unknown kind of attention, the size of
    the KV-cache is reported as unknown."""
    from comity.addons.fit.model_memory import read_model

    own = [parse_group(text) for text in groups]
    model = read_model(client(), Path(reference) if Path(reference).is_dir() else reference, pattern)
    found: list[FoundChain] = []
    context = OfferContext(**options)
    if context.bundles or not context.offline:
        offer_client = context.offer_client
        found, more = offer_client.offers(offer_query(Search(accelerator)), MAX_FIT_OFFERS)
        if more:
            output().warn(f"{more} more offers are not checked; select with --accelerator")
    show_fits(model, work, own, found)
