"""What is verified: an artifact's files as they were found, and what is said about them. Plain frozen data.

The evidence pack beside the files has this shape on disk; reading it is not done here (`comity.verifier`).

    .comity/manifest.json  pieces.json
            claims.jsonl                                     one envelope a line: exactly the bytes that were logged
            proofs/<sha256 of line>.<sha256 of origin, 16 digits>.tlog-proof
            objects/<sha256>                                 side objects that the claims rely on

Trust never comes from the pack: nothing in it is believed before a pinned charter body proves it.
Source: protocol, section 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from comity.trust.digest import Digest, sha256

PACK: Final = ".comity"
MODEL_SIG: Final = "model.sig"
MAX_CLAIMS: Final = 10_000
"""Lines that a client puts into a pack. A verifier bounds what it reads by bytes: junk lines must not hide others."""
MAX_READ: Final = 256 * 1024 * 1024
"""Bytes of claims, of proofs and of side objects, each."""
MAX_PACK_NAMES: Final = 1_000_000
"""Names in one folder of a pack."""
MAX_MODEL_SIG: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file is by its header and its name, and what in it a loader would run or could not read. Each text is for
    people, in the words of whoever looked (`comity.formats`)."""

    format: str
    active: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as it lies there. `kind` is `link` for a link out of the folder and `special` for devices and the like;
    neither is ever read, so their `sha256` is None. `inspection` is None where nobody looked inside."""

    path: str
    size: int
    sha256: Digest | None
    kind: Literal["file", "link", "special"] = "file"
    inspection: Inspection | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """A tlog-proof, and the SHA-256 of the line that it is said to prove (its file's name; inclusion decides)."""

    line: Digest
    data: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that `verify` looks at.

    `files` is None where nobody looked at the files (judging a claim alone), `pieces` where no piece index came along.
    `partial` says that the person who fetched this asked for some of the files only; it can make a missing file
    *partial*, never *pass*. `model_sig` holds the bytes of an OpenSSF signature at the artifact's root. `left_out` says
    what was found beside all this and could not be evidence of anything: it counts for nothing and is noted.
    """

    manifest: bytes | None
    files: tuple[FoundFile, ...] | None
    claims: tuple[bytes, ...] = ()
    proofs: tuple[Proof, ...] = ()
    objects: Mapping[Digest, bytes] = field(default_factory=dict)
    partial: bool = False
    pieces: bytes | None = None
    model_sig: bytes | None = None
    left_out: tuple[str, ...] = ()


def proof_name(line: Digest, origin: str) -> str:
    """File name of a proof: of which line (its SHA-256), in which log."""
    return f"{line}.{sha256(origin.encode())[:16]}.tlog-proof"
