"""A log of the C2SP formats outside of any federation: its entries, checkpoints, proofs, and its HTTP requests."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import httpx2
from comity.rules.tiles import WIDTH, decode_entries
from comity.rules.tree_proofs import MemoryTree, consistency_proof, subtree_proof
from comity.rules.witness import AddCheckpoint, MirrorUpload, Package
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import leaf_hash, root
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, log_verifier_key, open_checkpoint


@dataclass
class OutsideLog:
    """A log with `entries`, and the requests that it would send."""

    origin: str
    key: PrivateKey = field(default_factory=lambda: PrivateKey.generate("ed25519"))
    entries: list[bytes] = field(default_factory=list)
    tree: MemoryTree = field(default_factory=MemoryTree)

    @property
    def verifier(self) -> VerifierKey:
        return log_verifier_key(self.origin, self.key.public)

    @property
    def prefix(self) -> str:
        return hashlib.sha256(self.origin.encode()).hexdigest()

    def grow(self, size: int, text: bytes = b"entry") -> OutsideLog:
        for number in range(len(self.entries), size):
            self.append(b"%s %d" % (text, number))
        return self

    def append(self, entry: bytes) -> None:
        self.entries.append(entry)
        self.tree.append(leaf_hash(entry))

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(self.origin, size, self.tree.root(size))

    def note(self, size: int) -> SignedNote:
        return self.checkpoint(size).signed(self.key)

    def submission(self, old: int, size: int) -> bytes:
        proof = consistency_proof(old, size, self.tree.node) if old <= size else ()
        return AddCheckpoint(old, proof, self.note(size)).encode()

    def package(self, package: Package, end: int) -> bytes:
        proof = subtree_proof(package.first, package.end, end, self.tree.node)
        return package.encode(self.entries[package.start : package.end], proof)

    def upload(self, start: int, end: int, *, packages: int | None = None) -> bytes:
        upload = MirrorUpload(self.origin, start, end)
        parts = [self.package(package, end) for package in list(upload.packages())[:packages]]
        return upload.encode() + b"".join(parts)


@dataclass(frozen=True)
class TlogRoutes:
    """The C2SP routes of one node."""

    http: httpx2.AsyncClient

    async def add_checkpoint(self, body: bytes) -> httpx2.Response:
        return await self.http.post("/tlog/add-checkpoint", content=body)

    async def add_entries(self, body: bytes, *, packed: bool = False) -> httpx2.Response:
        headers = {"Content-Type": "application/octet-stream"}
        if packed:
            return await self.http.post(
                "/tlog/add-entries", content=gzip.compress(body), headers=headers | {"Content-Encoding": "gzip"}
            )
        return await self.http.post("/tlog/add-entries", content=body, headers=headers)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(f"/tlog/{path}", headers=headers)


def vkeys(logs: Iterable[OutsideLog]) -> Sequence[str]:
    return [str(log.verifier) for log in logs]


async def read_log(routes: TlogRoutes, prefix: str, key: VerifierKey) -> tuple[Checkpoint, list[bytes]]:
    """Every entry, by tiles alone; the hashes of the entries give the signed root."""
    note = SignedNote.parse((await routes.get(f"{prefix}/checkpoint")).content)
    checkpoint = open_checkpoint(note, key)
    entries: list[bytes] = []
    for number in range(-(-checkpoint.size // WIDTH)):
        width = min(WIDTH, checkpoint.size - number * WIDTH)
        name = f"{number:03}" + ("" if width == WIDTH else f".p/{width}")
        bundle = decode_entries((await routes.get(f"{prefix}/tile/entries/{name}")).content)
        hashes = (await routes.get(f"{prefix}/tile/0/{name}")).content
        assert hashes == b"".join(map(leaf_hash, bundle))
        entries += bundle
    assert root([leaf_hash(entry) for entry in entries]) == checkpoint.root
    return checkpoint, entries
