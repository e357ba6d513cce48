"""`comity leave`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from comity_cli.charter.context import CharterContext, signing_options
from comity_cli.command import Command, client, examples, output
from comity_cli.files import NEW_FOLDER
from comity_cli.following import follow


@examples(
    "comity leave --node node-es --text 'our mandate ends in June'",
    "comity leave --node node-es --out /media/stick",
    "comity leave --node node-es --export ./everything",
    "comity keys show --node node-es",
)
@click.command(cls=Command, name="leave", short_help="Ask to be removed from the next charter.")
@click.option("--text", default="", help="Reason. Public.")
@click.option(
    "--export", "folder", type=NEW_FOLDER, help="First write all that your node has into this folder, as a bundle."
)
@signing_options
def command(text: str, folder: Path | None, **options: Any) -> None:
    """Ask to be removed from the next charter. You stay a member until a charter removes you, and you keep your files,
    your log and its mirrors, your keys and your publications."""
    from comity_client.charter import proposals as acts

    from comity_cli.charter.signing import sign_and_deliver

    context = CharterContext(**options)
    if folder is not None:
        _export(context, folder)
    member = context.charter_state.seat_of(context.governance_keys[0].public)[0]
    sign_and_deliver(
        context,
        acts.leave_plan(context.charter_state, context.governance_keys[0].public, text),
        context.governance_keys,
    )
    output().hint(f"another member drafts: comity proposal new remove {shlex.quote(member.name)} --node HOME")


def _export(context: CharterContext, folder: Path) -> None:
    """Write charters, all logs and all artifacts; keys are in the home, and in no bundle."""
    from comity_client.own_node import operator_socket

    from comity_cli.commands.export import show_export

    with follow(output(), "exporting") as on_event:
        exported = client().export_bundle(
            folder, str(operator_socket(context.home)), everything=True, on_event=on_event
        )
    show_export(output(), exported, folder)
