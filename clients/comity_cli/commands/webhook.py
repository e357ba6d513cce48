"""`comity webhook new|ls`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import click
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.document import document
from comity_cli.node_home import node_file, node_installed, recorded_act
from comity_cli.nodes import home_option

if TYPE_CHECKING:
    from comity.node.maintenance.home_files import WaitingHook

HOME: Final = home_option("Your node, by its home. Default: here.", exists=False)
KINDS: Final = ("version", "advisory", "alert", "copies-short", "proposal-waiting")


@document("webhook")
class WebhookDocument:
    """A new webhook, as `comity webhook new --json` prints it.

    `publisher`: the id of which alone it is told, or empty. `secret`: for the receiver, who checks signatures with it;
    it is printed once.
    """

    name: str
    url: str
    events: tuple[str, ...]
    publisher: str
    secret: Annotated[str, {"pattern": "^whsec_[A-Za-z0-9+/]+=*$"}]


@frozen
class WebhookItem:
    """A webhook of a list."""

    name: str
    url: str
    events: tuple[str, ...]
    publisher: str
    waiting: int


@document("webhooks")
class WebhooksDocument:
    """The webhooks of a node, as `comity webhook ls --json` prints them.

    `waiting`: events that are not delivered yet.
    """

    webhooks: tuple[WebhookItem, ...]


@examples("comity webhook new ops https://chat.example.org/comity --event alert", "comity webhook ls")
@click.group(cls=Group, name="webhook", short_help="Tell other programs what happens at your node.")
def command() -> None:
    """Have your node post signed CloudEvents: new versions, advisories, alerts, artifacts with too few copies, votes
    that wait for your member; or what concerns one publisher."""


@examples(
    "comity webhook new ops https://chat.example.org/comity",
    "comity webhook new us https://chat.example.org/us --publisher ID",
    "comity webhook new local http://127.0.0.1:8080/hook --event alert --event copies-short --node ./node-ch",
)
@command.command("new", short_help="Add a webhook, and make its secret.")
@click.argument("name")
@click.argument("url")
@click.option("--event", "events", type=click.Choice(KINDS), multiple=True, help="Repeatable. Default: all.")
@click.option("--publisher", default="", metavar="ID", help="Tell what concerns this publisher alone; its id in full.")
@HOME
def new(name: str, url: str, events: tuple[str, ...], publisher: str, home: Path) -> None:
    """Add a webhook called NAME that posts to URL, and print its secret once. The receiver checks each request with it,
    as Standard Webhooks say. With a publisher, it is told of statements under that identity, of claims of others to its
    names, and of its files under other names. The node reads the file when it starts. http:// is for a receiver on this
    machine only."""
    file, out = node_file(home), output()
    with node_installed():
        from comity.node.maintenance.home_files import add_webhook
    with recorded_act(home, "webhook.new", name):
        added = add_webhook(file, name, url, events, publisher=publisher)
    if out.quiet and not out.as_json:
        click.echo(added.secret)  # it is printed only once, so quiet means nothing but the secret
    out.done(f"{added.file} has the webhook {name}")
    out.fact("events", ", ".join(added.hook.events))
    out.fact("secret", added.secret)
    out.answer(WebhookDocument(name, url, added.hook.events, publisher, added.secret))
    named = "" if added.named else f'set file = "{added.file.name}" in [webhooks] of node.toml, and '
    out.hint(f"{named}start the node again: comity serve --node {home}")


@examples("comity webhook ls", "comity webhook ls --node ./node-ch --json")
@command.command("ls", short_help="List the webhooks, and what waits for each.")
@HOME
def ls(home: Path) -> None:
    """List the webhooks and the number of events that wait for each: those of the next seconds, and those that were not
    delivered yet. Why a delivery failed is in the log of the node."""
    file, out = node_file(home), output()
    with node_installed():
        from comity.node.maintenance.home_files import waiting_hooks
    found = waiting_hooks(file)
    if found:
        rows = [(each.hook.name, each.hook.url, ", ".join(each.hook.events), str(each.waiting)) for each in found]
        out.table(("name", "url", "events", "waiting"), rows, shorten=("url",))
    else:
        out.say("None yet.")
        out.hint("comity webhook new NAME URL")
    out.answer(WebhooksDocument(tuple(map(_item, found))))


def _item(found: WaitingHook) -> WebhookItem:
    hook = found.hook
    return WebhookItem(hook.name, hook.url, hook.events, hook.publisher, found.waiting)
