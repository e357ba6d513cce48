"""`comity continues`."""

from __future__ import annotations

import click
from comity.trust.encoding import printable

from comity_cli.command import Command, agree, client, examples, output
from comity_cli.commands.publish import NODE, show_receipt
from comity_cli.commands.vouch import own_node
from comity_cli.following import follow
from comity_cli.signers import SignerOptions, signer_options


@examples(
    "comity continues inst/name@v1 --of hf:org/name@6c1277e6c1277e6c1277e6c1277e6c1277e6c127",
    "comity continues sha256:9f2c… --of hf:org/name@6c1277e6c1277e6c1277e6c1277e6c1277e6c127 --dir ./node-es",
    "comity continues inst/name@v1 --of hf:org/name@6c1277e6c1277e6c1277e6c1277e6c1277e6c127 --withdraw",
)
@click.command(cls=Command, name="continues", short_help="Say which commit of an upstream an artifact was.")
@click.argument("reference", metavar="REF")
@click.option("--of", "origin", required=True, metavar="ORIGIN", help="The commit: hf:org/name@COMMIT, all 40 digits.")
@click.option("--withdraw", is_flag=True, help="State it no longer.")
@signer_options
@NODE
@click.option("--yes", is_flag=True, help="Sign as a member without asking.")
def command(reference: str, origin: str, withdraw: bool, by: SignerOptions, nodes: tuple[str, ...], yes: bool) -> int:
    """Sign and log that the artifact of REF has the bytes that a commit of an upstream repository had, as your
    publisher or (--dir) as your member. Others see it as your claim. Members that say the same, or whose nodes fetched
    these bytes from the upstream, corroborate it, and gateways may then serve the artifact for the name of the commit.

    The command cannot check it. Compare digests from before the repository was gone. Exit status 8: not every node that
    you named logged it.
    """
    from comity_client.continuations import state_continuation

    out, api = output(), client()
    signer = by.of(api)
    if by.home is not None:
        what = f"{reference} {'does not continue' if withdraw else 'continues'} {origin}"
        out.say(f"{printable(signer.label)} signs this with its governance keys: {printable(what)}")
        agree("Sign this?", yes=yes)
    with follow(out, "logging") as on_event:
        receipt = state_continuation(
            api, reference, origin, signer, withdraw=withdraw, nodes=nodes or own_node(by.home), on_event=on_event
        )
    state = "stated no longer: " if withdraw else ""
    out.prose(f"{state}{receipt.title}  sha256:{receipt.artifact} continues {origin}")
    status = show_receipt(out, receipt, nodes)
    out.hint(f"comity show sha256:{receipt.artifact}   # who says the same")
    return status
