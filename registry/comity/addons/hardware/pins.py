"""The owner's pins for hardware evidence: vendor roots, reference values, and revocation data from any source.

roots/<kind>/<sha256>.pem     a pinned root certificate, for one kind of evidence
revocations/<sha256>.der      a revocation list or an OCSP response; its issuer's signature decides whether it counts
reference.toml                accepted values, written by hand:

    [nvidia-gpu]
    driver = ["550.90.07"]

No vendor's root is pinned unless the owner does it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

from comity_client.home import Home

from comity.addons.hardware.appraisal import HardwarePins
from comity.addons.hardware.certificates import (
    MAX_REVOCATION,
    MAX_REVOCATIONS,
    RevocationData,
    VendorChain,
    load_pem,
)
from comity.bounded_file import read_bounded
from comity.content import durable
from comity.rules.hardware_evidence import KINDS
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.frozen import frozen

MAX_ROOTS: Final = 64
"""Pinned roots of one kind."""
MAX_MIRRORED: Final = 16
"""Revocation data that are kept of one folder."""
MAX_REFERENCE: Final = 1 << 20
MAX_PEM: Final = 1 << 17


@frozen
class PinnedRoot:
    """A pinned root: its kind of evidence, the SHA-256 of its DER form, and its subject."""

    kind: str
    digest: Digest
    subject: str
    file: Path


class HardwarePinStore:
    """The pins in `folder`, which must exist. Any method may raise OutOfSpace, Unavailable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read_root(self, kind: str, file: Path) -> PinnedRoot:
        """What `pin` would pin: the root in a PEM file. Raises Malformed (HARDWARE-EVIDENCE)."""
        return self._root(kind, _root_of(file))

    def pin(self, kind: str, file: Path) -> PinnedRoot:
        """Pin the root in a PEM file: its only certificate, or the one above all others of a vendor's chain file.
        Raises Malformed (HARDWARE-EVIDENCE)."""
        if len(self.roots(kind)) >= MAX_ROOTS:
            why = f"{MAX_ROOTS} roots of {kind} are pinned"
            raise Malformed(f"{file} cannot be pinned", why=why, hint="comity trust hardware ls")
        chain = _root_of(file)
        root = self._root(kind, chain)
        self._write(root.file, chain.leaf_pem)
        return root

    def unpin(self, digest: str) -> PinnedRoot:
        """Remove the pinned root whose digest begins with `digest`. Raises NotFound."""
        found = [root for kind in KINDS for root in self.roots(kind) if root.digest.startswith(digest)]
        if len(found) != 1 or not digest:
            why = f"{len(found)} pinned roots match"
            raise NotFound(f"no pinned root {digest[:80]!r}", why=why, hint="comity trust hardware ls")
        with durable.disk_errors("the pin was not removed"):
            found[0].file.unlink()
        return found[0]

    def add_revocations(self, folder: Path) -> tuple[list[RevocationData], int]:
        """Keep the revocation data among the files of a folder, such as a pulled artifact of a member that mirrors
        them. Returns what was kept, and how many files are none. At most `MAX_MIRRORED` are kept, so that one artifact
        cannot take all the room. Raises as `add_revocation`, also for more."""
        kept: list[RevocationData] = []
        passed_over = 0
        with durable.disk_errors(f"{folder} was not read"):
            files = sorted(path for path in folder.iterdir() if path.is_file())
        for file in files:
            try:
                RevocationData.parse(read_bounded(file, MAX_REVOCATION))
            except Malformed:
                passed_over += 1
                continue
            if len(kept) == MAX_MIRRORED:
                why = f"the first {MAX_MIRRORED} were kept; one folder gives no more"
                raise Malformed(f"{folder} has more revocation data", why=why, hint="comity trust hardware ls")
            kept.append(self.add_revocation(file))
        return kept, passed_over

    def revocations(self) -> tuple[tuple[Digest, RevocationData], ...]:
        """The revocation data that are kept, each with its SHA-256; files that were changed since are left out."""
        found = []
        for file in self._files("revocations", "*.der")[:MAX_REVOCATIONS]:
            data = read_bounded(file, MAX_REVOCATION)
            if sha256(data) == file.stem:
                found.append((sha256(data), RevocationData.parse(data)))
        return tuple(found)

    def add_revocation(self, file: Path) -> RevocationData:
        """Keep a revocation list or an OCSP response (DER). Raises Malformed (HARDWARE-EVIDENCE)."""
        data = read_bounded(file, MAX_REVOCATION)
        found = RevocationData.parse(data)
        known = [path.stem for path in self._files("revocations", "*.der")]
        if len(known) >= MAX_REVOCATIONS and sha256(data) not in known:
            why = f"{MAX_REVOCATIONS} files are kept; remove old ones in {self._folder / 'revocations'}"
            raise Malformed(f"{file} was not kept", why=why)
        self._write(self._folder / "revocations" / f"{sha256(data)}.der", data)
        return found

    def roots(self, kind: str) -> tuple[PinnedRoot, ...]:
        """The pinned roots of one kind. Raises Malformed (HARDWARE-EVIDENCE) if a file was changed."""
        found = []
        for file in self._files(f"roots/{kind}", "*.pem"):
            chain = VendorChain(load_pem(read_bounded(file, MAX_PEM)))
            if chain.leaf_digest != file.stem:
                why = "its certificate is not the one that was pinned"
                raise Malformed(f"{file} was changed", why=why, code="HARDWARE-EVIDENCE")
            found.append(PinnedRoot(kind, chain.leaf_digest, chain.leaf_name, file))
        return tuple(found)

    def load(self) -> HardwarePins:
        """All pins. Raises Malformed."""
        roots = {kind: tuple(_root_of(root.file).to_der()[0] for root in self.roots(kind)) for kind in KINDS}
        files = self._files("revocations", "*.der")[:MAX_REVOCATIONS]
        return HardwarePins(roots, self._reference(), tuple(read_bounded(file, MAX_REVOCATION) for file in files))

    def _root(self, kind: str, chain: VendorChain) -> PinnedRoot:
        target = self._folder / "roots" / kind / f"{chain.leaf_digest}.pem"
        return PinnedRoot(kind, chain.leaf_digest, chain.leaf_name, target)

    def _reference(self) -> dict[str, dict[str, frozenset[str]]]:
        file = self._folder / "reference.toml"
        try:
            document = tomllib.loads(read_bounded(file, MAX_REFERENCE).decode("utf-8"))
        except NotFound:
            return {}
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise _bad_reference(file, str(error)) from error
        for kind, facts in document.items():
            if kind not in KINDS or not isinstance(facts, dict):
                raise _bad_reference(file, f"[{kind[:40]}] must be one of {', '.join(KINDS)}")
            if not all(
                isinstance(values, list) and all(isinstance(v, str) for v in values) for values in facts.values()
            ):
                raise _bad_reference(file, f"[{kind}] must hold lists of strings")
        return {kind: {name: frozenset(values) for name, values in facts.items()} for kind, facts in document.items()}

    def _files(self, folder: str, pattern: str) -> list[Path]:
        with durable.disk_errors("the pins were not read"):
            return sorted((self._folder / folder).glob(pattern))

    def _write(self, file: Path, data: bytes) -> None:
        with durable.disk_errors(f"{file} was not written"):
            durable.make_folders(file.parent, mode=0o700)
        durable.write_file(file, data, mode=0o600, point="trust")


def _root_of(file: Path) -> VendorChain:
    try:
        return VendorChain(load_pem(read_bounded(file, MAX_PEM))).root()
    except Untrusted as error:
        raise Malformed(f"{file} cannot be pinned", why=error.why, hint="comity trust hardware pin --help",
                        code="HARDWARE-EVIDENCE") from error  # fmt: skip


def _bad_reference(file: Path, why: str) -> Malformed:
    return Malformed(f"{file} is malformed", why=why, hint=f"undo the last edit of {file}", code="TRUST-SYNTAX")


def pin_store(home: Home) -> HardwarePinStore:
    """The owner's pins in a state folder."""
    return HardwarePinStore(home.ensure(home.hardware))
