"""`comity show`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.rules.artifact_kind import MODEL, bases, kind_text
from comity.trust.encoding import Digest, short
from comity.trust.frozen import frozen
from comity.trust.home_logs import home_origin

from comity_cli.command import Command, examples, output, resolving, user
from comity_cli.document import document
from comity_cli.files import FILE
from comity_cli.following import binding_command, show_cache_basis
from comity_cli.known_since import earliest, known_day, known_text
from comity_cli.mirroring import MirroredItem, show_mirroring
from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity.rules.continuation import ContinuedCommit
    from comity.trust.artifact import FileEntry
    from comity.trust.evidence import RowFact
    from comity.trust.policy import Policy
    from comity.trust.resolution import Candidate
    from comity.trust.statements import Parent
    from comity_client.cache_basis import CacheBasis
    from comity_client.evidence.artifact_info import ArtifactInfo, ArtifactStatement
    from comity_client.evidence.known_since import KnownSince


@frozen
class StatementItem:
    """A statement of the publisher about the artifact; the newest counts."""

    name: str
    licence: str
    lineage: tuple[Parent, ...]
    line: Digest
    home_index: int | None
    counts: bool
    known_since: KnownSince | None

    @classmethod
    def of(cls, number: int, said: Candidate, known_since: KnownSince | None) -> StatementItem:
        published = said.publication.published
        return cls(
            str(published.name),
            published.licence.spdx,
            tuple(published.lineage),
            said.publication.entry.digest,
            said.position.index if said.position else None,
            number == 0,
            known_since,
        )


@frozen
class VersionItem:
    """A version under the same name."""

    version: str
    artifact: Digest
    withdrawn: bool
    known_since: KnownSince | None


@frozen
class AdvisoryItem:
    """A warning, by an identity or a node."""

    kind: str
    severity: str
    text: str
    by: Digest
    known_since: KnownSince | None


@frozen
class VouchItem:
    """What an identity vouches for."""

    statement: str
    text: str
    by: Digest
    name: str
    known_since: KnownSince | None


@frozen
class LostKeyItem:
    """A key of the publisher that was compromised from this entry on."""

    key: Digest
    origin: str
    index: int
    text: str


@frozen
class RivalItem:
    """Another claimant of the name."""

    publisher: Digest
    artifact: Digest


@frozen
class OtherBytesItem:
    """Another artifact that members name as the bytes of the same commit."""

    artifact: Digest
    members: tuple[Digest, ...]


@frozen
class ContinuedItem:
    """A commit of an upstream whose bytes somebody says that these are: the members that count for it, how many others
    say it, and what members name instead."""

    origin: str
    members: tuple[Digest, ...]
    claimed_by_others: int
    other_bytes: tuple[OtherBytesItem, ...]

    @classmethod
    def of(cls, commit: ContinuedCommit, artifact: Digest) -> ContinuedItem:
        named = {each: tuple(member.id for member in members) for each, members in commit.members.items()}
        rivals = (OtherBytesItem(each, ids) for each, ids in named.items() if ids and each != artifact)
        return cls(commit.origin, named[artifact], commit.claimed_by_others(artifact), tuple(rivals))


@document("artifact")
class ArtifactDocument:
    """An artifact and the statements about it, as `comity show --json` prints them.

    Licence, lineage, kind and statements are claims of their authors. The first of `statements` is the publisher's
    newest, which counts. `known_since`: by when the publication was known, as cosigners of a proof that is here show or
    nodes say; null where neither does. `withdrawn`: its publisher yanked or superseded it. `not_read` says what a limit
    left out. `continues`: each commit of an upstream whose bytes somebody says these are. `cache`: no node gave it, and
    this is what an earlier pull left, with statements that were verified again.
    """

    title: str
    artifact: Digest
    basis: str
    publisher: Digest | None
    licence: str | None
    statements: tuple[StatementItem, ...]
    bytes: int
    files: tuple[FileEntry, ...]
    versions: tuple[VersionItem, ...]
    advisories: tuple[AdvisoryItem, ...]
    mirrored: MirroredItem
    checks: tuple[RowFact, ...]
    vouched: tuple[VouchItem, ...]
    lost_keys: tuple[LostKeyItem, ...]
    rivals: tuple[RivalItem, ...]
    said: tuple[ArtifactStatement, ...]
    not_read: tuple[str, ...]
    cache: CacheBasis | None
    known_since: KnownSince | None
    withdrawn: bool
    kind: str
    continues: tuple[ContinuedItem, ...]

    @classmethod
    def of(cls, info: ArtifactInfo) -> ArtifactDocument:
        known = info.known_since
        return cls(
            title=info.title,
            artifact=info.artifact,
            basis=info.basis,
            publisher=info.publication.publisher.id if info.publication else None,
            licence=info.current.published.licence.spdx if info.current else None,
            statements=tuple(
                StatementItem.of(number, each, known(each.publication.entry))
                for number, each in enumerate(info.statements)
            ),
            bytes=info.manifest.size,
            files=info.manifest.files,
            versions=tuple(
                VersionItem(v.version, v.artifact, v.withdrawn, known(v.publication.entry)) for v in info.versions
            ),
            advisories=tuple(AdvisoryItem(a.kind, a.severity, a.text, a.by.id, known(e)) for e, a in info.advised),
            mirrored=MirroredItem.of(info.mirroring),
            checks=info.checks,
            vouched=tuple(
                VouchItem(v.vouched.kind, v.vouched.text, v.by.id, v.by.name, known(v.entry)) for v in info.vouches
            ),
            lost_keys=tuple(LostKeyItem(n.key, n.origin, n.index, n.text) for n in info.lost_keys),
            rivals=tuple(RivalItem(r.publisher.id, r.published.artifact) for r in info.rivals),
            said=info.said,
            not_read=info.not_read,
            cache=info.cache,
            known_since=_known_since(info),
            withdrawn=info.withdrawn,
            kind=info.kind,
            continues=tuple(ContinuedItem.of(each, info.artifact) for each in info.continued),
        )


@examples(
    "comity show swiss-ai/apertus-8b",
    "comity show swiss-ai/apertus-8b@v1",
    "comity show sha256:9f2c… --json",
    "comity show hf:org/name",
    "comity show swiss-ai/apertus-8b --policy ministry.toml",
)
@click.command(cls=Command, name="show", short_help="Show the statements about an artifact, and their authors.")
@click.argument("reference", metavar="REF")
@click.option("--files", is_flag=True, help="List its files.")
@click.option("--policy", type=FILE, help="Read the statements of those first whom this policy (TOML) names.")
def command(reference: str, files: bool, policy: Path | None) -> None:
    """Show an artifact: its publisher, versions, licence, advisories, and the statements about it. It says what a limit
    left out."""
    out = output()
    with resolving("show"), out.waiting("asking the nodes"):
        info = user().show(reference, _policy(policy))
    manifest = info.manifest
    if info.cache is not None:
        how = "whose statements were verified again, and whose files were not read"
        show_cache_basis(out, info.cache, how, time.time())
    out.prose(f"{info.title}  sha256:{info.artifact}")
    out.fact("resolved by", info.basis)
    if info.kind != MODEL:
        out.fact("kind", f"{kind_text(info.kind)} (stated by the publisher)")
    out.fact("content", f"{plural(len(manifest.files), 'file')}, {size(manifest.size)}")
    if info.publication is not None:
        publisher = info.publication.publisher
        if binding := binding_command(info.title, info.basis, publisher.id):
            out.fact("to bind it", binding)
        out.fact("publisher", f"{publisher.display}, signature verified here")
        out.fact("its id", publisher.id)
        out.fact("known since", known_text(_known_since(info)))
        if info.withdrawn:
            out.fact("withdrawn", "by its publisher")
    needed: tuple[Parent, ...] = ()
    if info.current is not None:
        published = info.current.published
        out.fact("licence", f"{published.licence.spdx} (claimed by the publisher)")
        needed = bases(info.kind, published.lineage).named
        for parent in published.lineage:
            digest = f" sha256:{short(parent.digest)}" if parent.digest else ""
            use = ", its base" if parent in needed else ""
            out.fact(parent.relation, f"of {parent.name}{digest}{use} (claimed by the publisher)")
    for older in info.statements[1:]:
        out.fact("before", _older(older))
    for version in info.versions:
        state = "  withdrawn" if version.withdrawn else ""
        since = known_text(info.known_since(version.publication.entry))
        out.fact("version", f"{version.version}  {short(version.artifact)}{state}  known since: {since}")
    for check in info.checks:
        out.fact("verified", f"claimed by {check.by}: {check.text}")
    for vouch in info.vouches:
        text = f": {vouch.vouched.text}" if vouch.vouched.text else ""
        since = known_text(info.known_since(vouch.entry))
        out.fact(vouch.vouched.kind, f"claimed by {vouch.by.name}{text}  (known since: {since})")
    show_mirroring(out, info.mirroring)
    _show_continued(out, info)
    for entry, advisory in info.advised:
        what = f"{advisory.kind} ({advisory.severity}) by {_issuer(info, advisory.by.id)}: {advisory.text}"
        out.warn(f"{what} (known since: {known_text(info.known_since(entry))})")
    _show_disputes(out, info)
    for text in info.not_read:
        out.fact("not read", text)
    if files:
        out.table(("path", "size", "sha256"), [(e.path, size(e.size), e.sha256) for e in manifest.files])
    else:
        out.say("\nStatements (claims as the nodes sent them; comity verify checks them):")
        rows = _statements(info)
        out.table(("statement", "by", "known since", "logged at"), rows)
    out.answer(ArtifactDocument.of(info))
    out.hint(f"comity pull {info.title}" + (" --with-base" if needed else ""))


def _policy(file: Path | None) -> Policy | None:
    if file is None:
        return None
    from comity.verifier import load_policy

    return load_policy(file)


def _older(older: Candidate) -> str:
    """What an older statement of the publisher about the same bytes said; it does not count."""
    published = older.publication.published
    where = "" if older.position is None else f", entry {older.position.index} of {_home(older)}"
    parents = ", ".join(f"{parent.relation} of {parent.name}" for parent in published.lineage) or "no parent"
    return f"{published.name}: licence {published.licence.spdx}, {parents}{where} (replaced by its publisher)"


def _home(statement: Candidate) -> str:
    """The origin of the home log that its publisher names; of the last one, if it named several."""
    return home_origin(statement.publication.chain.current.home)


def _known_since(info: ArtifactInfo) -> KnownSince | None:
    return info.known_since(info.publication.entry) if info.publication else None


def _statements(info: ArtifactInfo) -> list[tuple[str, str, str, str]]:
    """A row for each kind of statement and author: a statement that was signed again is shown once, with all places,
    and since when the first one is known."""
    groups: dict[tuple[str, str], list[ArtifactStatement]] = {}
    for said in info.said:
        groups.setdefault((said.predicate, said.by), []).append(said)
    rows = []
    for (predicate, by), group in groups.items():
        known = known_day(earliest(each.known_since for each in group))
        places = ", ".join(f"{origin} #{index}" for each in group for origin, index in each.places)
        rows.append((predicate, by, known, places))
    return rows


def _show_continued(out: Output, info: ArtifactInfo) -> None:
    """Print of which commits these are said to be the bytes, and who says so."""
    from comity.trust.rows.findings import member_names

    for commit in info.continued:
        members = commit.members[info.artifact]
        others = commit.claimed_by_others(info.artifact)
        who = f"{plural(len(members), 'member')}: {member_names(members)}" if members else "no member"
        more = f", and {others} who {'counts' if others == 1 else 'count'} for no member" if others else ""
        out.fact("continues", f"{commit.origin}, claimed by {who}{more}")
        for artifact, rivals in commit.members.items():
            if artifact != info.artifact and rivals:
                out.warn(f"{member_names(rivals)} name other bytes for {commit.origin}: sha256:{artifact}")


def _show_disputes(out: Output, info: ArtifactInfo) -> None:
    """Print lost keys of the publisher, and rival claimants of the name."""
    for notice in info.lost_keys:
        since = f"from entry {notice.index} of {notice.origin} on"
        out.warn(f"key-compromise ({notice.severity}) by its publisher: {since}: {notice.text}")
    for rival in info.rivals:
        who = f"{rival.publisher.display} [{rival.publisher.id}]"
        out.warn(f"{who} claims {rival.published.name} too, for sha256:{short(rival.published.artifact)}")


def _issuer(info: ArtifactInfo, identity: str) -> str:
    own = info.publication is not None and info.publication.publisher.id == identity
    return "its publisher" if own else identity
