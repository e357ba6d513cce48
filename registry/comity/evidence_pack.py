"""Reading the evidence pack in an artifact's folder: statements, proofs, side objects.

All input is untrusted and size-limited; data that cannot be evidence is counted and left out. A command that looks into
a pack needs no more than this; `comity.verifier` reads the files beside it too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.trust.artifact import MAX_MANIFEST
from comity.trust.artifact import MAX_PIECE_INDEX as MAX_PIECES
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Unavailable
from comity.trust.evidence import (
    MAX_PACK_NAMES,
    MAX_READ,
    MAX_UNREAD_BYTES,
    OLD_STATEMENTS,
    PACK,
    STATEMENTS,
    UNREAD,
    Evidence,
    EvidenceReader,
    InclusionEvidence,
    UnreadStatements,
)
from comity.trust.statement import MAX_LINE, MAX_OBJECT_BYTES, Entry
from comity.trust.tlog.proof import MAX_CONSISTENCY_PROOF, MAX_PROOF, is_consistency_proof

MAX_INVALID: Final = 100
"""Up to this number of lines that are not statements get one remark each; more lines are only counted. Also the number
of unrelated files in a pack folder without a remark, because older versions of a pack leave files behind."""
BUNDLE_MARK: Final = b'"dsseEnvelope"'
"""In every Sigstore bundle, and in no envelope of Comity, whose members are others and whose payload is base64."""


def read_pack(folder: Path, reader: EvidenceReader | None = None) -> Evidence:
    """Read the evidence pack in an artifact's folder, without the artifact's files.

    Data that cannot be evidence is counted and left out, whatever its amount. Raises Malformed if the manifest is too
    large, Unavailable (TOO-MUCH-EVIDENCE) if claims, proofs or objects exceed the limits.
    """
    pack = folder / PACK
    manifest = pack / "manifest.json"
    claims, invalid = _read_claims((pack / STATEMENTS, pack / OLD_STATEMENTS), reader or EvidenceReader())
    wanted = {item.digest for entry in claims.values() if entry is not None for item in entry.statement.objects}
    proofs, unrelated_proofs = _read_proofs(pack / "proofs", {sha256(line) for line in claims})
    objects, unrelated_objects = _read_objects(pack / "objects", wanted)
    unread, invalid_unread = _read_unread(pack / UNREAD)
    return Evidence(
        manifest=read_bounded(manifest, MAX_MANIFEST) if manifest.is_file() else None,
        files=None,
        claims=tuple(claims),
        proofs=tuple(proofs),
        objects=objects,
        pieces=read_prefix(pack / "pieces.json", MAX_PIECES) if (pack / "pieces.json").is_file() else None,
        partial=(pack / "partial").exists(),
        left_out=(*invalid, *unrelated_proofs, *unrelated_objects, *invalid_unread),
        unread=unread.texts,
        cut=unread.cut,
    )


def read_proofs(folder: Path, lines: Set[Digest]) -> tuple[InclusionEvidence, ...]:
    """Read the proofs of some lines (by their SHA-256) in the evidence pack of an artifact's folder. Raises Unavailable
    (TOO-MUCH-EVIDENCE) as `read_pack` does."""
    return tuple(_read_proofs(folder / PACK / "proofs", lines)[0])


def _read_claims(paths: Sequence[Path], reader: EvidenceReader) -> tuple[dict[bytes, Entry | None], tuple[str, ...]]:
    """Each distinct line with its entry, and remarks on lines left out. A line that is not a statement has None, and
    `verify` reports its error; if there are more than `MAX_INVALID` such lines, all of them are left out."""
    found: dict[bytes, Entry | None] = {}
    invalid, total = list[bytes](), 0
    for line in itertools.chain.from_iterable(map(lines_of, paths)):
        if line in found or BUNDLE_MARK in line:
            continue
        try:
            found[line] = reader.entry(line)
        except Malformed:
            total += 1
            if len(invalid) <= MAX_INVALID:
                invalid.append(line)
    if total > MAX_INVALID:
        return found, (f"{total} lines of {paths[0].name} are not statements and are ignored",)
    return found | dict.fromkeys(invalid), ()


def _read_unread(path: Path) -> tuple[UnreadStatements, tuple[str, ...]]:
    """What the pack says was not read, and a remark if that file cannot be read."""
    if not path.is_file():
        return UnreadStatements(), ()
    try:
        return UnreadStatements.parse(read_bounded(path, MAX_UNREAD_BYTES)), ()
    except Malformed as error:
        return UnreadStatements(), (f"{UNREAD} is ignored: {error.why}",)


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file; a line longer than a log entry is truncated. Raises Unavailable."""
    if not path.is_file():
        return
    with readable(path), path.open("rb") as file:
        while line := file.readline(MAX_LINE + 2):
            yield line.removesuffix(b"\n")
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE)):
                pass
            if file.tell() > MAX_READ:
                raise _too_much(path.name)


def _read_proofs(folder: Path, lines: Set[Digest]) -> tuple[list[InclusionEvidence], tuple[str, ...]]:
    """The proofs whose file names match `lines`, and a remark on files left out (other names, or too large)."""
    proofs, reader = list[InclusionEvidence](), _PackFolder(folder)
    for name in reader.names:
        line = name.partition(".")[0]
        if not name.endswith(".tlog-proof") or line not in lines:
            reader.skipped += 1
        elif (data := reader.read(name, MAX_PROOF)) is not None:
            reader.keep(data)
            proofs.append(InclusionEvidence(Digest(line), data))
    return proofs, reader.left_out("are not proofs of the claims")


def _read_objects(folder: Path, wanted: Set[Digest]) -> tuple[dict[Digest, bytes], tuple[str, ...]]:
    """The side objects whose hash is their file name, and a remark on files left out. An object that no claim names is
    kept only if it is a consistency proof."""
    objects, reader = dict[Digest, bytes](), _PackFolder(folder)
    for name in reader.names:
        data = reader.read(name, MAX_OBJECT_BYTES if name in wanted else MAX_CONSISTENCY_PROOF)
        if data is None:
            continue
        digest = sha256(data)
        if name != digest or not (digest in wanted or is_consistency_proof(data)):
            reader.skipped += 1
        else:
            reader.keep(data)
            objects[digest] = data
    return objects, reader.left_out("are not objects of the claims")


class _PackFolder:
    """Reads a folder of the pack file by file; keeps at most `MAX_READ` bytes. `skipped` counts the files left out;
    their bytes do not count. Raises Unavailable (TOO-MUCH-EVIDENCE)."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._kept_bytes, self.skipped = folder, 0, 0
        self.names: list[str] = []
        if not folder.is_dir():
            return
        with readable(folder), os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_PACK_NAMES:
                    raise _too_much(folder.name)
                if entry.is_file():
                    self.names.append(entry.name)
        self.names.sort()

    def read(self, name: str, limit: int) -> bytes | None:
        """The bytes of a file. Returns None and counts the file as skipped if it is too large or unreadable."""
        try:
            with (self._folder / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError:
            data = None
        if data is None or len(data) > limit:
            self.skipped += 1
            return None
        return data

    def keep(self, data: bytes) -> None:
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_READ:
            raise _too_much(self._folder.name)

    def left_out(self, why: str) -> tuple[str, ...]:
        return (f"{self.skipped} files in {self._folder.name} {why}",) if self.skipped > MAX_INVALID else ()


def _too_much(name: str) -> Unavailable:
    return Unavailable(
        "too much evidence to read",
        why=f"more than {MAX_READ} bytes, or {MAX_PACK_NAMES} names, in {name} of the evidence pack",
        hint="comity pull REF --out DIR, into a new folder",
        code="TOO-MUCH-EVIDENCE",
    )


def read_prefix(path: Path, limit: int) -> bytes:
    """Read at most `limit` + 1 bytes; the parser then refuses data that is too long."""
    with readable(path), path.open("rb") as file:
        return file.read(limit + 1)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises Unavailable for an OSError in the block, so that an unreadable file is never skipped."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot read {path}", why=error.strerror or str(error)) from error
