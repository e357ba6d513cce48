"""An artifact's folder with its evidence pack on disk, and ways to damage it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comity.trust.encoding import b64decode, b64encode, canonical, sha256
from comity.trust.evidence import PACK, proof_name
from comity.trust.statement import Entry
from support.case import Case
from support.world import Node


@dataclass(frozen=True)
class Folder:
    """The artifact's folder with its pack, and ways to damage it."""

    path: Path
    case: Case
    origin: str = "node-ch.example/log"

    def pack(self, name: str) -> Path:
        return self.path / PACK / name

    @property
    def proof(self) -> Path:
        """The proof that the publication is in its log."""
        return self.pack("proofs") / proof_name(sha256(self.case.publication.line), self.origin)

    def flip(self, name: str, at: int = 0) -> None:
        data = bytearray((self.path / name).read_bytes())
        data[at] ^= 1
        (self.path / name).write_bytes(data)

    def swap(self, name: str, old: bytes, new: bytes) -> None:
        """Replace the first `old` in a file."""
        data = (self.path / name).read_bytes()
        assert old in data
        (self.path / name).write_bytes(data.replace(old, new, 1))

    def claim(self, old: bytes, new: bytes) -> None:
        """Replace one claim line."""
        self.swap(".comity/statements.jsonl", old + b"\n", new + b"\n" if new else b"")

    def proof_line(self, at: int, change: Callable[[str], str]) -> None:
        """Change one line of the publication's proof."""
        lines = self.proof.read_text("utf-8").split("\n")
        lines[at] = change(lines[at])
        self.proof.write_text("\n".join(lines), "utf-8")

    def signature_lines(self, change: Callable[[str], str]) -> None:
        """Change each signature line of the publication's proof."""
        head, _, lines = self.proof.read_text("utf-8").rpartition("\n\n")
        changed = [change(line) for line in lines.splitlines()]
        self.proof.write_text(f"{head}\n\n" + "".join(f"{line}\n" for line in changed if line), "utf-8")

    def claiming(self, *lines: bytes) -> None:
        """Add claim lines."""
        with self.pack("statements.jsonl").open("ab") as claims:
            claims.writelines(line + b"\n" for line in lines)

    def policy(self, old: str, new: str) -> None:
        self.swap("../policy.toml", old.encode(), new.encode())


def damaged(line: str) -> str:
    """A base64 line, or the base64 at the end of one, with one bit of its bytes flipped."""
    head, space, blob = line.rpartition(" ")
    data = bytearray(b64decode(blob))
    data[-1] ^= 1
    return head + space + b64encode(bytes(data))


def cosigned(line: str, *who: Node) -> bool:
    """Whether a signature line has the name of one of these cosigners."""
    return line.split(" ")[1] in {each.record.cosigners[0].name for each in who}


def resealed(entry: Entry, half: int, sig: bytes | None) -> bytes:
    """The entry's line with one of its signatures damaged, or removed."""
    signatures = list(entry.envelope.signatures)
    if sig is None:
        del signatures[half]
    else:
        signatures[half] = replace(signatures[half], sig=sig)
    return replace(entry.envelope, signatures=tuple(signatures)).encode()


def with_payload(entry: Entry, change: Callable[[Any], None]) -> bytes:
    """The entry's line with another payload under the same signatures."""
    document = json.loads(entry.envelope.payload)
    change(document)
    return replace(entry.envelope, payload=canonical(document)).encode()
