"""`comity descent`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import click
from comity.bounded_file import read_bounded
from comity.rules.descent import BASES, CLAIMED, SIGNED
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, output
from comity_cli.document import document
from comity_cli.files import FILE
from comity_cli.nodes import NODE
from comity_cli.output import plural, size

if TYPE_CHECKING:
    from comity.rules.descent_shares import Amounts, DescentShares, LawShare, RootLaw

SHOWN: Final = 10
"""Authors in the table."""


@frozen
class AmountItem:
    """Artifacts, bytes of their files, and pulls of them."""

    artifacts: int
    bytes: int
    pulls: int


@frozen
class LawItem:
    """What descends from publishers under one law."""

    law: Annotated[str, "The code of the jurisdiction; empty where it is not known."]
    law_from: Annotated[str, {"enum": ["charter", "stated", "unknown"]}]
    lineage_known: bool
    amounts: AmountItem
    alone: Annotated[int, "Artifacts that descend from nobody else."]
    signed: int
    own: int
    mirrored: int
    claimed: int
    unknown: int


@frozen
class AuthorItem:
    """What descends from one publisher or upstream organisation."""

    author: str
    name: str
    law: str
    law_from: Annotated[str, {"enum": ["charter", "stated", "unknown"]}]
    amounts: AmountItem


@document("descent")
class DescentDocument:
    """From whom a catalogue descends, as `comity descent --json` prints it.

    As the node `source` counts. `apart`: artifacts that only others than members publish, not in `total` or a share.
    `pulls` are those from `source` in the last `weeks` weeks. An artifact with several roots is counted under each.
    """

    source: str
    total: AmountItem
    apart: AmountItem
    unsized: int
    unread: int
    weeks: int
    laws: tuple[LawItem, ...]
    authors: tuple[AuthorItem, ...]
    authors_cut: bool
    requiring_packages: int
    first_requiring: tuple[Digest, ...]


@examples(
    "comity descent",
    "comity descent --laws laws.toml --held-by node-ch",
    "comity descent --published-by 'Example Institute Zurich' --json",
)
@click.command(cls=Command, name="descent", short_help="Show from publishers of which law the artifacts descend.")
@click.option("--held-by", "holder", default="", metavar="MEMBER|NODE", help="Only what this member or node holds.")
@click.option("--published-by", "publisher", default="", metavar="MEMBER|ID", help="Only what it published.")
@click.option("--all", "everybody", is_flag=True, help="Also what only others than members publish.")
@click.option("--laws", type=FILE, help="Your file of laws of upstream organisations and publishers.")
@click.option("--node", default="", metavar=NODE, help="Ask this node. Default: the first one that answers.")
def command(holder: str, publisher: str, everybody: bool, laws: Path | None, node: str) -> None:
    """Show what share of the artifacts descends from publishers under one law: by lineage roots, which are the
    ancestors that name no parent. Shares are by artifacts, by bytes, and by the pulls from the node that counts. The
    seat of a member is in the charter; the law of an upstream organisation is only what you state in --laws:

    \b
        [laws]
        "hf:google" = "US"

    `signed` counts descents that members computed and signed, `claimed` those that a publisher says; of the others the
    artifact is its own root. What is not known is a share of its own. An artifact with roots under several laws is
    counted under each, so shares may be more than 100 % together. `comity lineage REF` shows one artifact.
    """
    from comity.rules.descent_shares import MAX_LAWS_BYTES, parse_laws

    stated = parse_laws(read_bounded(laws, MAX_LAWS_BYTES)) if laws is not None else {}
    found = client().descent(holder, publisher, stated, node, everybody=everybody)
    _show(found)
    output().answer(_document(found))


def _show(found: DescentShares) -> None:
    out, total = output(), found.total
    out.say(f"As {found.source} counts, of {plural(total.artifacts, 'artifact')} with {size(total.size)}:")
    if total.artifacts:
        head = ("law of root", "artifacts", "", "bytes", "pulls", "signed", "claimed")
        out.table(head, [_row(share, total) for share in found.laws])
        rows = [
            (share.name or share.author[:24], _law_text(share.law), *_amounts(share.amounts, total))
            for share in found.authors[:SHOWN]
        ]
        if rows:
            out.table(("first roots", "law", "artifacts", "", "bytes", "pulls"), rows)
    _explain(found)


def _explain(found: DescentShares) -> None:
    """What the numbers do not have."""
    out, total = output(), found.total
    if total.pulls:
        out.say(f"Pulls: from {found.source} in the last {plural(found.weeks, 'week')}.")
    elif total.artifacts:
        out.say(f"No pull was counted at {found.source} in the last {plural(found.weeks, 'week')}.")
    if found.apart.artifacts:
        out.say(f"Not counted: {plural(found.apart.artifacts, 'artifact')} of publishers that are no members: --all")
    if found.unsized:
        out.warn(f"the size of {plural(found.unsized, 'artifact')} is not known, and is counted as 0")
    if found.unread:
        out.warn(f"{found.source} has not read {plural(found.unread, 'statement')} yet")
    if found.requiring:
        names = "names packages that it does" if found.requiring == 1 else "name packages that they do"
        out.say(f"{plural(found.requiring, 'artifact')} {names} not contain: who installs it asks a package index.")
    unstated = sorted((share.author for share in found.authors if not share.law.code), key=lambda author: len(author))
    if unstated:
        line = f'"{unstated[0]}" = "US"'
        out.hint(f"state the law of {plural(len(unstated), 'root')} in a file, such as {line}: --laws FILE")


def _row(share: LawShare, total: Amounts) -> tuple[str, ...]:
    law = _law_text(share.law) if share.lineage_known else "ancestors not known"
    return law, *_amounts(share.amounts, total), str(share.known_by(SIGNED)), str(share.known_by(CLAIMED))


def _law_text(law: RootLaw) -> str:
    if not law.code:
        return "law not known"
    return law.code if law.source == "charter" else f"{law.code} (stated)"


def _amounts(part: Amounts, total: Amounts) -> tuple[str, ...]:
    from comity.rules.descent_shares import percent

    return (
        str(part.artifacts),
        percent(part.artifacts, total.artifacts),
        percent(part.size, total.size),
        percent(part.pulls, total.pulls),
    )


def _document(found: DescentShares) -> DescentDocument:
    laws = (
        LawItem(
            share.law.code,
            share.law.source,
            share.lineage_known,
            _item(share.amounts),
            share.alone,
            **{basis: share.known_by(basis) for basis in BASES},
        )
        for share in found.laws
    )
    authors = (
        AuthorItem(share.author, share.name, share.law.code, share.law.source, _item(share.amounts))
        for share in found.authors
    )
    return DescentDocument(
        found.source,
        _item(found.total),
        _item(found.apart),
        found.unsized,
        found.unread,
        found.weeks,
        tuple(laws),
        tuple(authors),
        found.authors_cut,
        found.requiring,
        found.first_requiring,
    )


def _item(amounts: Amounts) -> AmountItem:
    return AmountItem(amounts.artifacts, amounts.size, amounts.pulls)
