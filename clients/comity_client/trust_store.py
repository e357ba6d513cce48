"""Trust decisions of this user: pinned federation files, bindings, and charter differences.

trust.toml                      the decisions, readable and editable by a person
<federation id>-<body>.json     each pinned federation file; earlier versions named it by the federation alone

A file with another body gets another name, so that trust.toml names a file that fits it, whatever is interrupted.

schema = "comity/trust/v1"
[[pin]]
file = "9f2c…-77b0….json"
body = "9f2c…"                          # the pinned charter body
[publishers]                            # namespace -> identity that may publish under it
swiss-ai = "51aa…"
[rotations]                             # identity -> rotation: keys retired up to it count only below its cut
"51aa…" = "c3d4…"
[artifacts]                             # name, with or without version -> digest that it resolves to
"swiss-ai/apertus-8b@v1" = "77b0…"
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.federation_file import Federation, FederationSource, load_federation, read_federation
from comity.trust.charter.document import Body, Member
from comity.trust.charter.federation import FederationNode
from comity.trust.encoding import Digest, parse_digest, short
from comity.trust.errors import Conflict, Malformed, NotFound, Untrusted
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.names import Reference, check_segment

from comity_client.home import exclusive

T = TypeVar("T")


ChangedPart: TypeAlias = Literal["member", "namespace", "policy", "node"]


@frozen
class CharterChange:
    """One addition, removal or change. `before` is empty for an addition, `after` for a removal."""

    what: ChangedPart
    name: str
    before: str
    after: str


@frozen
class CharterDiff:
    """The changes from the pinned federation file to a new one. `old` is None if this federation is not pinned.

    `relation` of the new file to the pinned one: `new`, `same`, `forward` (its chain of certificates extends the pinned
    body), `back` (it ends before the pinned body), or `fork` (both extend `common`, the last epoch that they share, to
    different charters; only the owner can decide).
    """

    federation: Digest
    old: Digest | None
    new: Digest
    changes: tuple[CharterChange, ...]
    relation: str
    epochs: tuple[int, int]
    common: int


def compare(old: Federation | None, new: Federation) -> CharterDiff:
    """Return the differences from `old` to `new`, members first, and their relation."""
    changes = [
        *body_changes(old.body if old else None, new.body),
        *_changes("node", _nodes(old), _nodes(new)),
    ]
    return CharterDiff(
        federation=new.id,
        old=old.body.digest if old else None,
        new=new.body.digest,
        changes=tuple(changes),
        relation=_relation(old, new),
        epochs=(old.body.epoch if old else 0, new.body.epoch),
        common=_common(old, new) if old else 0,
    )


def _relation(old: Federation | None, new: Federation) -> str:
    """Return the relation, see `CharterDiff`."""
    if old is None:
        return "new"
    if old.body.digest == new.body.digest:
        return "same"
    if new.holds(old.body.digest):
        return "forward"
    return "back" if old.holds(new.body.digest) else "fork"


def _common(old: Federation, new: Federation) -> int:
    """Return the last epoch that both chains share."""
    shared = [mine.epoch for mine, other in zip(old.chain, new.chain, strict=False) if mine.digest == other.digest]
    return max(shared, default=0)


def body_changes(old: Body | None, new: Body) -> list[CharterChange]:
    """Return the differences from charter `old` to `new`: members with their keys, namespaces, policy."""
    return [
        *_changes("member", _members(old), _members(new)),
        *_changes("namespace", old.namespaces if old else {}, new.namespaces),
        *_changes("policy", _policy(old), _policy(new)),
    ]


def _changes(what: ChangedPart, before: Mapping[str, str], after: Mapping[str, str]) -> list[CharterChange]:
    names = sorted({*before, *after})
    return [
        CharterChange(what, name, before.get(name, ""), after.get(name, ""))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _members(body: Body | None) -> dict[str, str]:
    return {m.id: _member(m) for m in body.members} if body else {}


def _member(member: Member) -> str:
    keys = ", ".join(key.id[:12] for key in member.keys.keys)
    recovery = ", ".join(digest[:12] for digest in member.recovery) or "none"
    successor = f", successor of {member.successor_of[:12]}" if member.successor_of else ""
    return (
        f"{member.name} ({member.jurisdiction}), {member.status}{successor}, {member.keys.threshold} of keys {keys}, "
        f"recovery {recovery}"
    )


def _policy(body: Body | None) -> dict[str, str]:
    return {name: str(value) for name, value in dataclasses.asdict(body.policy).items()} if body else {}


def _nodes(federation: Federation | None) -> dict[str, str]:
    return {node.record.origin: _node(node) for node in federation.nodes} if federation else {}


def _node(node: FederationNode) -> str:
    return f"{node.record.name} at {', '.join(node.open) or 'no open address'}, key {node.record.online.id[:12]}"


SCHEMA: Final = "comity/trust/v1"
DIGITS: Final = 16
"""Digits of the body in the name of a pinned file."""
MAX_TRUST: Final = 4 * 1024 * 1024


@frozen
class TrustPin:
    """A pinned federation file, verified each time it is read."""

    federation: Federation
    file: Path

    @property
    def id(self) -> Digest:
        return self.federation.body.federation

    @property
    def body(self) -> Digest:
        return self.federation.body.digest


@frozen
class Bindings:
    """Bindings of the owner: namespaces to identities, names with or without version to artifacts, and identities to
    pinned rotations."""

    publishers: Mapping[str, Digest] = field(default_factory=dict)
    artifacts: Mapping[str, Digest] = field(default_factory=dict)
    rotations: Mapping[Digest, Digest] = field(default_factory=dict)


@frozen
class _Decisions:
    pins: Mapping[str, Digest]
    bindings: Bindings

    def file_of(self, federation: Digest) -> str | None:
        """The name of the pinned file of a federation."""
        return next((file for file in self.pins if file.startswith(federation)), None)

    def without(self, file: str | None) -> dict[str, Digest]:
        """The pins except that of a file."""
        return {name: body for name, body in self.pins.items() if name != file}


class TrustStore:
    """The store in `folder`, which must exist. Any method may raise Malformed if trust.toml is invalid, Untrusted if a
    pinned file changed, OutOfSpace, Unavailable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "trust.toml"

    def pins(self, reader: EvidenceReader | None = None) -> tuple[TrustPin, ...]:
        """Return the pins, each verified now.

        Args:
            reader: that of the session in which they are used; default: a new one.
        """
        found: list[TrustPin] = []
        for file, body in self._read().pins.items():
            federation = read_federation(self._folder / file, reader)
            _require_body(federation, file, body)
            found.append(TrustPin(federation, self._folder / file))
        return tuple(found)

    def bindings(self) -> Bindings:
        return self._read().bindings

    def diff(self, source: FederationSource) -> CharterDiff:
        """Return the changes that pinning this federation file would make."""
        new = load_federation(source)
        old = {pin.id: pin.federation for pin in self.pins()}.get(new.body.federation)
        return compare(old, new)

    def pin(self, source: FederationSource, *, branch: bool = False) -> TrustPin:
        """Pin this federation file. It replaces an older file of the same federation if its certificates extend the
        pinned body.

        Args:
            branch: the federation is split, and the owner selects the branch in this file.

        Raises Conflict: PIN-BACK for a file that ends before the pinned body, FORK for another branch.
        """
        federation = load_federation(source)
        name = f"{federation.id}-{federation.body.digest[:DIGITS]}.json"
        with exclusive(self._folder):
            decisions = self._read()
            before = decisions.file_of(federation.id)
            if before is not None and federation.holds(pinned := decisions.pins[before]) is None:
                old = read_federation(self._folder / before)
                _require_body(old, before, pinned)
                _require_forward(old, federation, branch)
            durable.write_pieces(self._folder / name, federation.encoded(), mode=0o600, point="trust")
            pins = {**decisions.without(before), name: federation.body.digest}
            self._write(_Decisions(pins, decisions.bindings))
            if before is not None and before != name:
                self._remove(before)
        return TrustPin(federation, self._folder / name)

    def unpin(self, federation: Digest) -> None:
        """Raises NotFound if the federation is not pinned."""
        with exclusive(self._folder):
            decisions = self._read()
            name = decisions.file_of(federation)
            if name is None:
                raise NotFound(f"federation {short(federation)} is not pinned", hint="comity trust show")
            self._write(_Decisions(decisions.without(name), decisions.bindings))
            self._remove(name)

    def bind_publisher(self, namespace: str, identity: Digest) -> None:
        """Bind `namespace` to `identity` for this user; overrides charters."""
        check_segment(namespace, "namespace")
        self._bind(Bindings({namespace: identity}))

    def bind_artifact(self, name: str, artifact: Digest) -> None:
        """Bind `name` (`namespace/name`, or with `@version`) to `artifact` for this user."""
        self._bind(Bindings(artifacts={_artifact_name(name): artifact}))

    def pin_rotation(self, identity: Digest, rotation: Digest) -> None:
        """Pin `rotation`: keys that `identity` retired up to it count only for earlier log entries."""
        self._bind(Bindings(rotations={identity: rotation}))

    def unbind(self, name: str) -> None:
        """Remove the binding of a namespace or name, or the pinned rotation of an identity. Raises NotFound."""
        with exclusive(self._folder):
            decisions = self._read()
            bound = decisions.bindings
            kept = Bindings(
                {k: v for k, v in bound.publishers.items() if k != name},
                {k: v for k, v in bound.artifacts.items() if k != name},
                {k: v for k, v in bound.rotations.items() if k != name},
            )
            if kept == bound:
                raise NotFound(f"{name!r} is not bound", hint="comity trust show")
            self._write(_Decisions(decisions.pins, kept))

    def _bind(self, more: Bindings) -> None:
        with exclusive(self._folder):
            decisions = self._read()
            bound = decisions.bindings
            both = Bindings(
                {**bound.publishers, **more.publishers},
                {**bound.artifacts, **more.artifacts},
                {**bound.rotations, **more.rotations},
            )
            self._write(_Decisions(decisions.pins, both))

    def _remove(self, file: str) -> None:
        with durable.disk_errors(f"{file} was not removed"):
            (self._folder / file).unlink(missing_ok=True)

    def _read(self) -> _Decisions:
        try:
            document = tomllib.loads(read_bounded(self._file, MAX_TRUST).decode("utf-8"))
        except NotFound:
            return _Decisions({}, Bindings())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise _malformed(str(error)) from error
        unknown = sorted(set(document) - {"schema", "pin", "publishers", "artifacts", "rotations"})
        if unknown or document.get("schema") != SCHEMA:
            raise _malformed(f"unknown key {unknown[0]!r}" if unknown else f"schema must be {SCHEMA!r}")
        try:
            return _decisions(document)
        except Malformed as error:
            if error.code == "TRUST-SYNTAX":
                raise
            raise _malformed(str(error)) from error

    def _write(self, decisions: _Decisions) -> None:
        lines = [f'schema = "{SCHEMA}"', ""]
        for file, body in sorted(decisions.pins.items()):
            lines += ["[[pin]]", f"file = {json.dumps(file)}", f"body = {json.dumps(body)}", ""]
        for table, bound in (
            ("publishers", decisions.bindings.publishers),
            ("artifacts", decisions.bindings.artifacts),
            ("rotations", decisions.bindings.rotations),
        ):
            lines += [f"[{table}]", *(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in sorted(bound.items())), ""]
        durable.write_file(self._file, "\n".join(lines).encode(), mode=0o600, point="trust")


def _require_body(federation: Federation, file: str, body: Digest) -> None:
    if federation.body.digest != body:
        why = f"{file} has charter body {short(federation.body.digest)}, pinned is {short(body)}"
        raise Untrusted("pin refused", why=why, hint="comity trust diff FILE, then comity trust pin FILE", code="PIN")


def _require_forward(pinned: Federation, new: Federation, branch: bool) -> None:
    """Raise Conflict for a file that does not extend the pinned body, unless the owner selects a branch."""
    diff = compare(pinned, new)
    if diff.relation == "back":
        why = f"the file ends at epoch {new.body.epoch}, pinned is epoch {pinned.body.epoch}"
        hint = "get a newer file, or run comity trust unpin first"
        raise Conflict("a pin cannot go back", why=why, hint=hint, code="PIN-BACK")
    if not branch:
        why = f"this file and the pinned one extend epoch {diff.common} to different charters"
        raise Conflict("this is another branch", why=why, hint="comity trust diff FILE", code="FORK")


def _decisions(document: Mapping[str, object]) -> _Decisions:
    """Raises Malformed, not always with the code TRUST-SYNTAX."""
    listed = document.get("pin", [])
    if not isinstance(listed, list):
        raise _malformed("write each pin below [[pin]]")
    publishers = {check_segment(k, "namespace"): v for k, v in _digests(document, "publishers").items()}
    artifacts = {_artifact_name(k): v for k, v in _digests(document, "artifacts").items()}
    rotations = {parse_digest(k): v for k, v in _digests(document, "rotations").items()}
    return _Decisions(dict(map(_pin_entry, listed)), Bindings(publishers, artifacts, rotations))


def _pin_entry(item: object) -> tuple[str, Digest]:
    if not isinstance(item, dict) or set(item) != {"file", "body"} or not isinstance(item["file"], str):
        raise _malformed("a [[pin]] has 'file' and 'body'")
    if Path(item["file"]).name != item["file"]:
        raise _malformed("a pinned file must be in the folder of trust.toml")
    return item["file"], parse_digest(item["body"])


def _digests(document: Mapping[str, object], table: str) -> dict[str, Digest]:
    found = document.get(table, {})
    if not isinstance(found, dict):
        raise _malformed(f"[{table}] must be a table")
    return {name: parse_digest(value) for name, value in found.items()}


def _artifact_name(name: str) -> str:
    reference = Reference.parse(name)
    if reference.repository is None or reference.digest is not None:
        raise Malformed(f"{name[:200]!r} cannot be bound", why="expected namespace/name or namespace/name@version")
    return str(reference)


def _malformed(why: str) -> Malformed:
    return Malformed("trust.toml is malformed", why=why, hint="undo the last edit of trust.toml", code="TRUST-SYNTAX")
