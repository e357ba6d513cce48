"""`comity mirror cost`: what copies would need, before they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from comity.bounded_file import read_bounded
from comity.rules.mirror_rules import ALL, MirrorRules, QuotaUse, parse_mirror_rules
from comity.rules.rule_file import MAX_BYTES
from comity.trust.encoding import short
from comity.trust.exit_statuses import PARTIAL
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM

from comity_cli.command import Command, client, examples, output
from comity_cli.document import document
from comity_cli.files import FILE
from comity_cli.node_home import configured_rules
from comity_cli.node_view import span
from comity_cli.nodes import home_option
from comity_cli.output import plural, size

if TYPE_CHECKING:
    from comity.wire.client import NodeClient
    from comity.wire.node_status import NodeStatus
    from comity_client.copy_costs import CopyCosts
    from comity_client.evidence.artifact_info import ArtifactInfo


@frozen
class NeededItem:
    """One artifact: bytes of files that are not here, and its whole size."""

    name: str
    needed_bytes: int
    size_bytes: int


@frozen
class QuotaCostItem:
    """A rule that would copy something; its quota and use are null for none, and where they are not known."""

    rule: Annotated[str, "Empty for what no rule with a name selects."]
    artifacts: int
    charged_bytes: int
    quota_bytes: int | None
    used_bytes: int | None


@document("mirror-cost")
class MirrorCostDocument:
    """What copies would need, as `comity mirror cost --json` prints it.

    `needed_bytes` are of files that the node does not have, each once; `at_most` where there were too many to tell
    apart. `seconds` at `rate_bytes`, which is `measured` or `stated`; null where no rate is known. A quota is charged
    `charged_bytes`, the whole sizes. `fits`: whether the disk and every quota have room; null where it is not known.
    """

    artifacts: int
    held: int
    unknown: int
    size_bytes: int
    needed_bytes: int
    at_most: bool
    rate_bytes: int | None
    rate_from: Annotated[str, {"enum": ["measured", "stated", "unknown"]}]
    seconds: int | None
    free_bytes: int | None
    rules: tuple[QuotaCostItem, ...]
    total_quota_bytes: int | None
    total_used_bytes: int | None
    fits: bool | None
    largest: tuple[NeededItem, ...]


@examples(
    "comity mirror cost swiss-ai/tiny@v1 --node node-ch",
    "comity mirror cost --namespace swiss-ai --node node-ch",
    "comity mirror cost --rules new-rules.toml --node node-ch --json",
)
@click.command(cls=Command, name="cost", short_help="Say what copies would need, before they are made.")
@click.argument("references", metavar="[REF]...", nargs=-1)
@click.option(
    "--namespace", "namespaces", multiple=True, metavar="NAME", help="All of a namespace or repository, as `swiss-ai`."
)
@click.option("--rules", "rules", type=FILE, help="What these mirror rules would copy and the present ones do not.")
@click.option("--rate", type=click.IntRange(1), metavar="BYTES", help="Bytes a second. Default: as measured.")
@home_option("Your node, by its home. Default: here.")
def command(
    references: tuple[str, ...], namespaces: tuple[str, ...], rules: Path | None, rate: int | None, home: Path
) -> int:
    """Say how many bytes your node would fetch to copy some artifacts, for how long, and what is left of quotas and
    disk. Files that the node has need nothing, and a file of several artifacts is counted once. Nothing is copied or
    changed. The node must run: it is asked what it has.

    Exit status: 0 it fits, or it is not known where room is lacking; 8 the disk or a quota has too little room.
    """
    if bool(references) + bool(namespaces) + bool(rules) != 1:
        raise click.UsageError("name artifacts, or --namespace, or --rules")
    from comity_client.copy_costs import measured_rate
    from comity_client.own_node import ask_own_node, operator_status, own_socket

    socket = own_socket(str(home))
    infos = [client().show(reference) for reference in references]
    present = _present_rules(home)
    asked = parse_mirror_rules(read_bounded(rules, MAX_BYTES)) if rules is not None else None
    costs = ask_own_node(socket, lambda node: _estimate(node, infos, namespaces, asked, present))
    status = operator_status(socket)
    measured = measured_rate(status)
    found = _document(costs, status, asked or present, rate or measured, "stated" if rate else "measured")
    _show(found)
    output().answer(found)
    return PARTIAL if found.fits is False else 0


async def _estimate(
    node: NodeClient,
    infos: Sequence[ArtifactInfo],
    namespaces: Sequence[str],
    rules: MirrorRules | None,
    present: MirrorRules | None,
) -> CopyCosts:
    from comity_client.copy_costs import NOT_ASKED, CopyEstimate, candidates, in_namespaces, newly_by

    if infos:
        estimate = CopyEstimate(node, lambda candidate, contents: NOT_ASKED)
        for info in infos:
            await estimate.count(info.artifact, _name(info), info.manifest)
        return estimate.costs
    estimate = CopyEstimate(node, newly_by(rules, present) if rules is not None else in_namespaces(namespaces))
    words = namespaces[0].partition("/")[0].removeprefix(UPSTREAM) if len(namespaces) == 1 else ""
    async for page in candidates(node, words):
        await estimate.add(page)
    return estimate.costs


def _name(info: ArtifactInfo) -> str:
    return str(info.current.published.name) if info.current is not None else short(info.artifact)


def _present_rules(home: Path) -> MirrorRules | None:
    """The rules that the node uses; None where it copies by patterns."""
    named = configured_rules(home)
    return parse_mirror_rules(read_bounded(home / named, MAX_BYTES)) if named is not None else None


def _document(
    costs: CopyCosts, status: NodeStatus, rules: MirrorRules | None, rate: int | None, source: str
) -> MirrorCostDocument:
    quotas = rules.quotas if rules is not None else {}
    used = {quota.name: quota.used for quota in status.quotas}
    uses = {name: used.get(str(QuotaUse(name, 0, limit))) for name, limit in quotas.items()}
    own = {name: limit for name, limit in quotas.items() if name != ALL}
    items = tuple(
        QuotaCostItem(name, cost.artifacts, cost.charged, own.get(name), uses.get(name) if name in own else None)
        for name, cost in sorted(costs.by_rule.items())
    )
    free, total = status.store.free_bytes, quotas.get(ALL)
    return MirrorCostDocument(
        costs.artifacts,
        costs.held,
        costs.unknown,
        costs.size,
        costs.needed,
        costs.at_most,
        rate,
        source if rate is not None else "unknown",
        0 if not costs.needed else None if rate is None else -(-costs.needed // rate),
        free,
        items,
        total,
        uses.get(ALL),
        _fits(costs, free, items, total, uses.get(ALL)),
        tuple(NeededItem(each.name, each.needed, each.size) for each in costs.largest),
    )


def _fits(
    costs: CopyCosts, free: int | None, items: Sequence[QuotaCostItem], total: int | None, used: int | None
) -> bool | None:
    """Whether all of it has room. False as soon as something has none; None if something is not known."""
    charged = sum(item.charged_bytes for item in items)
    limits = [(item.quota_bytes, item.used_bytes, item.charged_bytes) for item in items if item.quota_bytes is not None]
    if total is not None:
        limits.append((total, used, charged))
    fitting = [None if quota is None or taken is None else taken + more <= quota for quota, taken, more in limits]
    fitting.append(None if free is None else costs.needed <= free)
    if False in fitting:
        return False
    return None if None in fitting else True


def _show(found: MirrorCostDocument) -> None:
    out = output()
    most = "at most " if found.at_most else ""
    out.say(
        f"{plural(found.artifacts, 'artifact')} of {size(found.size_bytes)}, of which {most}{size(found.needed_bytes)} "
        f"are not here; {found.held} more are here as a whole."
    )
    if found.unknown:
        out.warn(f"the manifest of {plural(found.unknown, 'artifact')} is not here: not counted")
    if found.seconds is None:
        out.say("How long that takes is not known: this node has copied too little. State a rate: --rate BYTES")
    elif found.needed_bytes and found.rate_bytes:
        how = "as this node measured while it copied" if found.rate_from == "measured" else "as you state"
        out.say(f"At {size(found.rate_bytes)} a second, {how}: {span(found.seconds)}.")
    rows = [("disk", size(found.needed_bytes), _free(found.free_bytes), _left(found.free_bytes, found.needed_bytes))]
    for item in found.rules:
        unused = None if item.quota_bytes is None or item.used_bytes is None else item.quota_bytes - item.used_bytes
        shown = "no quota" if item.quota_bytes is None else _free(unused)
        name = f"rule {item.rule!r}" if item.rule else "no rule"
        rows.append((name, size(item.charged_bytes), shown, _left(unused, item.charged_bytes)))
    if found.total_quota_bytes is not None:
        charged = sum(item.charged_bytes for item in found.rules)
        unused = None if found.total_used_bytes is None else found.total_quota_bytes - found.total_used_bytes
        rows.append(("all rules together", size(charged), _free(unused), _left(unused, charged)))
    out.table(("of", "needs", "is free now", "then"), rows)
    if len(found.largest) > 1:
        rows = [(each.name, size(each.needed_bytes), size(each.size_bytes), "") for each in found.largest]
        out.table(("largest", "not here", "whole", ""), rows)
    if found.fits is False:
        out.warn("there is too little space")


def _free(left: int | None) -> str:
    return "not known" if left is None else size(max(0, left))


def _left(left: int | None, more: int) -> str:
    """What is left then, and as a share of what is left now."""
    if left is None:
        return "-"
    if more > left:
        return f"{size(more - left)} too little"
    return f"{size(left - more)} ({100 * (left - more) // left} %)" if left else size(0)
