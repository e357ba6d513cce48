"""`comity found draft|consent|seal`: found a federation by files, with the consent of every member."""

from __future__ import annotations

from pathlib import Path

import click
from comity.bounded_file import read_bounded
from comity.content import durable
from comity.trust.charter.document import MAX_BYTES, Body
from comity.trust.names import parse_id

from comity_cli.charter.rendering import show_charter
from comity_cli.command import Group, agree, examples, output
from comity_cli.files import FILE, out_option
from comity_cli.nodes import home_option


@examples(
    "comity found draft node-card-*.json --out genesis.json",
    "comity found consent genesis.json --node node-ch --out consent-ch.line",
    "comity found seal genesis.json consent-*.line node-card-*.json --out federation.json",
)
@click.group(cls=Group, name="found", short_help="Found a federation from members' cards, by files.")
def command() -> None:
    """Found a federation: draft the charter from every member's card, collect every member's consent, seal."""


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
    if body.policy.quorum_change == len(body.members):
        output().warn(
            f"every change of this charter needs all {len(body.members)} members: one lost key stops them all. "
            "From four members on, one may be absent"
        )
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
