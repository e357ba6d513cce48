"""`comity publish`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.rules.artifact_kind import ARTIFACT_KINDS, kind_text
from comity.trust.exit_statuses import PARTIAL
from comity.trust.frozen import frozen
from comity.trust.names import Reference
from comity.trust.statements import DOCUMENTS, LINEAGE_RELATIONS, Parent

from comity_cli.command import Command, agree, client, examples, options_as, output
from comity_cli.document import INLINE, document
from comity_cli.files import FILE, FOLDER
from comity_cli.following import follow
from comity_cli.nodes import nodes_option
from comity_cli.output import Output
from comity_cli.signers import PUBLISHER, signing

if TYPE_CHECKING:
    from comity.trust.keys import PrivateKey
    from comity_client.publish import ImageReceipt, PublishReceipt
    from comity_client.publishers import Publisher

NODE = nodes_option("Log it at this node; at most two. Default: at the home log.")


@frozen
class LoggedEntry:
    """An entry of a log, as its node shows it."""

    node: str
    origin: str
    index: int


@document("receipt")
class ReceiptDocument:
    """Where a statement about an artifact was logged, as `comity publish --json` and its like print it.

    `ignored`: paths that a publication never contains. `model_key`: the hint of the key that signed the `model.sig` of
    the folder; `uncovered`: paths that this signature does not cover. `image`: of the signature of its OCI image.
    `kind`: the kind of the artifact that its publisher stated with it.
    """

    receipt: PublishReceipt = field(metadata=INLINE)


@frozen
class PublishOptions:
    """What is stated about a folder, who signs it, and where it is logged."""

    licence: str
    unlisted_licence: bool
    licence_file: Path | None
    card: Path | None
    documents: tuple[str, ...]
    parents: tuple[str, ...]
    model_sig: bool
    model_sig_key: Path | None
    sign_oci: bool
    kind: str | None
    publisher: str
    nodes: tuple[str, ...]
    link: bool


@examples(
    "comity publish ./model --as inst/name@v1 --licence apache-2.0 --node node-ch",
    "comity publish ./model --as inst/name@v2 --licence other --licence-file LICENSE --node node-ch --node node-es",
    "comity publish ./model --as inst/name@v1 --licence mit --node /srv/comity/operator.sock --link",
    "comity publish ./model --as inst/name@v1 --licence mit --document evaluation=results.json --model-sig",
    "comity publish ./model --as inst/name@v1 --licence mit --sign-oci",
    "comity publish ./questions --as inst/questions@v1 --licence cc-by-4.0 --kind dataset",
)
@click.command(cls=Command, name="publish", short_help="Sign a folder and publish it to one or two nodes.")
@click.argument("folder", type=FOLDER)
@click.option(
    "--as", "name", required=True, metavar="NAMESPACE/NAME@VERSION", help="The name; it can never be changed."
)
@click.option(
    "--licence", "--license", required=True, metavar="SPDX", help="An SPDX expression, LicenseRef-NAME, or 'other'."
)
@click.option("--unlisted-licence", "--unlisted-license", is_flag=True, help="Publish --licence as it is, not checked.")
@click.option("--licence-file", "--license-file", type=FILE, help="The licence's text. Default: LICENSE in the folder.")
@click.option("--card", type=FILE, help="The model card. Default: README.md in the folder.")
@click.option(
    "--document",
    "documents",
    multiple=True,
    metavar="KIND=FILE",
    help="A training-summary or evaluation, listed by digest.",
)
@click.option(
    "--parent", "parents", multiple=True, metavar="RELATION=REF", help="Lineage, such as finetune=inst/base@v1."
)
@click.option("--model-sig", is_flag=True, help="First write an OpenSSF model.sig into FOLDER, with a key of yours.")
@click.option(
    "--model-sig-key", type=FILE, metavar="FILE", help="The key for model.sig: PKCS#8 on P-256 or P-384, mode 0600."
)
@click.option(
    "--kind", metavar="KIND", help=f"What it is: {', '.join(ARTIFACT_KINDS)}, or another word. Default: model."
)
@click.option("--sign-oci", is_flag=True, help="Also sign the OCI image of the artifact, for cosign and its like.")
@PUBLISHER
@NODE
@click.option("--link", is_flag=True, help="Hard-link into your own node's store (operator socket) instead of copying.")
@options_as("options", PublishOptions)
def command(folder: Path, name: str, options: PublishOptions) -> int:
    """Hash FOLDER, sign its manifest with your publisher's keys, upload what the node lacks, and log the statement.
    A receipt is printed only after the node's checkpoint proves the entry. Run it again to continue. Exit status 8: not
    every node that you named logged it."""
    out = output()
    api = client()
    signer = signing(api, options.publisher)
    signs_model = options.model_sig or options.model_sig_key
    _ask_for_parent(folder, options)
    with follow(out, "publishing") as on_event:
        receipt = api.publish(
            folder,
            name,
            publisher=signer,
            licence=options.licence,
            unlisted_licence=options.unlisted_licence,
            licence_file=options.licence_file,
            card=options.card,
            parents=[_parent(item) for item in options.parents],
            documents=dict(_document_of(item) for item in options.documents),
            model_key=_model_key(signer, options.model_sig_key) if signs_model else None,
            sign_image=options.sign_oci,
            kind=options.kind,
            nodes=options.nodes,
            link=options.link,
            on_event=on_event,
        )
    out.prose(f"{receipt.title}  sha256:{receipt.artifact}")
    if receipt.kind:
        out.fact("kind", kind_text(receipt.kind))
    if receipt.ignored:
        out.warn(f"left out, as in every publication: {', '.join(receipt.ignored[:5])}")
    if receipt.model_key:
        out.fact("model.sig", f"by key {receipt.model_key[:16]}: comity publisher show {signer.label!r}")
    if receipt.uncovered:
        out.warn(f"model.sig does not cover, as with other tools of the format: {', '.join(receipt.uncovered[:5])}")
    status = show_receipt(out, receipt, options.nodes)
    if receipt.image is not None:
        status = max(status, show_image(out, receipt.image, signer, options.nodes))
    out.hint(f"comity whereis {receipt.title}   # to see the mirrors")
    return status


def person_can_answer() -> bool:
    return sys.stdin.isatty()


def _ask_for_parent(folder: Path, options: PublishOptions) -> None:
    """Ask a person whose card names a base model, and who names no parent. Where nobody can answer, `publish` warns."""
    from comity_client.publish import named_base

    if options.parents or output().as_json or not person_can_answer():
        return
    base = named_base(folder, options.card)
    if base is not None:
        output().warn(base.warning)
        agree("Publish it without a parent?", yes=False)


def _model_key(publisher: Publisher, file: Path | None) -> PrivateKey:
    from comity_client.pull.model_sig import own_key, read_model_key

    return read_model_key(file) if file else own_key(publisher)


def _parent(text: str) -> Parent:
    relation, equals, parent = text.partition("=")
    if not equals or relation not in LINEAGE_RELATIONS:
        raise click.UsageError(f"--parent takes RELATION=REF, where RELATION is one of {', '.join(LINEAGE_RELATIONS)}")
    reference = Reference.parse(parent)
    return Parent(relation, parent, reference.digest)


def _document_of(text: str) -> tuple[str, Path]:
    kind, equals, file = text.partition("=")
    if not equals or kind not in DOCUMENTS or not Path(file).is_file():
        raise click.UsageError(f"--document takes KIND=FILE, where KIND is one of {', '.join(DOCUMENTS)}")
    return kind, Path(file)


def logged_status(logged: Sequence[object], nodes: Sequence[str]) -> int:
    """The exit status of a command that logs at each of `nodes`, in as many receipts as nodes logged it: 8 if one of
    those that the user named did not. At least one did, or the command failed."""
    return PARTIAL if len(logged) < len(nodes) else 0


def show_image(out: Output, image: ImageReceipt, signer: Publisher, nodes: Sequence[str]) -> int:
    """Print what was signed of an image, and where it was logged. Returns the exit status; `nodes` are those that the
    user named."""
    out.fact("image", f"sha256:{image.digest}, signed by the {image.algorithm} key {image.key[:16]}")
    for logged in image.logged:
        out.done(f"signature logged at {logged.node}: entry {logged.index} of {logged.origin}")
    out.hint(f"comity publisher key {signer.label!r} --out pub.pem   # for cosign verify --key pub.pem")
    return logged_status(image.logged, nodes)


def show_receipt(out: Output, receipt: PublishReceipt, nodes: Sequence[str], *, alone: bool = True) -> int:
    """Print the proven log entries, and the cosigners so far (cosignatures follow within seconds). Returns the exit
    status.

    Args:
        nodes: those that the user named.
        alone: print the JSON document too; False if it is part of another document.
    """
    for logged in receipt.logged:
        out.done(f"logged at {logged.node}: entry {logged.index} of {logged.origin}, proven by a checkpoint")
        out.fact("cosigned by", ", ".join(logged.cosigners) or "nobody yet; publishing does not wait for cosignatures")
    if alone:
        out.answer(ReceiptDocument(receipt))
    return logged_status(receipt.logged, nodes)
