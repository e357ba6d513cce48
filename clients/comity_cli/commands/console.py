"""`comity console sign-in`."""

from __future__ import annotations

import click

from comity_cli.command import Group, examples, output
from comity_cli.nodes import node_option


@examples("comity console sign-in --node HOME")
@click.group(cls=Group, name="console", short_help="Sign in to the pages of your node.")
def command() -> None:
    """Sign in to the pages that your node shows to its operators. What everybody may see needs no sign-in: open the
    address of the gateway in a browser."""


@examples("comity console sign-in --node /var/lib/comity", "comity console sign-in --node HOME --quiet")
@command.command("sign-in", short_help="Print a link that signs you in once.")
@node_option("Your node, by its home or operator socket. Default: the home here.")
def sign_in(node: str | None) -> None:
    """Ask your node, over its operator socket, for a link that signs you in to its console as an operator. It works
    once, for five minutes. Open it yourself and give it to nobody. With --quiet the link alone is printed."""
    from comity_client.own_node import own_socket, sign_in_link

    out, made = output(), sign_in_link(own_socket(node))
    if out.quiet and not out.as_json:
        click.echo(made.link)  # quiet means nothing but the link
    out.say("Open this link in a browser. It works once:")
    out.fact("link", made.link)
    out.fact("works for", f"{made.seconds // 60} minutes")
    out.document("sign-in", {"link": made.link, "seconds": made.seconds})
