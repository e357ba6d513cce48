"""What this node has of an artifact, and the evidence about it, for the judge. Blocking, but for `evidence`."""

from __future__ import annotations

import contextlib

from comity.content.looking import look_into
from comity.gateway.hub.judging import Judge
from comity.node.core import Core
from comity.node.services.artifacts import Artifacts
from comity.node.services.logs import Logs
from comity.trust.digest import Digest, short
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.evidence import Evidence, FoundFile, Proof
from comity.trust.manifest import MAX_BYTES as MAX_MANIFEST
from comity.trust.manifest import FileEntry, Manifest
from comity.trust.statement import SideObject


class Holdings:
    """Reads manifests and files of this node."""

    def __init__(self, core: Core, judge: Judge) -> None:
        self._core = core
        self._judge = judge
        self._artifacts, self._logs = Artifacts(core), Logs(core)

    async def evidence(self, manifest: Manifest, line: Digest | None) -> Evidence:
        """All that is said here about an artifact, proofs of one line, if any, and which of its files are here."""
        lines = [located.line async for located in self._artifacts.claims(manifest.digest)]
        proofs: list[Proof] = []
        if line is not None:
            with contextlib.suppress(NotFound):  # not under a checkpoint yet: the policy says whether that matters
                proofs += [Proof(line, located.proof) async for located in self._logs.proofs(line, None)]
        files = await self._core.pools.files(self._held, manifest)
        return Evidence(manifest.encode(), files, tuple(lines), tuple(proofs), partial=True)

    def manifest(self, item: SideObject) -> Manifest:
        """Raises NotFound, Malformed, and Unavailable (BLOB-DAMAGED) for one that is not what it is called."""
        if item.size > MAX_MANIFEST:
            raise Malformed("document too large", why=f"{item.size} bytes, at most {MAX_MANIFEST} are read")
        manifest = Manifest.parse(b"".join(self._core.store.iterate(item.digest, 0, item.size)))
        if manifest.digest != item.digest:
            why = f"what is stored as {short(item.digest)} hashes to something else"
            raise Unavailable("a manifest is damaged here", why=why, code="BLOB-DAMAGED")
        return manifest

    def _held(self, manifest: Manifest) -> tuple[FoundFile, ...]:
        """The files that are here: what a store has was right when it came in."""
        store = self._core.store
        return tuple(self._found(entry) for entry in manifest.files if entry.size == 0 or store.has(entry.sha256))

    def _found(self, entry: FileEntry) -> FoundFile:
        """Looked into only where this node's policy asks for that: what nobody judges costs nobody a read."""
        seen = None
        if self._judge.looks_into_files:
            seen = look_into(self._core.store, entry.sha256, entry.path, entry.size)
        return FoundFile(entry.path, entry.size, entry.sha256, inspection=seen)
