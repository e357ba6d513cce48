"""What the owner decided to trust: pinned federation files, and what names mean to them. Nobody else writes here.

    trust.toml             the decisions, readable and editable by a person
    <federation id>.json   the bytes of each pinned federation file

schema = "comity/trust/v1"
[[pin]]
file = "9f2c….json"
body = "9f2c…"                          # the charter body that decides who counts
[publishers]                            # namespace -> identity: who may publish under it, to this owner
swiss-ai = "51aa…"
[rotations]                             # identity -> rotation: keys retired up to it count only below its cut
"51aa…" = "c3d4…"
[artifacts]                             # name, with or without version -> digest: what it stands for, to this owner
"swiss-ai/apertus-8b@v1" = "77b0…"
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.digest import Digest, parse_digest, short
from comity.trust.errors import Conflict, Malformed, NotFound, Untrusted
from comity.trust.federation import MAX_BYTES, Federation
from comity.trust.names import Reference, check_segment
from comity.verifier import read_bounded

from comity_client.owner.charter_diff import CharterDiff, compare
from comity_client.owner.lock import exclusive

SCHEMA: Final = "comity/trust/v1"
MAX_TRUST: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pin:
    """A federation that the owner holds on to, proven again each time it is read."""

    federation: Federation
    file: Path

    @property
    def id(self) -> Digest:
        return self.federation.body.federation

    @property
    def body(self) -> Digest:
        return self.federation.body.digest


@dataclass(frozen=True, slots=True)
class Bindings:
    """The owner's own meanings: of namespaces (an identity), and of names with or without version (an artifact); and
    the rotations by which identities are held to their newer keys."""

    publishers: Mapping[str, Digest] = field(default_factory=dict)
    artifacts: Mapping[str, Digest] = field(default_factory=dict)
    rotations: Mapping[Digest, Digest] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Decisions:
    pins: Mapping[str, Digest]
    bindings: Bindings


class TrustStore:
    """The store in `folder`, which must exist. Every method may raise Malformed where a person's edit broke the file,
    Untrusted where a pinned file is not the one that was pinned, OutOfSpace, Unavailable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "trust.toml"

    def pins(self) -> tuple[Pin, ...]:
        return tuple(self._pin(file, body) for file, body in self._read().pins.items())

    def bindings(self) -> Bindings:
        return self._read().bindings

    def diff(self, data: bytes) -> CharterDiff:
        """What pinning this federation file would change."""
        new = Federation.parse(data)
        old = {pin.id: pin.federation for pin in self.pins()}.get(new.body.federation)
        return compare(old, new)

    def pin(self, data: bytes, *, branch: bool = False) -> Pin:
        """Hold on to this federation file; it replaces an older one of the same federation, if its certificates lead on
        from the body that is pinned.

        Args:
            branch: the federation is split, and its owner decides for the branch in this file.

        Raises Conflict: PIN-BACK for a file that ends before the pinned body, FORK for another branch.
        """
        federation = Federation.parse(data)
        name = f"{federation.id}.json"
        with exclusive(self._folder):
            decisions = self._read()
            pinned = decisions.pins.get(name)
            if pinned is not None and federation.holds(pinned) is None:
                _refuse(self._pin(name, pinned).federation, federation, branch)
            durable.write_file(self._folder / name, data, mode=0o600, point="trust")
            self._write(_Decisions({**decisions.pins, name: federation.body.digest}, decisions.bindings))
        return Pin(federation, self._folder / name)

    def unpin(self, federation: Digest) -> None:
        """Raises NotFound where it is not pinned."""
        name = f"{federation}.json"
        with exclusive(self._folder):
            decisions = self._read()
            if name not in decisions.pins:
                raise NotFound(f"federation {short(federation)} is not pinned", hint="comity trust show")
            self._write(_Decisions({k: v for k, v in decisions.pins.items() if k != name}, decisions.bindings))
            (self._folder / name).unlink(missing_ok=True)

    def bind_publisher(self, namespace: str, identity: Digest) -> None:
        """From now on `namespace` is `identity`'s, to this owner; whatever charters say."""
        check_segment(namespace, "namespace")
        self._bind(Bindings({namespace: identity}))

    def bind_artifact(self, name: str, artifact: Digest) -> None:
        """From now on `name` (`namespace/name`, or with `@version`) stands for `artifact`, to this owner."""
        self._bind(Bindings(artifacts={_artifact_name(name): artifact}))

    def pin_rotation(self, identity: Digest, rotation: Digest) -> None:
        """From now on keys that `identity` retired up to `rotation` count only for what was logged before."""
        self._bind(Bindings(rotations={identity: rotation}))

    def unbind(self, name: str) -> None:
        """Forget what a namespace or a name stood for, or the rotation of an identity. Raises NotFound."""
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

    def _pin(self, file: str, body: Digest) -> Pin:
        path = self._folder / file
        federation = Federation.parse(read_bounded(path, MAX_BYTES))
        if federation.body.digest != body:
            why = f"{file} holds charter body {short(federation.body.digest)}, pinned is {short(body)}"
            raise Untrusted(
                "pin refused", why=why, hint="comity trust diff FILE, then comity trust pin FILE", code="PIN"
            )
        return Pin(federation, path)

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
        pins = dict(_pin_entry(item) for item in document.get("pin", []))
        publishers = {check_segment(k, "namespace"): v for k, v in _digests(document, "publishers").items()}
        artifacts = {_artifact_name(k): v for k, v in _digests(document, "artifacts").items()}
        rotations = {parse_digest(k): v for k, v in _digests(document, "rotations").items()}
        return _Decisions(pins, Bindings(publishers, artifacts, rotations))

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


def _refuse(held: Federation, new: Federation, branch: bool) -> None:
    """Raise Conflict for a file that does not lead on from the pinned body, unless its owner decides for a branch."""
    diff = compare(held, new)
    if diff.relation == "back":
        why = f"the file ends at epoch {new.body.epoch}, pinned is epoch {held.body.epoch}"
        hint = "get a newer file; or comity trust unpin first, if you mean it"
        raise Conflict("a pin never goes back", why=why, hint=hint, code="PIN-BACK")
    if not branch:
        why = f"this file and the pinned one lead from epoch {diff.common} to different charters"
        raise Conflict("this is another branch", why=why, hint="comity trust diff FILE", code="FORK")


def _pin_entry(item: object) -> tuple[str, Digest]:
    if not isinstance(item, dict) or set(item) != {"file", "body"} or not isinstance(item["file"], str):
        raise _malformed("a [[pin]] has 'file' and 'body'")
    if Path(item["file"]).name != item["file"]:
        raise _malformed("a pinned file lies beside trust.toml")
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
