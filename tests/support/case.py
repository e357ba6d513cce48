"""An artifact to verify: published, logged, cosigned and held in a federation of `support.world`, with a policy.

A test changes one thing with `dataclasses.replace` (or on the disk, after `write`) and reads the verdict.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from comity.federation_file import Federation
from comity.formats.inspect import inspect
from comity.rules.pieces import FIXED_LAYOUT, PieceIndex, PieceLayout, fixed_pieces, records_root
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest, PieceRecord
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import Digest, sha256
from comity.trust.evidence import PACK, Evidence, FoundFile, InclusionEvidence, Verdict
from comity.trust.names import Name
from comity.trust.policy import Policy
from comity.trust.policy_file import parse_policy
from comity.trust.statement import Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statements import Advisory, Licence, Parent, Published
from comity.trust.verify import verify
from support import weights
from support.world import JURISDICTIONS, NOW, Identity, Log, Node, found, identity, node, seat

CARD = b"# Tiny\nFor tests.\n"
LICENCE_TEXT = b"Apache License, Version 2.0 (abridged)\n"
FILES: Mapping[str, bytes] = {
    "LICENSE": LICENCE_TEXT,
    "config.json": b'{"architectures":["Tiny"],"hidden_size":8}\n',
    "model.safetensors": weights.safetensors({"a": bytes(range(256)) * 20}),
    "tokenizer/vocab.txt": "a\nb\nhé\n".encode(),
}


@dataclass(frozen=True)
class Case:
    """All data about one artifact. `publication` is the statement that its publisher signed."""

    files: Mapping[str, bytes]
    manifest: bytes
    pieces: bytes
    publication: Entry
    claims: tuple[bytes, ...]
    proofs: tuple[InclusionEvidence, ...]
    objects: Mapping[Digest, bytes]
    federation: Federation
    policy_text: str
    partial: bool = False

    @property
    def artifact(self) -> Digest:
        return sha256(self.manifest)

    @property
    def evidence(self) -> Evidence:
        files = tuple(looked_at(path, data) for path, data in sorted(self.files.items()))
        return Evidence(self.manifest, files, self.claims, self.proofs, self.objects, self.partial, self.pieces)

    @property
    def policy(self) -> Policy:
        return read_policy(self.policy_text, self.federation.encode())

    def verdict(self) -> Verdict:
        return verify(self.evidence, self.policy)

    def demanding(self, old: str, new: str) -> Case:
        """This case with `old` replaced by `new` in the policy."""
        assert self.policy_text.count(old) == 1, old
        return replace(self, policy_text=self.policy_text.replace(old, new))

    def saying(self, *lines: bytes) -> Case:
        """This case with additional claims."""
        return replace(self, claims=(*self.claims, *lines))

    def proofs_of(self, line: bytes) -> tuple[InclusionEvidence, ...]:
        return tuple(proof for proof in self.proofs if proof.line == sha256(line))

    def write(self, root: Path) -> Path:
        """Write it below `root`: `model/` with its evidence pack, policy.toml, federation.json. Returns `model/`."""
        folder, pack = root / "model", root / "model" / PACK
        named = {f"proofs/{_proof_name(proof)}": proof.data for proof in self.proofs}
        named |= {f"objects/{digest}": data for digest, data in self.objects.items()}
        named |= {"manifest.json": self.manifest, "pieces.json": self.pieces}
        named["statements.jsonl"] = b"".join(line + b"\n" for line in self.claims)
        for path, data in (*self.files.items(), *((f"{PACK}/{name}", data) for name, data in named.items())):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        if self.partial:
            (pack / "partial").touch()
        (root / "policy.toml").write_text(self.policy_text, "utf-8")
        (root / "federation.json").write_bytes(self.federation.encode())
        return folder


@functools.lru_cache(1_000)
def read_policy(text: str, federation: bytes) -> Policy:
    """A policy whose pins all name `federation`. Hundreds of tests have the same one, which is read once."""
    return parse_policy(text.encode(), lambda _: federation)


def looked_at(path: str, data: bytes) -> FoundFile:
    return FoundFile(path, len(data), sha256(data), inspection=inspect(io.BytesIO(data), path, len(data)))


def nodes(count: int = 4) -> tuple[Node, ...]:
    """The nodes of `count` members in as many jurisdictions; the first is in CH."""
    return tuple(node(seat(code)) for code in JURISDICTIONS[:count])


def release(
    files: Mapping[str, bytes] = FILES,
    *,
    by: Identity | None = None,
    name: str = "swiss-ai/tiny@v1",
    spdx: str = "Apache-2.0",
    lineage: tuple[Parent, ...] = (),
) -> tuple[Published, Entry, bytes, bytes]:
    """The publication of `files` by `by`, signed; the manifest; the piece index."""
    by = by or identity("Swiss AI", "CH")
    manifest = Manifest.of(FileEntry(path, len(data), sha256(data)) for path, data in files.items())
    index = PieceIndex(tuple((entry.path, _layout(files[entry.path])) for entry in manifest.files))
    published = Published(
        by=by.id,
        name=Name.parse(name),
        artifact=manifest.digest,
        manifest=SideObject.of(manifest.encode()),
        pieces=SideObject.of(index.encode()),
        licence=Licence(spdx, SideObject.of(LICENCE_TEXT)),
        documents={"card": SideObject.of(CARD)},
        lineage=lineage,
    )
    return published, sign_content(published, by.signer), manifest.encode(), index.encode()


def case(
    *,
    publisher: Identity | None = None,
    members: Sequence[Node] | None = None,
    cosigners: Iterable[Node] | None = None,
    name: str = "swiss-ai/tiny@v1",
    time: int = NOW,
    files: Mapping[str, bytes] = FILES,
    lineage: tuple[Parent, ...] = (),
) -> Case:
    """A valid case. It is made and signed once a session: the same arguments give the same value.

    Args:
        members: nodes; the first one's log holds the publication. `nodes()` where not given.
        cosigners: nodes that cosign that log; all the others where not given.
        time: when they cosign.
    """
    members = tuple(members or nodes())
    cosigners = members[1:] if cosigners is None else tuple(cosigners)
    return _case(publisher or identity("Swiss AI", "CH"), members, cosigners, name, time, tuple(files.items()), lineage)


@functools.cache
def _case(
    publisher: Identity,
    members: tuple[Node, ...],
    cosigners: tuple[Node, ...],
    name: str,
    time: int,
    content: tuple[tuple[str, bytes], ...],
    lineage: tuple[Parent, ...],
) -> Case:
    files, writer = dict(content), members[0]
    published, publication, manifest, pieces = release(files, by=publisher, name=name, lineage=lineage)
    log = filled(writer)
    log.append(publication.line)
    proofs, holds = [], []
    for member in members:
        own = log if member is writer else filled(member)
        hold = _hold(member, published.artifact, published.manifest, published.pieces)
        own.append(hold)
        holds.append(hold)
        proofs.append(own.proof(hold))
    proofs.append(log.proof(publication.line, cosigners, time))
    return Case(
        files=MappingProxyType(files),
        manifest=manifest,
        pieces=pieces,
        publication=publication,
        claims=(publisher.entry.line, *(member.entry.line for member in members), publication.line, *holds),
        proofs=tuple(proofs),
        objects=MappingProxyType({sha256(LICENCE_TEXT): LICENCE_TEXT, sha256(CARD): CARD}),
        federation=_federation(members, publisher),
        policy_text=policy_text(publisher),
    )


@functools.cache
def _hold(member: Node, artifact: Digest, manifest: SideObject, pieces: SideObject) -> bytes:
    return sign_content(HeldArtifact(member.record.node, manifest, pieces), member.online).line


@functools.cache
def _federation(members: tuple[Node, ...], publisher: Identity) -> Federation:
    return found(members, {"swiss-ai": publisher.id})


def policy_text(publisher: Identity) -> str:
    return f"""\
schema = "comity/policy/v1"
[[pin]]
file = "federation.json"
[publishers]
accept = {json.dumps([publisher.id])}
[cosigners]
at_least = 2
jurisdictions = 2
outside = ["publisher"]
[licences]
accept = ["apache-2.0"]
[advisories]
refuse_from = []
[time]
as_of = 2026-11-24T00:00:00Z
max_age_days = 30
[documents]
require = ["card"]
[rows]
require = ["artifact", "bytes", "signatures", "transparency", "cosigners"]
"""


def filled(owner: Node, entries: int = 5) -> Log:
    """The log of a node, with statements of others in it."""
    log = Log(owner.origin, owner.log)
    for number in range(entries):
        log.append(_of_somebody_else(number))
    return log


@functools.cache
def _of_somebody_else(number: int) -> bytes:
    stranger = identity("Somebody else")
    about = Subject("", sha256(b"%d" % number))
    return sign_statement(Statement("vouched", (about,), stranger.inception.author, {}), stranger.signer).line


def advisory(case: Case, *, by: Identity | None = None, kind: str = "malware") -> tuple[bytes, bytes]:
    """A warning of another identity about the artifact: its inception and the advisory."""
    by = by or identity("Security desk", "ES")
    said = Advisory(by.inception.author, case.artifact, kind, "critical", "do not load it")
    return by.entry.line, sign_content(said, by.signer).line


def _layout(data: bytes) -> PieceLayout:
    at, records = 0, []
    for length in fixed_pieces(len(data)):
        records.append(PieceRecord(length, bytes.fromhex(sha256(data[at : at + length]))))
        at += length
    return PieceLayout(FIXED_LAYOUT, len(records), records_root(records))


def _proof_name(proof: InclusionEvidence) -> str:
    origin = proof.data.split(b"\n\n")[1].partition(b"\n")[0]
    return f"{proof.line}.{sha256(origin)[:16]}.tlog-proof"
