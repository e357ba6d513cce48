"""`comity invite`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from comity.content import durable
from comity.trust.encoding import Digest

from comity_cli.charter.context import CharterContext
from comity_cli.command import Command, examples, output
from comity_cli.document import document
from comity_cli.files import out_option


@document("invitation")
class InvitationDocument:
    """A federation file for a newcomer, as `comity invite --json` prints it.

    `spoken`: the words to read out, by what they are of.
    """

    file: Path
    federation: Digest
    epoch: int
    spoken: Mapping[str, str]


@examples("comity invite --out federation.json", "comity invite --json")
@click.command(cls=Command, name="invite", short_help="Write the federation file for a newcomer.")
@out_option("federation.json")
@click.option("--federation", default="", metavar="ID", help="Which pinned federation, where there are several.")
def command(target: Path, federation: str) -> None:
    """Write a federation file with every proven epoch, and the nodes. It contains no secret and gives no rights.
    A newcomer starts with it and compares the words that you read out."""
    from comity_client.charter.joining import make_invitation

    out = output()
    invitation = make_invitation(CharterContext(federation=federation).governance.newest_federation())
    durable.write_pieces(target, invitation.federation.encoded(), mode=0o644, point="invitation")
    out.done(f"{target}: epoch {invitation.federation.body.epoch}, {len(invitation.federation.nodes)} nodes")
    for what, words in invitation.spoken:
        out.fact(what, words)
    body = invitation.federation.body
    out.answer(InvitationDocument(target, body.federation, body.epoch, dict(invitation.spoken)))
    out.hint(
        f"they run: comity join {target} --node HOME; read the words to them through another channel than the file"
    )
