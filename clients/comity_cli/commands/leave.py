"""`comity leave`."""

from __future__ import annotations

from typing import Any

import click

from comity_cli.charter.context import CharterContext, signing_options
from comity_cli.command import Command, examples, output


@examples(
    "comity leave --node node-es --text 'our mandate ends in June'",
    "comity leave --node node-es --out /media/stick",
    "comity keys show --node node-es",
)
@click.command(cls=Command, name="leave", short_help="Ask to be removed from the next charter.")
@click.option("--text", default="", help="Reason. Public.")
@signing_options
def command(text: str, **options: Any) -> None:
    """Ask to be removed from the next charter. You stay a member until a charter removes you, and you keep your files,
    your log and its mirrors, your keys and your publications."""
    from comity_client.charter import proposals as acts

    from comity_cli.charter.signing import sign_and_deliver

    context = CharterContext(**options)
    member = context.charter_state.seat_of(context.governance_keys[0].public)[0]
    sign_and_deliver(
        context,
        acts.leave_plan(context.charter_state, context.governance_keys[0].public, text),
        context.governance_keys,
    )
    output().hint(f"another member drafts: comity proposal new remove '{member.name}' --node HOME")
