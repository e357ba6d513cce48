"""Publisher identities of this user, made and stored on this machine only.

publishers/<name>/key.pem          signing key; 0600
                  recovery.pem     the only key that may rotate the signing key; to be moved to another place
                  inception.line   the identity; is logged with the first publication
                  published/       statements as signed, so that a retry logs the same line again
                  rotation-1/      after the first rotation: key.pem, recovery.pem, rotated.line
"""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.content.secrets import read_signer, write_keys
from comity.federation_file import Federation
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, check_visible, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.home_logs import home_name
from comity.trust.identity import Inception, InceptionStatement, KeySet, check_inception
from comity.trust.keys import HybridSigner, Signer
from comity.trust.names import is_meant
from comity.trust.places import check_new_jurisdiction
from comity.trust.rotation import KeyState, LogCut, Rotation, RotationChain, follow, parse_rotation, rotate
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.statements import Published


@frozen
class Publisher:
    """An identity whose key is in `folder`. This value contains no secret."""

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
        """The log that orders this publisher's new statements, as its newest rotation names it (`home_logs`)."""
        return self.chain.current.home

    @property
    def chain(self) -> RotationChain:
        """Its keys, from the inception on."""
        return follow(KeyState.of_inception(self.inception), map(parse_entry, self.rotation_lines))

    @property
    def lines(self) -> tuple[bytes, ...]:
        """The lines that prove its current keys."""
        return (self.line, *self.rotation_lines)

    @property
    def rotation(self) -> Digest | None:
        """Its newest rotation, as an owner pins it (`TrustStore.pin_rotation`); None before the first."""
        return parse_rotation(parse_entry(self.rotation_lines[-1]))[0].digest if self.rotation_lines else None

    @property
    def keys(self) -> Path:
        """The folder of its newest keys."""
        return _keys_after(self.folder, len(self.rotation_lines))

    def signer(self) -> Signer:
        """Raises NotFound, Refused, Malformed for the key file."""
        return read_signer(self.keys / "key.pem")

    def sign(self, published: Published) -> Entry:
        """Sign the `published` statement. The same statement always gives the same line.

        Raises Conflict (VERSION-TAKEN) if this name and version were given to other bytes before.
        """
        statements = self._statements
        with durable.disk_errors(f"{statements} was not made"):
            durable.make_folders(statements, mode=0o700)
        path = statements / f"{sha256(published.statement().encode())}.line"
        if path.exists():
            return parse_entry(_line(path))
        for signed in self._signed():
            if signed.name == published.name and signed.artifact != published.artifact:
                why = f"{signed.name} is already published as sha256:{signed.artifact}"
                hint = "publish under a new version"
                raise Conflict(f"{published.name} is taken", why=why, hint=hint, code="VERSION-TAKEN")
        entry = sign_content(published, self.signer())
        durable.write_file(path, entry.line + b"\n", point="statement")
        return entry

    @property
    def _statements(self) -> Path:
        return self.folder / "published"

    def _signed(self) -> Iterator[Published]:
        for path in sorted(self._statements.glob("*.line")):
            yield Published.parse(parse_entry(_line(path)).statement)

    def other_statements(self, published: Published) -> tuple[Published, ...]:
        """Return the other statements about the same bytes, under the same name, that were signed on this machine."""
        same = (each for each in self._signed() if (each.name, each.artifact) == (published.name, published.artifact))
        return tuple(each for each in same if each != published)


def default_home_log(pins: Iterable[Federation], jurisdiction: str) -> str:
    """The name of the log of a node in a pinned federation, of a member in this jurisdiction if there is one; empty if
    none is."""
    found = []
    for pin in pins:
        members = {member.id: member for member in pin.body.members}
        for node in pin.nodes:
            seat = members.get(node.record.member)
            found.append((seat is None or seat.jurisdiction != jurisdiction, home_name(node.record.log)))
    return min(found, default=(True, ""))[1]


def new_publisher(folder: Path, *, label: str, jurisdiction: str, home: str) -> Publisher:
    """Create an identity below `folder`, which must exist.

    Args:
        label: display name; proves nothing.
        jurisdiction: claimed jurisdiction; cosigners there do not count for its publications.
        home: the log that orders its statements, by its verifier key or its origin; empty for none.

    Raises Conflict if an identity with that label exists, Malformed, OutOfSpace, Unavailable.
    """
    if jurisdiction:
        check_new_jurisdiction(jurisdiction)
    name = re.sub(r"[^a-z0-9]+", "-", check_visible(label, "the label").lower()).strip("-")
    if not name:
        raise Malformed(f"{label[:80]!r} is not a label", why="it must have a letter or a digit", code="BAD-NAME")
    first, recovery = HybridSigner.generate(), HybridSigner.generate()
    inception = Inception("publisher", KeySet((first.public,), 1), (recovery.public.id,), home, jurisdiction, label)
    path = folder / name
    if path.exists():
        raise _exists(path)
    line = sign_content(InceptionStatement(inception), first).line
    try:
        with _atomic_folder(path) as making:  # a partial identity would block its label
            write_keys(making / "key.pem", first.keys)
            write_keys(making / "recovery.pem", recovery.keys)
            durable.write_file(making / "inception.line", line + b"\n", mode=0o644, point="inception")
    except Unavailable:
        if path.exists():
            raise _exists(path) from None
        raise
    return Publisher(inception, line, path)


def change_keys(
    publisher: Publisher, recovery: Sequence[Path] = (), cut: Sequence[LogCut] = (), home: str = ""
) -> Publisher:
    """Give a publisher new keys, by means of its recovery key. Its identity and its earlier statements do not change.

    Args:
        recovery: the recovery key files, if they were moved.
        cut: current sizes of logs; entries beyond a cut are not valid under the old key.
        home: the new home log, by its verifier key or its origin; empty to keep the old one.

    Raises NotFound, Refused, Malformed for the recovery key, Untrusted (ROTATION) if it is of another identity,
    OutOfSpace, Unavailable.
    """
    before = publisher.chain.current
    by = [read_signer(path) for path in recovery or (publisher.keys / "recovery.pem",)]
    key, spare, number = HybridSigner.generate(), HybridSigner.generate(), len(publisher.rotation_lines) + 1
    keys = KeySet((key.public,), 1)
    rotation = Rotation(publisher.id, number, before.digest, keys, (spare.public.id,), home, tuple(cut))
    line = rotate(before, rotation, by, [key]).line
    with _atomic_folder(_keys_after(publisher.folder, number)) as making:
        write_keys(making / "key.pem", key.keys)
        write_keys(making / "recovery.pem", spare.keys)
        durable.write_file(making / "rotated.line", line + b"\n", mode=0o644, point="inception")
    return replace(publisher, rotation_lines=(*publisher.rotation_lines, line))


def lost_key(publisher: Publisher, beginning: str = "") -> Digest:
    """Return the key whose digest has this beginning; without one, the key that was retired last, else the current key.
    Raises NotFound (WHICH-KEY)."""
    chain = publisher.chain
    states = chain.states[:-1] or chain.states
    if not beginning:
        return states[-1].keys.keys[0].id
    known = [key.id for state in chain.states for key in state.keys.keys]
    found = [key for key in known if key.startswith(beginning)]
    if len(set(found)) != 1:
        why = f"keys, oldest first: {', '.join(key[:16] for key in known)}"
        raise NotFound(f"no unique key of {publisher.label} begins with {beginning[:64]!r}", why=why, code="WHICH-KEY")
    return found[0]


@contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `folder` when the block succeeds. Raises OutOfSpace, Unavailable."""
    with durable.disk_errors(f"{folder} was not made"):
        making = Path(tempfile.mkdtemp(suffix=durable.TEMPORARY, dir=folder.parent))
    try:
        yield making
        with durable.disk_errors(f"{folder} was not made"):
            durable.move(making, folder, point="publisher")
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _exists(path: Path) -> Conflict:
    hint = "choose another label"
    return Conflict(f"publisher {path.name} exists", why=f"see {path}", hint=hint, code="PUBLISHER-EXISTS")


def publishers(folder: Path) -> tuple[Publisher, ...]:
    """Return all identities below `folder`."""
    found = sorted(folder.glob("*/inception.line"))
    return tuple(_load(path.parent) for path in found if path.parent.suffix != durable.TEMPORARY)


def find_publisher(known: Sequence[Publisher], name: str) -> Publisher:
    """Find a publisher by folder, label, spelled id, or 8 or more digits of its id. Raises NotFound."""
    found = [p for p in known if name in (p.folder.name, p.label) or is_meant(name, p.id)]
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
