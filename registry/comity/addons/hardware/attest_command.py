"""`comity offer challenge` and `comity offer attest`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
from comity_cli.command import Command, agree, client, examples, output
from comity_cli.files import FILE, out_option
from comity_cli.offers.context import PROVIDER_HOME, OfferContext, now
from comity_cli.output import plural

from comity.addons.hardware.evidence_files import challenge_json, read_challenge, read_evidence
from comity.content import durable
from comity.trust.errors import Untrusted


@examples("comity offer challenge 9f2c41aa --node node-ch", "comity offer challenge 9f2c41aa --out challenge.json")
@click.command(cls=Command, name="challenge", short_help="Make the nonce that hardware evidence has to sign.")
@click.argument("offer", metavar="OFFER")
@out_option("challenge.json")
@PROVIDER_HOME
def challenge(offer: str, target: Path, home: Path) -> None:
    """Write a challenge for your OFFER, with the newest checkpoint of your node's log. Give its nonce to the vendor's
    tool at each machine, then run `comity offer attest`. Nothing is logged."""
    out, context = output(), OfferContext(home=home)
    made = context.offer_client.challenge(context.offer(offer), context.socket)
    document = challenge_json(made)
    durable.write_file(target, json.dumps(document, indent=1).encode() + b"\n", mode=0o644, point="offer")
    out.done(f"{target}: a challenge after entry {made.size} of {made.origin}")
    out.fact("nonce", made.nonce.hex())
    out.document("offer-challenge", {"file": str(target), **document})
    file, where = shlex.quote(str(target)), shlex.quote(str(home))
    out.hint(f"comity offer attest --challenge {file} --evidence FILE --node {where}")


@examples(
    "comity offer attest --challenge challenge.json --evidence gpus.json --node node-ch",
    "comity offer attest --challenge challenge.json --snp report.bin chain.pem --node node-ch",
)
@click.command(cls=Command, name="attest", short_help="Log hardware evidence of an offer's machines.")
@click.option("--challenge", "file", required=True, type=FILE, help="The file of `comity offer challenge`.")
@click.option("--evidence", "lists", multiple=True, type=FILE, help="GPU evidence, as NVIDIA's tools write it (JSON).")
@click.option("--snp", multiple=True, type=(FILE, FILE), metavar="REPORT CHAIN",
              help="SEV-SNP report, and its VCEK and authorities in PEM.")  # fmt: skip
@click.option("--tdx", multiple=True, type=FILE, metavar="QUOTE", help="A TDX quote.")
@click.option("--yes", is_flag=True, help="Log it without a question.")
@PROVIDER_HOME
def attest(file: Path, lists: Sequence[Path], snp: Sequence[tuple[Path, Path]], tdx: Sequence[Path], yes: bool,
           home: Path) -> None:  # fmt: skip
    """Log evidence that vendors' firmware signed over the challenge. Everybody can appraise it by roots of their own
    choice; it shows the certificates of your devices to everybody, for ever."""
    from comity.addons.hardware.appraisal import appraise
    from comity.addons.hardware.pins import pin_store
    from comity.wire.offer import Attest

    if not (lists or snp or tdx):
        raise click.UsageError("give the evidence: --evidence, --snp or --tdx")
    out, context, made = output(), OfferContext(home=home), read_challenge(file)
    found = read_evidence(lists, snp, tdx)
    for device in appraise(found, made.nonce, pin_store(client().home).load(), now()):
        wrong = [row for row in device.findings if row.state == "fail"]
        if wrong:
            raise Untrusted(f"{device.kind}: the evidence fails", why=f"{wrong[0].name}: {wrong[0].text}",
                            hint="comity offer challenge OFFER, and take the evidence again",
                            code="HARDWARE-UNTRUSTED")  # fmt: skip
    socket = context.socket
    agree(f"Log evidence of {plural(len(found.devices), 'device')} publicly, for ever?", yes=yes)
    action = Attest(made.subject, made.size, made.root, found.encode())
    entry, index = context.offer_client.attest(action, socket)
    out.done(f"logged: entry {index}, proven by a checkpoint")
    out.document("offer-attested", {"offer": made.subject, "line": entry.digest, "index": index})
    out.hint(f"comity offer show {made.subject[:12]}")
