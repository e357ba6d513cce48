"""`comity trust hardware`: the owner's pins for hardware evidence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from comity_cli.command import Group, agree, client, examples, output
from comity_cli.document import INLINE, document
from comity_cli.files import FILE
from comity_cli.output import plural

from comity.rules.hardware_evidence import KINDS
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

if TYPE_CHECKING:
    from comity.addons.hardware.certificates import RevocationData

DAY: Final = 86_400


@frozen
class RootItem:
    """A vendor's root certificate. `digest` is null once it is no longer pinned."""

    kind: str
    digest: Digest | None
    subject: str


@document("hardware-root")
class HardwareRootDocument:
    """A vendor's root, as `comity trust hardware pin --json` and `comity trust hardware unpin --json` print it."""

    root: RootItem = field(metadata=INLINE)


@frozen
class KeptRevocation:
    """A file with revocation data, by its SHA-256."""

    digest: Digest
    data: RevocationData = field(metadata=INLINE)


@document("hardware-pins")
class HardwarePinsDocument:
    """The pinned roots of vendors, as `comity trust hardware ls --json` prints them.

    `reference`: accepted values, by kind of evidence and name.
    """

    roots: tuple[RootItem, ...]
    revocations: int
    revocation_data: tuple[KeptRevocation, ...]
    reference: Mapping[str, Mapping[str, tuple[str, ...]]]


@document("hardware-revocation")
class HardwareRevocationDocument:
    """Revocation data of one file, as `comity trust hardware revocation --json` prints it.

    `made`, `due`: when they were made, and when newer data are due, in POSIX seconds.
    """

    data: RevocationData = field(metadata=INLINE)


@document("hardware-revocations")
class HardwareRevocationsDocument:
    """Revocation data of a folder, as `comity trust hardware revocation --json` prints them.

    `others`: files without revocation data.
    """

    kept: tuple[RevocationData, ...]
    others: int


@examples(
    "comity trust hardware pin nvidia-gpu nvidia-device-root.pem",
    "comity trust hardware ls",
    "comity trust hardware revocation gpu.crl",
)
@click.group(cls=Group, name="hardware", short_help="Pin roots of hardware vendors.")
def hardware() -> None:
    """Roots under which hardware evidence of offers is accepted. None is pinned unless you do it: a vendor's root is a
    foreign root, and evidence under other roots is only a claim. `hardware/reference.toml` in your state folder may
    list accepted versions and measurements; docs/attestation.md says how."""


@examples("comity trust hardware pin nvidia-gpu nvidia-device-root.pem")
@hardware.command("pin", short_help="Pin a vendor's root certificate.")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("file", type=FILE)
@click.option("--yes", is_flag=True, help="Pin without asking.")
def pin(kind: str, file: Path, yes: bool) -> None:
    """Pin the root certificate in FILE (PEM) for one kind of evidence. FILE may be a vendor's chain of authorities,
    such as AMD's ASK and ARK: the root is pinned. Compare its digest with one that you got from the vendor another
    way."""
    from comity.addons.hardware.pins import pin_store

    out, pins = output(), pin_store(client().home)
    shown = pins.read_root(kind, file)
    out.fact("subject", shown.subject)
    out.fact("sha256", shown.digest)
    agree(f"Pin it as a root for {kind}?", yes=yes)
    root = pins.pin(kind, file)
    out.done(f"pinned for {kind}: {root.digest}")
    out.answer(HardwareRootDocument(RootItem(kind, root.digest, root.subject)))
    out.hint("comity offer ls")


@examples("comity trust hardware ls", "comity trust hardware ls --json")
@hardware.command("ls", short_help="List pinned roots.")
def ls() -> None:
    """List the pinned roots, and how much revocation data is kept."""
    from comity.addons.hardware.pins import pin_store

    out, pins = output(), pin_store(client().home)
    roots = [root for kind in KINDS for root in pins.roots(kind)]
    loaded = pins.load()
    if roots:
        out.table(("kind", "sha256", "subject"), [(root.kind, root.digest[:16], root.subject) for root in roots])
    else:
        out.say("No vendor's root is pinned: all hardware evidence is shown as claimed.")
        out.hint("comity trust hardware pin nvidia-gpu FILE")
    kept, today = pins.revocations(), int(time.time())
    rows = [(found.kind, found.issuer, age(found, today), digest[:16]) for digest, found in kept]
    if rows:
        out.table(("revocation data", "of, as it claims", "age", "sha256"), rows)
    out.fact("revocation data", f"{len(loaded.revocations)} files")
    out.fact("reference values", ", ".join(f"{kind}: {', '.join(facts)}" for kind, facts in loaded.reference.items())
             or "none")  # fmt: skip
    reference = {k: {n: tuple(sorted(v)) for n, v in facts.items()} for k, facts in loaded.reference.items()}
    listed = tuple(RootItem(root.kind, root.digest, root.subject) for root in roots)
    data = tuple(KeptRevocation(*each) for each in kept)
    out.answer(HardwarePinsDocument(listed, len(loaded.revocations), data, reference))


@examples("comity trust hardware unpin 9f2c41aa")
@hardware.command("unpin", short_help="Remove a pinned root.")
@click.argument("digest")
def unpin(digest: str) -> None:
    """Remove the pinned root whose SHA-256 begins with DIGEST."""
    from comity.addons.hardware.pins import pin_store

    root = pin_store(client().home).unpin(digest.removeprefix("sha256:"))
    output().done(f"no longer pinned for {root.kind}: {root.subject}")
    output().answer(HardwareRootDocument(RootItem(root.kind, None, root.subject)))


@examples("comity trust hardware revocation gpu.crl", "comity trust hardware revocation ./vendor-revocations")
@hardware.command("revocation", short_help="Keep a revocation list or an OCSP response.")
@click.argument("source", metavar="FILE|DIR", type=click.Path(exists=True, path_type=Path))
def revocation(source: Path) -> None:
    """Keep revocation data (DER), from any source: what their issuer did not sign has no effect. DIR is a folder with
    such files, for example an artifact in which a member mirrors them."""
    from comity.addons.hardware.pins import pin_store

    out, pins = output(), pin_store(client().home)
    if source.is_dir():
        found, others = pins.add_revocations(source)
        for each in found:
            out.done(f"kept: a revocation {each.kind} of {each.issuer}, {age(each, int(time.time()))}")
        if others:
            out.say(f"{plural(others, 'file')} without revocation data")
        out.answer(HardwareRevocationsDocument(tuple(found), others))
        return
    kept = pins.add_revocation(source)
    out.done(f"kept: a revocation {kept.kind} of {kept.issuer}, {age(kept, int(time.time()))}")
    out.answer(HardwareRevocationDocument(kept))


def age(found: RevocationData, at: int) -> str:
    """`made 3 days ago; newer data are due since 1 day`, by the data's own times, which their issuer signs."""
    made = f"made {plural(max(at - found.made, 0) // DAY, 'day')} ago"
    if found.due is None:
        return f"{made}; it does not say when newer data are due"
    if at <= found.due:
        return f"{made}; newer data are due in {plural((found.due - at) // DAY, 'day')}"
    return f"{made}; STALE: newer data are due since {plural((at - found.due) // DAY, 'day')}"
