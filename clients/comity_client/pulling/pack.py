"""The evidence pack beside an artifact's files, enough for a verifier without a network. Written here, read by
`comity.verifier`; its shape is in `comity.trust.evidence`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.digest import Digest, sha256
from comity.trust.evidence import PACK, Evidence, FoundFile, proof_name

from comity_client.evidence.collecting import KeptProof

PARTIAL: Final = "partial"
INCOMING: Final = "incoming"


@dataclass(frozen=True, slots=True)
class Pack:
    """What goes beside the files. `missing` lists the paths that a partial pull left out. `model_sig` is what the file
    of that name among them holds."""

    manifest: bytes
    pieces: bytes
    claims: tuple[bytes, ...]
    proofs: tuple[KeptProof, ...]
    objects: Mapping[Digest, bytes] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    model_sig: bytes | None = None

    def evidence(self, files: Iterable[FoundFile]) -> Evidence:
        """The same as a verifier would read, with `files` as they were found."""
        proofs = tuple(kept.proof for kept in self.proofs)
        return Evidence(
            manifest=self.manifest,
            files=tuple(files),
            claims=self.claims,
            proofs=proofs,
            objects=self.objects,
            partial=bool(self.missing),
            pieces=self.pieces,
            model_sig=self.model_sig,
        )

    def write(self, folder: Path) -> None:
        """Write the pack of the artifact in `folder`. What an older pack has beyond it stays: more evidence never makes
        less of it. Raises OutOfSpace, Unavailable."""
        pack = folder / PACK
        with durable.disk_errors(f"{pack} was not written"):
            for made in (pack, pack / "proofs", pack / "objects"):
                durable.make_folders(made)
        for digest, data in self.objects.items():
            _write(pack / "objects" / digest, data)
        for kept in self.proofs:
            _write(pack / "proofs" / proof_name(sha256(kept.line), kept.origin), kept.proof.data)
        _write(pack / "claims.jsonl", b"".join(line + b"\n" for line in self.claims))
        _write(pack / "pieces.json", self.pieces)
        _write(pack / "manifest.json", self.manifest)
        if self.missing:
            _write(pack / PARTIAL, "".join(f"{path}\n" for path in self.missing).encode())
        else:
            (pack / PARTIAL).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    durable.write_file(path, data, mode=0o644, point="pack")
