"""Publisher identities of this user: made here, kept here, nobody's gift and nobody's to take away.

publishers/<name>/key.pem          signs; 0600
                  recovery.pem     alone may rotate the key one day; to be moved to another place
                  inception.line   who this is: goes into the logs with the first publication
                  published/       statements as they were signed, so that a retry logs the same line again
                  rotation-1/      the same three after the first change of keys: key.pem, recovery.pem, rotated.line
"""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from comity.content import durable
from comity.content.secrets import read_signer, write_keys
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, Unavailable
from comity.trust.identity import Inception, KeySet, announce, check_inception
from comity.trust.keys import HybridSigner, Signer
from comity.trust.rotation import KeyState, LogCut, Rotation, follow, parse_rotation, rotate
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.statements import Published, publish
from comity.verifier import read_bounded


@dataclass(frozen=True, slots=True)
class Publisher:
    """An identity whose key is in `folder`. Nothing secret is in this value."""

    inception: Inception
    line: bytes
    folder: Path
    rotation_lines: tuple[bytes, ...] = ()

    @property
    def id(self) -> Digest:
        return self.inception.id

    @property
    def label(self) -> str:
        return self.inception.label

    @property
    def home(self) -> str:
        """The log that orders this publisher's statements."""
        return self.inception.home

    @property
    def lines(self) -> tuple[bytes, ...]:
        """All that proves by which keys it speaks."""
        return (self.line, *self.rotation_lines)

    @property
    def rotation(self) -> Digest | None:
        """Its newest change of keys, as an owner pins it (`TrustStore.pin_rotation`); None before the first."""
        return parse_rotation(parse_entry(self.rotation_lines[-1]))[0].digest if self.rotation_lines else None

    @property
    def keys(self) -> Path:
        """The folder of its newest keys."""
        return _keys_after(self.folder, len(self.rotation_lines))

    def signer(self) -> Signer:
        """Raises NotFound, Refused, Malformed for the key file."""
        return read_signer(self.keys / "key.pem")

    def sign(self, published: Published) -> Entry:
        """The `published` statement, signed once: saying the same again gives the same line.

        Raises Conflict (code VERSION-TAKEN) where this name and version were given to other bytes before.
        """
        kept = self.folder / "published"
        with durable.disk_errors(f"{kept} was not made"):
            durable.make_folders(kept, mode=0o700)
        path = kept / f"{sha256(published.statement().encode())}.line"
        if path.exists():
            return parse_entry(_line(path))
        for other in sorted(kept.glob("*.line")):
            said = Published.parse(parse_entry(_line(other)).statement)
            if said.name == published.name and said.artifact != published.artifact:
                why = f"{said.name} is sha256:{said.artifact}, and stays so for everybody who has it"
                hint = "publish under a new version"
                raise Conflict(f"{published.name} is taken", why=why, hint=hint, code="VERSION-TAKEN")
        entry = publish(published, self.signer())
        durable.write_file(path, entry.line + b"\n", point="statement")
        return entry


def new_publisher(folder: Path, *, label: str, jurisdiction: str, home: str) -> Publisher:
    """Make an identity below `folder`, which must exist.

    Args:
        label: what it calls itself; proves nothing.
        jurisdiction: where it says that it is; cosigners there do not count for what it publishes.
        home: the origin of the log that will order its statements.

    Raises Conflict where an identity of that label is there, Malformed, OutOfSpace, Unavailable.
    """
    name = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    if not name:
        raise Malformed(f"{label[:80]!r} is no label", why="it needs a letter or a digit")
    first, recovery = HybridSigner.generate(), HybridSigner.generate()
    inception = Inception("publisher", KeySet((first.public,), 1), (recovery.public.id,), home, jurisdiction, label)
    mine = folder / name
    if mine.exists():
        raise _exists(mine)
    line = announce(inception, first).line
    try:
        with _whole(mine) as making:  # half an identity would block its label
            write_keys(making / "key.pem", first.keys)
            write_keys(making / "recovery.pem", recovery.keys)
            durable.write_file(making / "inception.line", line + b"\n", mode=0o644, point="inception")
    except Unavailable:
        if mine.exists():
            raise _exists(mine) from None
        raise
    return Publisher(inception, line, mine)


def change_keys(publisher: Publisher, recovery: Sequence[Path] = (), cut: Sequence[LogCut] = ()) -> Publisher:
    """Give a publisher new keys, by its recovery key. The identity stays the same, and what it signed stays its own.

    Args:
        recovery: where the recovery key is, if it was moved to another place.
        cut: how long logs are now; what stands in them beyond that was not said by the old key.

    Raises NotFound, Refused, Malformed for the recovery key, Untrusted (ROTATION) where it is another one's,
    OutOfSpace, Unavailable.
    """
    before = follow(KeyState.of_inception(publisher.inception), map(parse_entry, publisher.rotation_lines)).current
    by = [read_signer(path) for path in recovery or (publisher.keys / "recovery.pem",)]
    key, spare, number = HybridSigner.generate(), HybridSigner.generate(), len(publisher.rotation_lines) + 1
    keys = KeySet((key.public,), 1)
    rotation = Rotation(publisher.id, number, before.digest, keys, (spare.public.id,), "", tuple(cut))
    line = rotate(before, rotation, by, [key]).line
    with _whole(_keys_after(publisher.folder, number)) as making:
        write_keys(making / "key.pem", key.keys)
        write_keys(making / "recovery.pem", spare.keys)
        durable.write_file(making / "rotated.line", line + b"\n", mode=0o644, point="inception")
    return replace(publisher, rotation_lines=(*publisher.rotation_lines, line))


def lost_key(publisher: Publisher, beginning: str = "") -> Digest:
    """The key that is meant: the one whose digest begins so, else the one that was last retired, else the present one.
    Raises NotFound (WHICH-KEY)."""
    chain = follow(KeyState.of_inception(publisher.inception), map(parse_entry, publisher.rotation_lines))
    states = chain.states[:-1] or chain.states
    if not beginning:
        return states[-1].keys.keys[0].id
    known = [key.id for state in chain.states for key in state.keys.keys]
    found = [key for key in known if key.startswith(beginning)]
    if len(set(found)) != 1:
        why = f"its keys, oldest first: {', '.join(key[:16] for key in known)}"
        raise NotFound(f"no key of {publisher.label} begins so", why=why, code="WHICH-KEY")
    return found[0]


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder that becomes `folder` when the block ends, whole or not at all. Raises OutOfSpace, Unavailable."""
    with durable.disk_errors(f"{folder} was not made"):
        making = Path(tempfile.mkdtemp(suffix=durable.TEMPORARY, dir=folder.parent))
    try:
        yield making
        with durable.disk_errors(f"{folder} was not made"):
            durable.move(making, folder, point="publisher")
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _exists(mine: Path) -> Conflict:
    hint = "choose another label"
    return Conflict(f"publisher {mine.name} exists", why=f"see {mine}", hint=hint, code="PUBLISHER-EXISTS")


def publishers(folder: Path) -> tuple[Publisher, ...]:
    """All identities below `folder`."""
    found = sorted(folder.glob("*/inception.line"))
    return tuple(_load(path.parent) for path in found if path.parent.suffix != durable.TEMPORARY)


def find_publisher(known: Sequence[Publisher], name: str) -> Publisher:
    """The one that `name` names: by folder, label, or a beginning of its id of 8 digits or more. Raises NotFound."""
    found = [p for p in known if name in (p.folder.name, p.label) or (len(name) >= 8 and p.id.startswith(name))]
    if len(found) != 1:
        listed = ", ".join(f"{p.folder.name} [{p.id[:12]}]" for p in known) or "none yet"
        hint = "comity publisher ls" if found else f"comity publisher new {shlex.quote(name)} --jurisdiction CODE"
        raise NotFound(f"no publisher {name!r}", why=f"known: {listed}", hint=hint)
    return found[0]


def _load(folder: Path) -> Publisher:
    line, rotations = _line(folder / "inception.line"), list[bytes]()
    while (rotated := _keys_after(folder, len(rotations) + 1) / "rotated.line").exists():
        rotations.append(_line(rotated))
    return Publisher(check_inception(parse_entry(line)), line, folder, tuple(rotations))


def _keys_after(folder: Path, rotations: int) -> Path:
    return folder / f"rotation-{rotations}" if rotations else folder


def _line(path: Path) -> bytes:
    return read_bounded(path, MAX_LINE + 1).removesuffix(b"\n")
