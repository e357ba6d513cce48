"""`comity init`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from comity.trust.encoding import SYLLABLE_BITS, Digest, format_id, syllables
from comity.wire.addresses import Address
from comity_client.node_home import ListenSettings, NewNode, init_node

from comity_cli.command import Command, examples, options_as, output
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FOLDER
from comity_cli.node_home import SeatOptions
from comity_cli.places import PlaceOptions, place_options


@document("member")
class NewMemberDocument:
    """A new member's identity and node card, as `comity init --json` made them."""

    id: Digest
    spelled: str
    syllables: str
    origin: str
    card: Path


@examples(
    "comity init --jurisdiction CH --org 'Example Institute' --name node-ch.example.org",
    "comity init --jurisdiction ES --org BSC --name node-es --mutual 10.0.0.5:7443 --open 10.0.0.5:7444",
    "comity init --jurisdiction ES --org BSC --name node-es --cloud 'Example Cloud' --reach US",
    "comity init --jurisdiction FR --org CNRS --name node-fr.example --governance-keys 3 --recovery-keys 3",
)
@click.command(cls=Command, name="init", short_help="Make a member's keys and a node's home.")
@click.option("--jurisdiction", required=True, help="ISO 3166-1 code (CH), or a name that the charter defines.")
@click.option("--org", required=True, help="The name of the institution.")
@click.option("--name", "node_name", required=True, help="The node's name; unique in the federation and never changed.")
@click.option("--mutual", default="127.0.0.1:7443", show_default=True, help="host:port for other nodes.")
@click.option("--open", "open_", default="127.0.0.1:7444", show_default=True, help="host:port for everybody.")
@click.option("--http", default="127.0.0.1:7480", show_default=True, help="IP:port of the HTTP gateway; '' for none.")
@click.option("--files", metavar="IP:PORT", help="The gateway's file server. Default: a port beside --http.")
@click.option("--ranges", metavar="IP:PORT", help="File server for nodes and pull. Default: a port beside --open.")
@click.option("--metrics", default="", metavar="IP:PORT", help="Prometheus metrics. Default: none.")
@click.option("--origin", default="", help="The log's name, never changed; {key} is its key's hash. Default: NAME/log")
@click.option("--governance-keys", default=1, show_default=True, help="How many keys sign votes of the member.")
@click.option("--threshold", type=int, help="How many of them must sign. Default: more than half.")
@click.option(
    "--recovery-keys", default=1, show_default=True, help="How many keys can change the governance keys later."
)
@click.option("--token", "tokens", multiple=True, type=FILE, help="TOML file of one more governance key, in an HSM.")
@place_options
@click.option("--dir", "directory", type=NEW_FOLDER, help="Default: ./NAME")
@options_as("listeners", ListenSettings)
@options_as("node", NewNode)
@options_as("seat", SeatOptions)
def command(node: NewNode, seat: SeatOptions, declared: PlaceOptions, directory: Path | None) -> None:
    """Make a new member's keys, node record and configuration in a new directory. With --operator, --cloud or --reach,
    the node record declares where the machines are and whose law reaches them: copies are counted by it."""
    home = directory or Path(node.node_name)
    place = declared.declared_by(node.org, node.jurisdiction) if declared.given else None
    card = init_node(home, replace(node, seat=seat.shape, place=place))
    out, member = output(), card.inception.id
    out.done(f"{node.org} ({node.jurisdiction}) has keys and a node in {home}")
    out.fact("member id", format_id(member))
    out.fact("on the phone", f"{syllables(member)}   (its first {SYLLABLE_BITS} bits)")
    out.fact("log", card.record.origin)
    out.fact("offline", f"{home / 'offline'}: move these keys to a medium that is not connected")
    if (keys := seat.governance_keys) > 1:
        out.fact("to sign", f"{card.inception.keys.threshold} of {keys} governance keys sign")
    out.answer(
        NewMemberDocument(member, format_id(member), syllables(member), card.record.origin, home / "node-card.json")
    )
    local = [address for address in (*card.mutual, *card.open) if Address.parse(address).is_loopback]
    if local:
        out.warn(
            f"this node advertises {' and '.join(local)}, which other machines cannot reach; for members on other "
            "machines, make it in a new directory with --mutual HOST:7443 --open HOST:7444"
        )
    out.hint(f"to join a federation that exists: comity join FEDERATION-FILE --node {home} --wait")
    out.hint(
        f"to found one: the first founder gets the cards of all others (yours is {home / 'node-card.json'}), and "
        f"types: comity found --node {home} --with CARD…"
    )
