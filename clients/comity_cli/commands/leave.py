"""`comity leave`."""

from __future__ import annotations

from typing import Any

import click

from comity_cli.command import Command, examples, output
from comity_cli.charter.office import Office, acting_options


@examples(
    "comity leave --dir node-es --text 'our mandate ends in June'",
    "comity leave --dir node-es --out /media/stick",
    "comity keys show --dir node-es",
)
@click.command(cls=Command, name="leave", short_help="Ask to be left out of the next charter.")
@click.option("--text", default="", help="Why; everybody reads it.")
@acting_options
def command(text: str, **options: Any) -> None:
    """Ask to be left out of the next charter. You stay a member until one says so, and you keep everything: your bytes,
    your log and its mirrors, your keys and what you published."""
    from comity_client.charter import proposals as acts

    from comity_cli.charter.signing import sign_and_deliver

    office = Office(**options)
    member = office.sitting.seat_of(office.desk[0].public)[0]
    sign_and_deliver(office, acts.leave_plan(office.sitting, office.desk[0].public, text), office.desk)
    output().hint(f"another member drafts: comity proposal new remove '{member.name}' --dir HOME")
