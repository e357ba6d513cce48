"""`comity gc`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.frozen import frozen

from comity_cli.command import Command, agree, examples, output
from comity_cli.copies_view import of_own_node, socket_of
from comity_cli.document import INLINE, document
from comity_cli.output import plural, size

if TYPE_CHECKING:
    from comity.wire.audit import RetainedCopy
    from comity_client.own_node import CollectedCopy

MAX_LISTED = 10_000
"""Copies that the JSON document lists; all are counted."""


@frozen
class GcItem:
    """An own copy, and what became of it."""

    copy: RetainedCopy = field(metadata=INLINE)
    removed: bool
    refused: str


@document("gc")
class GcDocument:
    """What the retention rules let go, as `comity gc --json` prints it.

    `trial`: nothing was removed. `goes`: the rules let it go, and enough other members hold tested copies. `bytes`:
    would be freed, or were. `days`: for how long the node knows that it holds the artifact. `refused`: the code of the
    error with which the node kept a copy that the rules let go. `left_out`: further copies, which are counted and not
    listed.
    """

    trial: bool
    goes: int
    stays: int
    removed: int
    refused: int
    bytes: int
    copies: tuple[GcItem, ...]
    left_out: int


@examples("comity gc --dry-run --node /var/lib/comity", "comity gc --yes --node /var/lib/comity")
@click.command(cls=Command, name="gc", short_help="Remove the copies that your retention rules let go.")
@click.option("--dry-run", "trial", is_flag=True, help="Only say what would go, and why each other copy stays.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@of_own_node
def command(trial: bool, yes: bool, socket: Path | None, home: Path | None) -> None:
    """Remove your node's copies that the retention rules let go. The file that `retention.rules` in node.toml names
    says how long to keep a model, and how many of its versions. What it pins stays, and so does what other members do
    not hold in as many tested copies as the charter asks for. Each removal asks them again, as `comity rm` does.
    Without --yes you see what would go before you are asked."""
    from comity_client.own_node import collect

    node = socket_of(socket, home)
    if not trial and not yes and not output().as_json:
        plan = _GcOutput(trial=True)
        collect(node, plan.add, remove=False)
        plan.summarize()
        if not plan.goes:
            return
    if not trial:
        agree("Remove every copy that goes?", yes=yes)
    found = _GcOutput(trial)
    collect(node, found.add, remove=not trial)
    found.finish()


class _GcOutput:
    """Prints each copy when it is decided, and counts."""

    def __init__(self, trial: bool) -> None:
        self._trial = trial
        self._listed: list[GcItem] = []
        self._counts = dict.fromkeys(("goes", "stays", "removed", "refused", "bytes"), 0)

    def add(self, item: CollectedCopy) -> None:
        copy, counts = item.copy, self._counts
        counts["goes" if copy.goes else "stays"] += 1
        counts["removed"] += item.decision is not None
        counts["refused"] += item.refused is not None
        if item.decision is not None or (self._trial and copy.goes):
            counts["bytes"] += item.decision.bytes if item.decision else copy.bytes
        output().say(_line(item, trial=self._trial))
        if len(self._listed) < MAX_LISTED:
            refused = item.refused.code if item.refused else ""
            self._listed.append(GcItem(copy, item.decision is not None, refused))

    @property
    def goes(self) -> int:
        """Copies that the rules let go."""
        return self._counts["goes"]

    def summarize(self) -> None:
        """Print the counts."""
        out, counts = output(), self._counts
        if self._trial:
            goes, stays = plural(counts["goes"], "copy", "copies"), plural(counts["stays"], "copy", "copies")
            out.say(
                f"{goes} would go if the others prove theirs, and free {size(counts['bytes'])}; {stays} would stay."
            )
        else:
            out.done(f"{plural(counts['removed'], 'copy', 'copies')} removed; {size(counts['bytes'])} freed.")
        if counts["refused"]:
            out.warn(f"{plural(counts['refused'], 'copy', 'copies')} stay although the rules let them go")

    def finish(self) -> None:
        """Print the counts, and the JSON document."""
        self.summarize()
        counts = self._counts
        total = counts["goes"] + counts["stays"]
        left_out = total - len(self._listed)
        output().answer(GcDocument(self._trial, **counts, copies=tuple(self._listed), left_out=left_out))


def _line(item: CollectedCopy, *, trial: bool) -> str:
    copy = item.copy
    label = copy.name or f"sha256:{copy.artifact}"
    if item.refused is not None:
        return f"stays    {label}: {item.refused.what}: {item.refused.why}"
    if not copy.goes:
        return f"stays    {label}: {copy.why}"
    if trial or item.decision is None:
        return f"goes     {label}: {copy.why}; {size(copy.bytes)}"
    return f"removed  {label}: {copy.why}; entry {item.decision.index}; {size(item.decision.bytes)}"
