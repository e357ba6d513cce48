"""`comity publisher new|rotate|show|watch|ls|sign-oci|key`."""

from __future__ import annotations

import re
import shlex
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
from comity.content import durable
from comity.trust.encoding import Digest, format_id, sha256, syllables
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.home_logs import home_origin
from comity.trust.keys import PublicKey
from comity.trust.rotation import MAX_ROTATIONS
from comity.trust.statement_kinds import STATEMENT_KINDS

from comity_cli.command import Group, agree, client, examples, output
from comity_cli.commands.publish import NODE, ReceiptDocument, logged_status, show_image
from comity_cli.document import INLINE, document
from comity_cli.files import FILE, NEW_FILE
from comity_cli.following import follow
from comity_cli.known_since import known_day
from comity_cli.nodes import nodes_option
from comity_cli.output import plural
from comity_cli.signers import PUBLISHER, signing

if TYPE_CHECKING:
    from comity_client.evidence.known_since import KnownSince
    from comity_client.publisher_concerns import FoundConcern

WHY: Final = {"own": "your identity", "name": "your name", "files": "your files"}
"""What a statement concerns, in the table."""


@frozen
class PublisherItem:
    """A publisher identity of this user. `home`: the verifier key or the origin of its home log; empty for none."""

    id: Digest
    label: str
    home: str
    folder: Path


@document("publishers")
class PublishersDocument:
    """Publisher identities of this user, as `comity publisher ls --json` prints them."""

    publishers: tuple[PublisherItem, ...]


@document("publisher")
class PublisherDocument:
    """A new identity, as `comity publisher new --json` prints it."""

    publisher: PublisherItem = field(metadata=INLINE)


@frozen
class PlaceInLog:
    """Where a line was logged."""

    origin: str
    index: int


@frozen
class ConcernItem:
    """A statement that concerns a publisher. `why`: it is its own, or of others under its name or with its files."""

    why: Literal["own", "name", "files"]
    statement: Digest
    predicate: str
    name: str
    by: Digest | None
    logged: PlaceInLog
    known_since: KnownSince | None


@document("publisher-concerns")
class PublisherConcernsDocument:
    """What concerns a publisher, as `comity publisher watch --json` prints it. `incomplete`: why there may be more."""

    publisher: Digest
    concerns: tuple[ConcernItem, ...]
    incomplete: tuple[str, ...]


@document("publisher-rotated")
class PublisherRotatedDocument:
    """The newest keys of an identity, by their rotation, as `comity publisher rotate --json` prints it."""

    id: Digest
    rotation: Digest | None
    logged: tuple[PlaceInLog, ...]


@frozen
class ModelSigKey:
    """The public key for model.sig files, and the hint by which such a file names it."""

    file: Path
    pem: str
    hint: Digest


@document("publisher-shown")
class PublisherShownDocument:
    """An identity and its public keys, as `comity publisher show --json` prints it.

    `rotation`: of its newest keys; null for its first.
    """

    publisher: PublisherItem = field(metadata=INLINE)
    rotation: Digest | None
    model_sig: ModelSigKey | None


@examples("comity publisher new 'Swiss AI' --jurisdiction CH", "comity publisher ls")
@click.group(cls=Group, name="publisher", short_help="Make and list publisher identities.")
def command() -> None:
    """Manage publisher identities. A publisher signs "these bytes are my model". No seat or node is needed for it."""


@examples(
    "comity publisher new 'Swiss AI' --jurisdiction CH",
    "comity publisher new 'Swiss AI' --jurisdiction CH --home node-ch.example.org/log",
)
@command.command("new", short_help="Make a publisher identity.")
@click.argument("label")
@click.option(
    "--jurisdiction", required=True, help="The claimed jurisdiction; cosigners of that jurisdiction do not count."
)
@click.option(
    "--home",
    metavar="LOG",
    help="The log that orders its versions, by origin or verifier key; '' for none. Default: a pinned member's, of its "
    "jurisdiction.",
)
def new(label: str, jurisdiction: str, home: str | None) -> None:
    """Make hybrid keys (Ed25519 and ML-DSA-65) and an identity with these keys. The keys stay on this machine."""
    out = output()
    publisher = client().new_publisher(label, jurisdiction, home)
    out.done(f"publisher {publisher.label}")
    out.fact("id", publisher.id)
    out.fact("spelled", format_id(publisher.id))
    out.fact("on the phone", syllables(publisher.id))
    out.fact("home log", home_origin(publisher.home) or "none: its versions are ordered by their names")
    out.fact("keys", f"{publisher.folder}: move recovery.pem to another place")
    if not publisher.home and home is None:
        out.warn("no federation is pinned, so this identity never has a home log: of two statements none is the newer")
        again = f"comity publisher new {shlex.quote(label)} --jurisdiction {jurisdiction}"
        out.hint(f"comity trust pin FILE, then make another one: {again}")
    out.answer(PublisherDocument(PublisherItem(publisher.id, publisher.label, publisher.home, publisher.folder)))
    node = "" if publisher.home else " --node NODE"
    out.hint(f"comity publish DIR --as namespace/name@v1 --licence SPDX-ID{node}")


@examples(
    "comity publisher rotate 'Swiss AI'",
    "comity publisher rotate 'Swiss AI' --recovery /media/vault/recovery.pem --node node-ch --node node-es",
)
@command.command("rotate", short_help="Give a publisher new keys, signed by its recovery key.")
@click.argument("label")
@click.option("--recovery", multiple=True, type=FILE, help="The recovery key, if it was moved.")
@click.option(
    "--home",
    metavar="LOG",
    default="",
    help="Name its home log again, by origin or verifier key. Nodes of older versions do not read such a rotation.",
)
@nodes_option("Log it there. Default: at its home log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rotate(label: str, recovery: tuple[Path, ...], home: str, nodes: tuple[str, ...], yes: bool) -> int:
    """Give a publisher new keys; its id and its earlier signatures stay valid. Only the recovery key can do this,
    and nobody can prevent it. The rotation records the current size of the home log, so that the old keys cannot be
    backdated. Exit status 8: not every node that you named logged it.

    A publisher of an older version names its home log by the origin alone, which other members may use too. --home with
    the same log adds its key; with another log, later statements are ordered by that one, after all earlier ones."""
    out, api = output(), client()
    publisher = api.publisher(label)
    number = len(publisher.rotation_lines) + 1
    out.say(f"New keys for publisher {publisher.label}: rotation {number} of at most {MAX_ROTATIONS}.")
    agree("Make these keys? The recovery key can be used only once.", yes=yes)
    try:
        changed, logged = api.change_keys(publisher, recovery=recovery, home_log=home, nodes=nodes)
    except ComityError as error:
        made = api.publisher(publisher.id)
        if len(made.rotation_lines) > len(publisher.rotation_lines):
            error.hint = f"the new keys are in {made.keys}, and your next publication logs them; do not rotate again"
        raise
    out.done(f"publisher {changed.label} has new keys in {changed.folder}: move recovery.pem to another place")
    out.fact("rotation", str(changed.rotation))
    for item in logged:
        out.fact("logged at", f"{item.origin} #{item.index}")
    places = tuple(PlaceInLog(item.origin, item.index) for item in logged)
    out.answer(PublisherRotatedDocument(changed.id, changed.rotation, places))
    out.hint(f"to pin these keys, other users run: comity trust hold {changed.id} {changed.rotation}")
    return logged_status(logged, nodes)


@examples("comity publisher show 'Swiss AI'", "comity publisher show c7c0efe10f96 --json")
@command.command("show", short_help="Show one publisher identity, and its signing keys.")
@click.argument("label")
def show(label: str) -> None:
    """Show a publisher identity of this user: its id, its newest keys, and the public key for its model.sig files.
    Others list that key in their policies or give it to other tools. No secret is printed."""
    from comity_client.pull.model_sig import public_file

    out = output()
    publisher = client().publisher(label)
    public = public_file(publisher)
    pem = public.read_text("ascii") if public else None
    out.say(f"{publisher.label}  {publisher.id}")
    out.fact("spelled", format_id(publisher.id))
    out.fact("home", publisher.home or "none")
    out.fact("keys", f"{publisher.keys}, after {plural(len(publisher.rotation_lines), 'rotation')}")
    out.fact("model.sig", str(public) if public else "no key yet; comity publish --model-sig makes one")
    if pem:
        out.say(pem.rstrip())
    item = PublisherItem(publisher.id, publisher.label, publisher.home, publisher.folder)
    model_sig = ModelSigKey(public, pem, sha256(pem.encode())) if public and pem else None
    out.answer(PublisherShownDocument(item, publisher.rotation, model_sig))


@examples("comity publisher watch 'Swiss AI'", "comity publisher watch 'Swiss AI' --since 2026-12-01 --json")
@command.command("watch", short_help="List what concerns a publisher: its key, its names, its files.")
@click.argument("label")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only what a node knew first on or after this day.")
def watch(label: str, since: datetime | None) -> None:
    """List what concerns a publisher, by its label or its id in full: statements under its identity, and one that you
    did not make means that somebody has its key; publications of others under its names; its files under other names.
    Each signature is verified here. To be told of what is new: comity webhook new --publisher, or a feed of a node."""
    out, api = output(), client()
    who = Digest(label) if re.fullmatch("[0-9a-f]{64}", label) else api.publisher(label).id
    answer = api.concerns(who)
    least = int(since.replace(tzinfo=UTC).timestamp()) if since else 0
    found = [each for each in answer.found if not least or (each.known_since and each.known_since.at >= least)]
    rows = [(WHY[each.why], _title(each), _author(each), known_day(each.known_since)) for each in found]
    if rows:
        out.table(("why", "statement", "by", "known since (claimed)"), rows)
    else:
        out.say("Nothing that the nodes know.")
    for text in answer.incomplete:
        out.fact("not known", text)
    out.answer(PublisherConcernsDocument(who, tuple(map(_concern_item, found)), answer.incomplete))


def _title(found: FoundConcern) -> str:
    statement = found.entry.statement
    kind = STATEMENT_KINDS.get(statement.predicate)
    name = statement.subjects[0].name if statement.subjects else ""
    return f"{kind.did if kind else statement.predicate} {name}".strip()


def _author(found: FoundConcern) -> str:
    by = found.entry.statement.by
    return f"{by.kind} {by.id[:12]}" if by else "-"


def _concern_item(found: FoundConcern) -> ConcernItem:
    statement = found.entry.statement
    name = statement.subjects[0].name if statement.subjects else ""
    by = statement.by.id if statement.by else None
    place = PlaceInLog(found.origin, found.index)
    return ConcernItem(found.why, found.entry.statement_digest, statement.predicate, name, by, place, found.known_since)


@examples("comity publisher ls", "comity publisher ls --json")
@command.command("ls", short_help="List your publisher identities.")
def ls() -> None:
    """List the publisher identities of this user."""
    out = output()
    known = client().publishers()
    rows = [(p.label, p.inception.jurisdiction or "-", home_origin(p.home) or "-", p.id) for p in known]
    if known:
        out.table(("label", "jur", "home log", "id"), rows)
    else:
        out.say("None yet.")
        out.hint("comity publisher new LABEL --jurisdiction CODE")
    out.answer(PublishersDocument(tuple(PublisherItem(p.id, p.label, p.home, p.folder) for p in known)))


@document("publisher-key")
class PublisherKeyDocument:
    """The key by which other programs check the images of a publisher, as `comity publisher key --json` prints it.

    `key` is its id in envelopes. `basis`: why the artifact is of this publisher; null for an own identity. `rotation`:
    of the keys; null for the first ones.
    """

    publisher: Digest
    algorithm: str
    key: Digest
    pem: str
    rotation: Digest | None
    basis: str | None


@examples("comity publisher sign-oci inst/name@v1", "comity publisher sign-oci inst/name@v1 --node node-ch --json")
@command.command("sign-oci", short_help="Sign the OCI image of an artifact that you published.")
@click.argument("reference", metavar="REF")
@PUBLISHER
@NODE
def sign_oci(reference: str, publisher: str, nodes: tuple[str, ...]) -> int:
    """Sign the OCI image of an artifact that you published before, for cosign, policy-controller, Kyverno and podman,
    and log the signature. Gateways serve it beside the image. After comity publisher rotate, sign again: a signature of
    retired keys is not served. Exit status 8: not every node that you named logged it."""
    out, api = output(), client()
    signer = signing(api, publisher)
    with follow(out, "signing") as on_event:
        receipt = api.sign_image(reference, publisher=signer, nodes=nodes, on_event=on_event)
    assert receipt.image is not None  # it is what was asked for
    out.prose(f"{receipt.title}  sha256:{receipt.artifact}")
    status = show_image(out, receipt.image, signer, nodes)
    out.answer(ReceiptDocument(receipt))
    return status


@examples("comity publisher key 'Swiss AI' > pub.pem", "comity publisher key inst/name@v1 --out pub.pem")
@command.command("key", short_help="Print the key of a publisher for cosign.")
@click.argument("who", metavar="LABEL|REF")
@click.option("--out", "file", type=NEW_FILE, help="Write the key to this new file.")
def key(who: str, file: Path | None) -> None:
    """Print the public key, in PEM, by which cosign and its like check the images of a publisher: of your own identity
    by its label, or of the publisher of REF by what nodes prove. It is the classical half of the publisher's newest
    key. These programs do not see the post-quantum half, logs, rotations or lost keys: comity verify does."""
    from comity_client.publish import image_key

    out, api = output(), client()
    try:
        own = api.publisher(who)
        found, identity, rotation, basis = image_key(own), own.id, own.rotation, None
    except NotFound:
        found, identity, rotation, basis = _of_reference(who)
    pem = found.to_pem().decode("ascii")
    if file is not None:
        durable.write_file(file, pem.encode("ascii"), mode=0o644, point="publisher-key")
        out.done(f"the {found.alg} key of publisher {identity[:16]} is in {file}")
    else:
        out.say(pem.rstrip())
    if basis is not None:
        out.hint(f"the publisher is {identity}: compare the id with its publisher ({basis})")
    out.answer(PublisherKeyDocument(identity, found.alg, found.id, pem, rotation, basis))


def _of_reference(reference: str) -> tuple[PublicKey, Digest, Digest | None, str]:
    """The key of the publisher of an artifact, the publisher, its rotation, and why the artifact is the publisher's.
    Raises NotFound (NO-PUBLISHER), and as `Client.resolve` does."""
    from comity.rules.image_signature import classical_half
    from comity.trust.rotation import parse_rotation

    resolution = client().resolve(reference)
    publication = resolution.publication
    if publication is None:
        why = "no publisher is proven to have signed it"
        raise NotFound(f"{resolution.title} has no publisher", why=why, hint="comity show REF", code="NO-PUBLISHER")
    chain = publication.chain
    entry = chain.entries[-1] if chain.entries else None
    rotation = parse_rotation(entry)[0].digest if entry is not None else None
    return classical_half(chain.current.keys.keys[0]), publication.publisher.id, rotation, resolution.basis
