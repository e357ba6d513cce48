"""`comity attestation export|add|ls|keys|pin|unpin`: attestations for other tools, and of other tools."""

from __future__ import annotations

import time
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity_cli.command import Group, agree, client, examples, output
from comity_cli.document import INLINE, document
from comity_cli.files import FILE, out_option

from comity.trust.encoding import Digest, printable
from comity.trust.frozen import frozen

if TYPE_CHECKING:
    from comity_cli.output import Output

    from comity.addons.attestations.envelopes import AttestationVerdict

FAILED_STATUS = 3
SIGNS = {"verified": ("✓", "green"), "claimed": ("?", "yellow"), "failed": ("✗", "red"), "unreadable": ("!", "yellow")}


@document("attestation-export")
class AttestationExportDocument:
    """An attestation for other tools, as `comity attestation export --json` prints it.

    `exit_status`: of the verdict that it states.
    """

    file: Path
    key: Path
    predicate_type: str
    exit_status: int


@document("attestation-added")
class AttestationAddedDocument:
    """An attestation of another tool and its verdict, as `comity attestation add --json` prints it.

    `says` is the claim of its signer.
    """

    verdict: AttestationVerdict = field(metadata=INLINE)


@document("attestations")
class AttestationsDocument:
    """The attestations beside an artifact, as `comity attestation ls --json` prints them.

    `left_out`: further ones that were not judged.
    """

    artifact: Digest
    attestations: tuple[AttestationVerdict, ...]
    left_out: int


@frozen
class PinnedKeyItem:
    """A key that is pinned for attestations. `id` is null once it is no longer pinned."""

    name: str
    algorithm: str
    id: Digest | None


@document("attestation-key")
class AttestationKeyDocument:
    """A key, as `comity attestation pin --json` and `comity attestation unpin --json` print it."""

    key: PinnedKeyItem = field(metadata=INLINE)


@document("attestation-keys")
class AttestationKeysDocument:
    """The keys that are pinned for attestations, as `comity attestation keys --json` prints them."""

    keys: tuple[PinnedKeyItem, ...]


@examples(
    "comity attestation export ./apertus-8b --as vsa --policy ministry.toml --sign-as 'Security desk'",
    "comity attestation add provenance.json ./apertus-8b",
    "comity attestation ls ./apertus-8b",
)
@click.group(cls=Group, name="attestation", short_help="Read and write attestations of other tools.")
def command() -> None:
    """Attestations are signed statements in the formats of SLSA and in-toto. Those of other tools are side evidence
    with a verdict of their own: they change no row and no exit status of `comity verify`."""


@examples(
    "comity attestation export ./apertus-8b --as vsa --policy ministry.toml --sign-as 'Security desk'",
    "comity attestation export ./apertus-8b --as test-result --policy ministry.toml --sign-as 'Security desk'",
    "comity attestation export ./apertus-8b-q8 --as slsa --sign-as 'Swiss AI' --key p256 --out provenance.json",
)
@command.command("export", short_help="Write an attestation that other tools can check.")
@click.argument("what", metavar="DIR|REF")
@click.option(
    "--as", "kind", required=True, type=click.Choice(["vsa", "slsa", "test-result", "eval-result"]), help="The form."
)
@click.option("--sign-as", "signer", required=True, metavar="LABEL", help="Sign with this publisher's key.")
@click.option("--policy", type=FILE, help="Verify with this policy first (vsa, test-result).")
@click.option("--key", "algorithm", default="ed25519", show_default=True, type=click.Choice(["ed25519", "p256"]),
              help="The publisher's own key, or that of its model.sig files for tools without Ed25519.")  # fmt: skip
@out_option("attestation.json")
def export(what: str, kind: str, signer: str, policy: Path | None, algorithm: str, target: Path) -> int:
    """Write an in-toto statement about DIR (or the pulled copy of REF) in a DSSE envelope with one signature, and the
    key to check it with, FILE.pub.

    *vsa* and *test-result* say what a verification under --policy finds now, dated by the policy's `as_of` or else by
    the clock; a refusal is exported too. *slsa* says from which parents your own publication was made, *eval-result*
    what you logged with `comity evaluation report`: only their author can export them.

    The signature is classical (not post-quantum), because that is what other tools read. Exit status: 0 written, and
    the artifact accepted; otherwise that of `comity verify`.
    """
    if (kind in ("vsa", "test-result")) != (policy is not None):
        raise click.UsageError("vsa and test-result need --policy; slsa and eval-result take none")
    from comity.addons.attestations.files import export_evaluation, export_lineage, export_verdict
    from comity.content import durable

    printed, api = output(), client()
    publisher, status = api.publisher(signer), 0
    if policy is None:
        made = (export_lineage if kind == "slsa" else export_evaluation)(what, publisher, algorithm)
    else:
        judged_by = api.policy(policy)
        with printed.progress("hashing", 0) as progress:
            verdict = api.verify(
                Path(what) if Path(what).is_dir() else what, policy=judged_by, on_hashed=progress.advance
            )
        at = judged_by.freshness.as_of if judged_by.freshness else int(time.time())
        made, status = export_verdict(verdict, kind, publisher, at, algorithm), verdict.exit_status
    durable.write_file(target, made.envelope, mode=0o644, point="attestation")
    key = target.with_name(f"{target.name}.pub")
    durable.write_file(key, made.key, mode=0o644, point="attestation")
    printed.done(f"{target}: {made.predicate.TYPE}, signed by {printable(publisher.label)} ({algorithm})")
    for line in made.predicate.describe():
        printed.fact("says", printable(line))
    printed.say(f"Key: {key}")
    if status:
        printed.warn("the policy does not accept this artifact, and the attestation says so")
    printed.answer(AttestationExportDocument(target, key, made.predicate.TYPE, status))
    return status


@examples(
    "comity attestation add provenance.json ./apertus-8b", "comity attestation add bundle.json swiss-ai/apertus-8b@v1"
)
@command.command("add", short_help="Carry an attestation of another tool beside an artifact.")
@click.argument("file", type=FILE)
@click.argument("target", metavar="DIR|REF")
def add(file: Path, target: str) -> None:
    """Copy FILE, a DSSE envelope or a Sigstore bundle about DIR or one of its files, to the evidence pack in DIR. It is
    named by its SHA-256, and need not be verified: `comity attestation ls` shows its verdict."""
    from comity.addons.attestations.files import add_attestation, pinned_keys

    out = output()
    verdict = add_attestation(target, file, pinned_keys(client()).keys())
    out.done(f"added: {verdict.predicate_type} about {printable(verdict.about)}")
    _show(out, verdict)
    out.answer(AttestationAddedDocument(verdict))


@examples(
    "comity attestation ls ./apertus-8b",
    "comity attestation ls ./apertus-8b --identity ci@lab.example --issuer https://accounts.example "
    "--sigstore-root trusted_root.json",
    "comity attestation ls swiss-ai/apertus-8b@v1 --json",
)
@command.command("ls", short_help="Judge the attestations beside an artifact.")
@click.argument("target", metavar="DIR|REF")
@click.option("--identity", default="", help="Whose keyless signatures count: an e-mail address or a URL.")
@click.option("--issuer", default="", help="Who verified that identity.")
@click.option("--sigstore-root", "root", type=FILE, help="Sigstore's trusted_root.json, as you trust it.")
def ls(target: str, identity: str, issuer: str, root: Path | None) -> int:
    """Judge each attestation beside DIR (or the pulled copy of REF): in `.comity/attestations`, in a `claims.jsonl` as
    OpenSSF proposes it, and documents of vouches. Offline; the files are not hashed (`comity verify` does).

    *verified*: signed by a key that you pinned, or by --identity. *claimed*: present, not verified. *failed*: it names
    a pinned key, and is not signed by it. What an attestation says is its signer's claim in each case.

    Exit status: 0, or 3 if one failed.
    """
    if len({bool(identity), bool(issuer), root is not None}) > 1:
        raise click.UsageError("--identity, --issuer and --sigstore-root belong together")
    from comity.addons.attestations.files import MAX_SIGSTORE_ROOT, judge_folder, keyless_signer, pinned_keys
    from comity.bounded_file import read_bounded

    keyless = keyless_signer(identity, issuer, read_bounded(root, MAX_SIGSTORE_ROOT)) if root else None
    out, found = output(), judge_folder(target, pinned_keys(client()).keys(), keyless)
    for verdict in found.verdicts:
        _show(out, verdict)
    if not found.verdicts:
        out.say("No attestation of another tool is here.")
    if found.left_out:
        out.warn(f"{found.left_out} more are not judged")
    out.answer(AttestationsDocument(found.artifact, found.verdicts, found.left_out))
    return FAILED_STATUS if any(verdict.state == "failed" for verdict in found.verdicts) else 0


@examples("comity attestation keys")
@command.command("keys", short_help="List the keys that you pinned for attestations.")
def keys() -> None:
    """List the pinned keys of tools and people whose attestations you read."""
    from comity.addons.attestations.files import pinned_keys

    out, pinned = output(), pinned_keys(client()).keys()
    if pinned:
        out.table(("name", "algorithm", "sha256"), [(key.label, key.algorithm, key.id[:16]) for key in pinned])
    else:
        out.say("No key is pinned: attestations of other tools are shown as claimed.")
        out.hint("comity attestation pin FILE --name NAME")
    out.answer(AttestationKeysDocument(tuple(PinnedKeyItem(key.label, key.algorithm, key.id) for key in pinned)))


@examples("comity attestation pin builder.pub --name builder")
@command.command("pin", short_help="Pin a key whose attestations are verified.")
@click.argument("file", type=FILE)
@click.option("--name", required=True, help="A short name for it.")
@click.option("--yes", is_flag=True, help="Pin it without a question.")
def pin(file: Path, name: str, yes: bool) -> None:
    """Pin the public key in FILE (PEM). Get it from its owner, and compare its SHA-256 by another way. It counts for
    attestations only, and for no publication."""
    from comity.addons.attestations.envelopes import MAX_KEY, AttestationKey
    from comity.addons.attestations.files import pinned_keys
    from comity.bounded_file import read_bounded

    out = output()
    key = AttestationKey.parse(read_bounded(file, MAX_KEY), name)
    out.fact("key", f"{key.algorithm}, sha256 {key.id}")
    agree(f"Pin it as {name}?", yes=yes)
    pinned = pinned_keys(client()).pin(file, name)
    out.done(f"pinned: {pinned}")
    out.answer(AttestationKeyDocument(PinnedKeyItem(pinned.label, pinned.algorithm, pinned.id)))


@examples("comity attestation unpin builder")
@command.command("unpin", short_help="Remove a pinned key.")
@click.argument("name")
def unpin(name: str) -> None:
    """Remove the pinned key NAME."""
    from comity.addons.attestations.files import pinned_keys

    key = pinned_keys(client()).unpin(name)
    output().done(f"no longer pinned: {key}")
    output().answer(AttestationKeyDocument(PinnedKeyItem(key.label, key.algorithm, None)))


def _show(out: Output, verdict: AttestationVerdict) -> None:
    kind = verdict.predicate_type or verdict.form
    out.say(f" {verdict.digest[:12]}  {printable(kind)}", sign=out.mark(*SIGNS[verdict.state]))
    out.fact("foreign evidence", printable(verdict.signer))
    out.fact("about", printable(verdict.about) or "nothing of this artifact")
    for line in verdict.says:
        out.fact("its signer says", printable(line))
