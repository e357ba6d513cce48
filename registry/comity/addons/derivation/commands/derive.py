"""`comity derive check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from comity_cli.command import Command, Group, client, examples, output
from comity_cli.commands.publish import show_receipt
from comity_cli.document import ABSENT, Absent, document
from comity_cli.following import follow
from comity_cli.nodes import nodes_option
from comity_cli.output import Output, plural, size
from comity_cli.signers import signing

from comity.trust.encoding import Digest
from comity.trust.exit_statuses import PARTIAL
from comity.trust.frozen import frozen

if TYPE_CHECKING:
    from comity_client.client import Client
    from comity_client.publish import PublishReceipt

    from comity.addons.derivation.check import ComparedTensor
    from comity.addons.derivation.derive import Derivation
    from comity.trust.statements import Extent

SHOWN = 10


@frozen
class DerivedSide:
    """The child, or the parent."""

    title: str
    artifact: Digest


@frozen
class FileCounts:
    """Weight files that were read."""

    child: int
    parent: int


@frozen
class UnequalTensor:
    """A tensor that no step gives. With a counterpart, the first `element` that differs, its `offset` in the file, its
    bytes `here` and those `expected` in hex, and how many differ; `why`: there is no step."""

    file: str
    tensor: str
    parent_tensor: str
    why: str
    element: int | None = None
    offset: int | None = None
    here: str | None = None
    expected: str | None = None
    differing: int | None = None

    @classmethod
    def of(cls, compared: ComparedTensor) -> UnequalTensor:
        made, at = cls(compared.file, compared.name, compared.parent, compared.why), compared.difference
        if at is None:
            return made
        return replace(
            made, element=at.element, offset=at.offset, here=at.found, expected=at.expected, differing=at.elements
        )


@document("derivation")
class DerivationDocument:
    """How the tensors of a child follow from those of its parent, as `comity derive check --json` prints it.

    `steps`: tensors by the step that gives them. `left_out`: tensors of the parent that the child lacks;
    `left_out_by_rule`: those of them that converters omit. `receipt`: with --node, where the result was logged.
    """

    child: DerivedSide
    parent: DerivedSide
    result: Literal["exact", "share"]
    relation: str
    steps: Mapping[str, int]
    tools: Mapping[str, str]
    tensors: Extent
    bytes: Extent
    files: FileCounts
    left_out: tuple[str, ...]
    left_out_by_rule: tuple[str, ...]
    not_read: tuple[str, ...]
    differences: tuple[UnequalTensor, ...]
    receipt: PublishReceipt | Absent

    @classmethod
    def of(cls, derivation: Derivation, receipt: PublishReceipt | Absent) -> DerivationDocument:
        from comity.trust.statements import Extent

        found = derivation.comparison
        return cls(
            child=DerivedSide(derivation.child.title, derivation.child.artifact),
            parent=DerivedSide(derivation.parent.title, derivation.parent.artifact),
            result="exact" if found.exact else "share",
            relation=derivation.relation,
            steps=found.steps,
            tools=found.tools,
            tensors=Extent(len(found.tensors), len(found.equal)),
            bytes=Extent(found.bytes, found.equal_bytes),
            files=FileCounts(found.files, found.parent_files),
            left_out=found.left_out,
            left_out_by_rule=found.dropped,
            not_read=found.unread,
            differences=tuple(UnequalTensor.of(tensor) for tensor in found.tensors if not tensor.equal),
            receipt=receipt,
        )


@examples("comity derive check ./tiny-q8 ./tiny")
@click.group(cls=Group, name="derive", short_help="Derive a child's weights again from its parent, and compare.")
def command() -> None:
    """Check that weights were made from other weights: copied, cast, resharded, or quantised."""


@examples(
    "comity derive check ./tiny-bf16 ./tiny",
    "comity derive check inst/tiny-gguf@v1 inst/tiny@v1 --json",
    "comity derive check ./tiny-q8 ./tiny --node node-ch --sign-as 'Checking lab'",
)
@command.command("check", cls=Command, short_help="Compare every tensor of CHILD with the one derived from PARENT.")
@click.argument("child", metavar="CHILD")
@click.argument("parent", metavar="PARENT")
@nodes_option("Log the result at this node, signed.", old=("--log",))
@click.option("--sign-as", "publisher", default="", metavar="LABEL", help="The publisher that signs; with --node.")
def check(child: str, parent: str, nodes: tuple[str, ...], publisher: str) -> int:
    """Hash CHILD and PARENT (folders, or references that were pulled), derive every tensor of CHILD again from PARENT,
    and compare bit by bit: casts between FP32, FP16 and BF16, any sharding, and GGUF's F32, F16, BF16, Q8_0, Q4_0,
    Q4_1, Q5_0, Q5_1. The output lists the differences. For other derivations it gives the share of equal tensors.

    Exit status: 0 exact, 8 only a share, or not logged at every node that you named, 3 a side differs from its
    manifest.
    """
    from comity.addons.derivation.derive import log_derivation

    if publisher and not nodes:
        raise click.UsageError("--sign-as goes with --node")
    out = output()
    api = client()
    signer = signing(api, publisher) if nodes else None
    derivation = _derive(out, api, child, parent)
    _show(out, derivation)
    status = 0 if derivation.comparison.exact else PARTIAL
    logged: PublishReceipt | Absent = ABSENT
    if signer is not None:
        with follow(out, "logging") as on_event:
            receipt = log_derivation(api, derivation, publisher=signer, nodes=nodes, on_event=on_event)
        status = show_receipt(out, receipt, nodes, alone=False) or status
        logged = receipt
    elif derivation.comparison.equal:
        out.hint(f"comity derive check {child} {parent} --node NODE   # to log the result, signed")
    out.answer(DerivationDocument.of(derivation, logged))
    return status


def _derive(out: Output, api: Client, child: str, parent: str) -> Derivation:
    from comity.addons.derivation.derive import derive

    with out.progress("hashing", _size(child) + _size(parent)) as hashing:
        sides = [api.local_copy(what, on_hashed=hashing.advance) for what in (child, parent)]
    with out.progress("comparing", sides[0].manifest.size) as comparing:
        return derive(*sides, on_read=comparing.advance)


def _size(what: str) -> int:
    folder = Path(what)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def _show(out: Output, derivation: Derivation) -> None:
    found = derivation.comparison
    for role, side in (("child", derivation.child), ("parent", derivation.parent)):
        out.prose(f"{role:<7} {side.title}  sha256:{side.artifact}")
    if found.exact:
        out.done(
            f"EXACT ({derivation.relation}): every tensor of the child was derived again from the parent, bit for bit"
        )
    else:
        text = f"A SHARE: {len(found.equal)} of {plural(len(found.tensors), 'tensor')} can be derived from the parent"
        out.say(text, sign=f"{out.mark('!', 'yellow')} ")
    out.fact("tensors", f"{len(found.equal)} of {len(found.tensors)}, {size(found.equal_bytes)} of {size(found.bytes)}")
    if found.steps:
        out.fact("steps", ", ".join(f"{count} {step}" for step, count in found.steps.items()))
    unequal = [tensor for tensor in found.tensors if not tensor.equal]
    for tensor in unequal[:SHOWN]:
        out.fact("differs", f"{tensor.file}: {tensor.name}: {_reason(tensor)}")
    if len(unequal) > SHOWN:
        out.fact("", f"and {len(unequal) - SHOWN} more; --json lists all")
    _show_omissions(out, derivation)
    out.fact("with", ", ".join(f"{name} {version}" for name, version in found.tools.items()))
    out.fact("not compared", "everything except tensors: configuration, tokenizer, metadata in GGUF files")


def _show_omissions(out: Output, derivation: Derivation) -> None:
    found = derivation.comparison
    missing = [name for name in found.left_out if name not in found.dropped]
    if found.dropped:
        out.fact("left out", f"as converters do: {_some(found.dropped)}")
    if missing:
        out.fact("left out", f"of the parent's: {_some(missing)}")
    if found.unread:
        out.fact("not read", f"weights in other formats: {_some(found.unread)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _reason(tensor: ComparedTensor) -> str:
    if tensor.difference is None:
        return tensor.why
    at = tensor.difference
    others = {None: "", 1: "; nothing else in it differs"}.get(at.elements, f"; {at.elements} differ in it")
    return f"element {at.element} has bytes {_shown(at.found)}, the parent gives {_shown(at.expected)}{others}"


def _shown(hexadecimal: str) -> str:
    return hexadecimal if len(hexadecimal) <= 16 else f"{hexadecimal[:12]}…"
