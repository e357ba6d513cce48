"""`comity found`: found a federation by files, with the consent of every member; `draft`, `consent` and `seal` are its
single steps."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from comity.bounded_file import read_bounded
from comity.content import durable
from comity.trust.charter.document import MAX_BYTES, Body
from comity.trust.encoding import Digest, syllables
from comity.trust.frozen import frozen
from comity.trust.names import parse_id

from comity_cli.charter.rendering import describe_charter, show_charter
from comity_cli.command import Group, agree, examples, output
from comity_cli.document import document
from comity_cli.files import FILE, out_option
from comity_cli.main import common_options
from comity_cli.nodes import home_option
from comity_cli.output import Output

if TYPE_CHECKING:
    from comity_client.founding_file import Founding
    from comity_client.node_card import NodeCard

WITH: Final = "--with"


@frozen
class FounderItem:
    """A founder, and whether it has consented to the charter."""

    id: Digest
    name: str
    jurisdiction: str
    consented: bool


@document("founding")
class FoundingDocument:
    """A founding in progress, as `comity found --json` prints it. `federation` names the federation file in the home,
    once all have consented; null before.
    """

    body: Digest
    file: Path
    members: tuple[FounderItem, ...]
    federation: Path | None


class FoundGroup(Group):
    """A group that is a command, too. Its `--with` takes all file names that follow it, as a shell makes them of a
    pattern."""

    def __init__(self, name: str | None, *, params: Sequence[click.Parameter] | None = None, **kwargs: Any) -> None:
        super().__init__(name, params=[*(params or ()), *common_options()], **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread, taking = list[str](), False
        for argument in args:
            taking = taking and not argument.startswith("-") and argument not in self.commands
            if taking and spread[-1] != WITH:
                spread.append(WITH)
            spread.append(argument)
            taking = taking or argument == WITH
        return super().parse_args(ctx, spread)


@examples(
    "comity found --node node-ch --with node-card-es.json node-card-kr.json",
    "comity found --node node-es --with founding.json",
    "comity found draft node-card-*.json --out genesis.json",
)
@click.group(
    cls=FoundGroup,
    name="found",
    invoke_without_command=True,
    short_help="Found a federation from members' cards, by files.",
)
@click.option(
    WITH, "files", multiple=True, type=FILE, metavar="FILE…", help="Cards of other founders, and foundings from them."
)
@home_option("Your node, by the home that `comity init` made. Default: here.")
@click.option("--key", "keys", multiple=True, type=FILE, help="A governance key outside the home's offline/.")
@out_option("founding.json")
@click.option("--yes", is_flag=True, help="Sign without asking.")
@click.pass_context
def command(
    ctx: click.Context, files: tuple[Path, ...], home: Path, keys: tuple[Path, ...], target: Path, yes: bool
) -> None:
    """Found a federation with the owners of the cards. Each founder types this once: it shows the charter, signs it for
    your member, and keeps cards and consents in one file, for the next founder. It says what to send to whom; run it
    again at any time. Once all have consented, it writes the federation file into your home.

    The first founder names the cards of all others; each next one the founding that it was sent.
    """
    if ctx.invoked_subcommand is None:
        _found(files, home, keys, target, yes=yes)


def _found(files: Sequence[Path], home: Path, keys: Sequence[Path], target: Path, *, yes: bool) -> None:
    from comity_client.charter.joining import card_of
    from comity_client.founding import consent_to, own_seat
    from comity_client.founding_file import gather_founding, install_federation, is_founding, read_founding
    from comity_client.node_card import NodeCard

    out, own, before = output(), card_of(home), [target] * target.exists()
    if not files and not before:
        raise click.UsageError("name the cards of the other founders: comity found --node HOME --with CARD…")
    if before and not is_founding(target):
        raise click.UsageError(f"{target} is no founding: name another file with --out")
    foundings = [path for path in (*files, *before) if is_founding(path)]
    cards = [NodeCard.read(path) for path in files if path not in foundings]
    founding = gather_founding([own, *cards], [read_founding(path) for path in dict.fromkeys(foundings)])
    describe_charter(out, founding.body)
    own_seat(founding.body, home)
    _warn_if_all_decide(out, founding.body)
    if own in founding.missing:
        out.fact("read out", f"{syllables(founding.body.digest)}   by phone: all founders see these words")
        agree("Do the other founders see these words? Sign this charter for your member?", yes=yes)
        founding = founding.with_consent(consent_to(founding.body, home, governance=keys))
        out.done("signed, with the governance keys of your member")
    durable.write_file(target, founding.encode(), mode=0o644, point="founding")
    federation = None
    if not founding.missing:
        install_federation(home, target)
        federation = home / "federation.json"
    _show_next(out, founding, own, home, target)
    missing = {card.inception.id for card in founding.missing}
    members = (FounderItem(m.id, m.name, m.jurisdiction, m.id not in missing) for m in founding.body.members)
    out.answer(FoundingDocument(founding.body.digest, target, tuple(members), federation))


def _show_next(out: Output, founding: Founding, own: NodeCard, home: Path, target: Path) -> None:
    """Say what to send to whom, and what they type there."""
    name = shlex.quote(target.name)
    if founding.missing:
        waiting = ", ".join(f"{card.inception.label} ({card.inception.jurisdiction})" for card in founding.missing)
        out.say(f"  {target}: the charter is signed by {len(founding.consents)} of {len(founding.cards)}")
        out.fact("missing", waiting)
        first = founding.missing[0].inception.label
        out.hint(f"send {target} to {first}, who types: comity found --node HOME --with {name}")
        return
    others = [card.inception.label for card in founding.cards if card != own]
    out.done(f"founded: all {len(founding.cards)} members signed; the federation file is in {home}")
    if others:
        out.hint(f"send {target} to {', '.join(others)}, who type: comity serve --node HOME --federation {name}")
    out.hint(f"your node: comity serve --node {home}   users: comity trust pin {home / 'federation.json'}")


def _warn_if_all_decide(out: Output, body: Body) -> None:
    if body.policy.quorum_change == len(body.members):
        out.warn(
            f"every change of this charter needs all {len(body.members)} members: one lost key stops them all. "
            "From four members on, one may be absent"
        )


@examples(
    "comity found draft node-card-*.json --out genesis.json",
    "comity found draft node-card-*.json --namespace swiss-ai=51aa… --out genesis.json",
)
@command.command("draft", short_help="Write the genesis charter that all founders will sign.")
@click.argument("cards", nargs=-1, required=True, type=FILE)
@click.option("--namespace", "namespaces", multiple=True, metavar="NAME=ID", help="Bind a namespace to a publisher.")
@out_option("genesis.json")
def draft(cards: tuple[Path, ...], namespaces: tuple[str, ...], target: Path) -> None:
    """Write the genesis charter. The same cards give the same bytes."""
    from comity_client.founding import draft_genesis
    from comity_client.node_card import NodeCard

    bound = {name: parse_id(id_) for name, _, id_ in (item.partition("=") for item in namespaces)}
    body = draft_genesis([NodeCard.read(path) for path in cards], None, bound)
    durable.write_file(target, body.data, mode=0o644, point="genesis")
    show_charter(output(), body)
    _warn_if_all_decide(output(), body)
    output().hint(f"each member: comity found consent {target} --node NODE-HOME --out consent-NAME.line")


@examples("comity found consent genesis.json --node node-ch --out consent-ch.line")
@command.command("consent", short_help="Show a genesis charter and sign it for your member.")
@click.argument("genesis", type=FILE)
@home_option("Your member's node, by its home. Default: here.", name="directory")
@click.option("--key", "keys", multiple=True, type=FILE, help="A governance key outside the home's offline/.")
@out_option("consent.line")
@click.option("--yes", is_flag=True, help="Sign without asking.")
def consent(genesis: Path, directory: Path, keys: tuple[Path, ...], target: Path, yes: bool) -> None:
    """Show the charter, and sign exactly these bytes with your governance keys."""
    from comity_client.founding import consent_to

    body = _body(genesis)
    show_charter(output(), body)
    agree("Sign this charter for your member?", yes=yes)
    line = consent_to(body, directory, governance=keys)
    durable.write_file(target, line + b"\n", mode=0o644, point="consent")
    output().done(f"signed: {target}")
    output().hint(
        f"when all consents are here: comity found seal {genesis} consent-*.line node-card-*.json --out federation.json"
    )


@examples("comity found seal genesis.json consent-*.line node-card-*.json --out federation.json")
@command.command("seal", short_help="Combine charter, consents and cards into the federation file.")
@click.argument("genesis", type=FILE)
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="CONSENT… CARD…")
@out_option("federation.json")
def seal(genesis: Path, files: tuple[Path, ...], target: Path) -> None:
    """Combine charter, consents and cards into the file that everybody pins. An error names missing members."""
    from comity_client import founding
    from comity_client.node_card import NodeCard, is_card
    from comity_client.node_home import read_line

    body = _body(genesis)
    cards = [path for path in files if is_card(path)]
    lines = [read_line(path) for path in files if path not in cards]
    federation = founding.seal_federation(body, lines, [NodeCard.read(path) for path in cards])
    durable.write_pieces(target, federation.encoded(), mode=0o644, point="federation")
    show_charter(output(), body)
    output().done(f"founded: {target}")
    output().hint(
        f"each node: copy it to NODE-HOME/federation.json, then comity serve; users: comity trust pin {target}"
    )


def _body(path: Path) -> Body:
    return Body.parse(read_bounded(path, MAX_BYTES))
