"""What the owner trusts: pins, bindings, rotations."""

from __future__ import annotations

from pathlib import Path

from comity.trust.digest import Digest, parse_digest
from comity.trust.errors import NotFound
from comity.trust.federation import MAX_BYTES as MAX_FEDERATION
from comity.verifier import read_bounded

from comity_client.api.base import Base
from comity_client.owner.charter_diff import CharterDiff
from comity_client.owner.trust_store import Bindings, Pin


class Trusting(Base):
    """What the owner trusts: pins, bindings, rotations."""

    def pin(self, file: Path | bytes, *, branch: bool = False) -> Pin:
        """Hold on to a federation file, after proving it; `branch`: see `TrustStore.pin`. Raises Malformed, Untrusted,
        NotFound, Conflict."""
        return self._trust().pin(_federation_bytes(file), branch=branch)

    def pins(self) -> list[Pin]:
        return list(self._trust().pins())

    def unpin(self, federation: Digest) -> None:
        """Raises NotFound."""
        self._trust().unpin(federation)

    def diff(self, file: Path | bytes) -> CharterDiff:
        """What pinning this file would change. Raises Malformed, Untrusted, NotFound."""
        return self._trust().diff(_federation_bytes(file))

    def bindings(self) -> Bindings:
        return self._trust().bindings()

    def bind(self, name: str, to: str) -> None:
        """Decide what a name means to this user: a namespace an identity, `namespace/name[@version]` an artifact.
        Raises Malformed."""
        target = parse_digest(to)
        if "/" in name:
            self._trust().bind_artifact(name, target)
        else:
            self._trust().bind_publisher(name, target)

    def pin_rotation(self, identity: str, rotation: str) -> None:
        """Hold an identity to its newer keys: what retired ones signed counts only if it was logged before `rotation`.
        Raises Malformed."""
        self._trust().pin_rotation(parse_digest(identity), parse_digest(rotation))

    def unbind(self, name: str) -> None:
        """Forget what a name was bound to, and what it meant when it was resolved first. Raises NotFound."""
        forgotten = "/" in name and self._names().forget(name)
        try:
            self._trust().unbind(name)
        except NotFound:
            if not forgotten:
                raise


def _federation_bytes(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else read_bounded(file, MAX_FEDERATION)
