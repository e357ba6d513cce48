"""A publisher with a folder of files, and the calls by which it publishes: those of a client, one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comity.content.ingest import Ingested, ingest
from comity.rules.artifact_kind import KindStated
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import HybridSigner
from comity.trust.names import Name
from comity.trust.statement import Entry, SideObject
from comity.trust.statements import Licence, Parent, Published
from comity.wire import limits
from comity.wire.asking import patiently
from comity.wire.client import NodeClient
from comity.wire.publish import InlineObject, MissingObject, Submitted, UploadHeader
from support.seeded import seeded_bytes
from support.weights import as_tensor

CHUNK = 1 << 20
FEW = 64
"""Small files up to which each is sent with a call of its own."""
TOGETHER = limits.CHUNK // limits.SMALL_OBJECT


@dataclass(frozen=True)
class Publisher:
    """A publisher with its key."""

    signer: HybridSigner
    inception: Inception
    announcement: bytes
    """The inception line, kept: another signature would make another line."""

    @classmethod
    def generate(cls, label: str = "tests", jurisdiction: str = "CH") -> Publisher:
        signer = HybridSigner.generate()
        inception = Inception("publisher", KeySet((signer.public,), 1), (), "", jurisdiction, label)
        return cls(signer, inception, sign_content(InceptionStatement(inception), signer).line)

    @property
    def id(self) -> Digest:
        return self.inception.id


@dataclass(frozen=True)
class Release:
    """A folder, ready to be published under a name."""

    publisher: Publisher
    entry: Entry
    ingested: Ingested
    objects: Mapping[Digest, bytes]
    kind: tuple[bytes, ...] = ()
    """The line that states its kind, if one does."""

    @property
    def artifact(self) -> Digest:
        return self.ingested.manifest.digest

    @property
    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each file."""
        return {file.path: file.sha256 for file in self.ingested.manifest.files}

    @property
    def lines(self) -> tuple[bytes, ...]:
        return (self.publisher.announcement, *self.kind, self.entry.line)

    @property
    def blobs(self) -> dict[Digest, Path]:
        files = self.ingested.manifest.files
        return {file.sha256: self.ingested.files[file.path] for file in files if file.size}

    def inline(self) -> list[InlineObject]:
        return [InlineObject(digest, data) for digest, data in self.objects.items()]


def release(
    publisher: Publisher,
    folder: Path,
    name: str,
    *,
    licence: bytes = b"Do as you like.\n",
    lineage: tuple[Parent, ...] = (),
    kind: str | None = None,
) -> Release:
    ingested = ingest(folder, workers=2, on_progress=lambda count: None)
    documents = (ingested.manifest.encode(), ingested.index.encode(), licence)
    manifest, index, text = (SideObject.of(data) for data in documents)
    published = Published(
        publisher.id, Name.parse(name), ingested.manifest.digest, manifest, index, Licence("MIT", text), lineage
    )
    objects = {sha256(data): data for data in documents}
    stated = [KindStated(publisher.id, published.name, published.artifact, kind, 0)] if kind else []
    kinds = tuple(sign_content(each, publisher.signer).line for each in stated)
    return Release(publisher, sign_content(published, publisher.signer), ingested, objects, kinds)


async def send(client: NodeClient, what: Release) -> Submitted:
    """Submit, upload what is missing, submit again: the receipts."""
    submitted = await patiently(lambda: client.submit(what.lines, what.inline()))
    while submitted.missing:
        small = [each for each in submitted.missing if each.size <= limits.SMALL_OBJECT and not each.received]
        if len(small) > FEW:
            size = sum(each.size for each in small)
            await client.upload_objects(submitted.submission, _batches(what, small), size=size)
        for missing in submitted.missing if len(small) <= FEW else ():
            data = what.blobs[missing.digest].read_bytes()
            header = UploadHeader(submitted.submission, missing.digest, missing.size, missing.received)
            sent = partial(_upload, client, header, data[missing.received :])
            assert await patiently(sent) == missing.size
        submitted = await patiently(lambda: client.submit(what.lines, what.inline()))
    return submitted


async def _batches(what: Release, small: Sequence[MissingObject]) -> AsyncIterator[Sequence[InlineObject]]:
    """Small objects, so many together that they fit into a message."""
    for start in range(0, len(small), TOGETHER):
        some = small[start : start + TOGETHER]
        yield [InlineObject(each.digest, what.blobs[each.digest].read_bytes()) for each in some]


async def _upload(client: NodeClient, header: UploadHeader, data: bytes) -> int:
    return await client.upload(header, chunks(data))


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), CHUNK):
        yield data[at : at + CHUNK]


def model(folder: Path, *, weights: int = 5_000_000, seed: int = 1) -> Path:
    """A folder with a configuration, an empty file, and `weights` incompressible bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"seed": {seed}}}\n')
    (folder / "empty.txt").write_bytes(b"")
    (folder / "weights.bin").write_bytes(as_tensor(seeded_bytes(weights, str(seed))))
    return folder
