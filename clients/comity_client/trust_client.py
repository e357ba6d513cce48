"""What one user trusts, as a synchronous Python API: the policy, own publishers, pins and bindings on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comity.federation_file import FederationSource
from comity.transfer.limits import TransferLimits
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.names import Abbreviation, Reference, find_id, parse_id
from comity.trust.policy import Policy
from comity.verifier import load_policy

from comity_client.evidence.inquiry import Inquiry
from comity_client.evidence.lookup import FoundIdentity, find_identity, known_identities
from comity_client.home import Home
from comity_client.publishers import Publisher, find_publisher, publishers
from comity_client.pull.destinations import read_reference
from comity_client.trust_store import Bindings, CharterDiff, TrustPin
from comity_client.user import User

if TYPE_CHECKING:
    from comity_client.publisher_concerns import PublisherConcerns


class TrustClient:
    """The stores of one user.

    Args:
        home: the state folder; default `Home.default()`.
        limits: timeouts and bounds of transfers.
        user: the user of `home`, whose session may be open (`User.connected`); default: one without.
    """

    def __init__(
        self, home: Home | None = None, *, limits: TransferLimits | None = None, user: User | None = None
    ) -> None:
        self._user = user or User(home or Home.default())
        self.home = self._user.home
        self._limits = limits or TransferLimits()

    @property
    def user(self) -> User:
        """Stores and sessions, for what add-ons do beside the methods of this class."""
        return self._user

    def policy(self, path: Path | None = None) -> Policy:
        """Return the policy in a file; without a file, the default policy of the pins (see `user.default_policy`).
        Raises Malformed, Untrusted, NotFound."""
        return load_policy(path) if path is not None else self._user.policy(self._user.pins())

    def publishers(self) -> list[Publisher]:
        return list(publishers(self.home.publishers))

    def publisher(self, name: str) -> Publisher:
        """Find a publisher by folder, label or beginning of its id. Raises NotFound."""
        return find_publisher(self.publishers(), name)

    def concerns(self, publisher: Digest) -> PublisherConcerns:
        """What concerns a publisher, as all nodes list it. Raises as `ask_concerns`."""
        from comity_client.publisher_concerns import ask_concerns

        policy = self._user.policy(self._user.pins())
        return self._user.run(lambda session: ask_concerns(session, policy, publisher), ahead=True)

    def pin(self, file: FederationSource, *, branch: bool = False) -> TrustPin:
        """Verify and pin a federation file; for `branch` see `TrustStore.pin`. Raises Malformed, Untrusted, NotFound,
        Conflict."""
        return self._user.trust_store().pin(file, branch=branch)

    def pins(self) -> list[TrustPin]:
        return list(self._user.trust_store().pins())

    def unpin(self, federation: str) -> Digest:
        """Remove a pin, by the id of the federation, which may be abbreviated. Returns the id. Raises NotFound,
        Malformed."""
        pinned = {pin.id: str(pin.file) for pin in self.pins()}
        found = find_id(federation, pinned, "federation", "comity trust show")
        self._user.trust_store().unpin(found)
        return found

    def diff(self, file: FederationSource) -> CharterDiff:
        """Return the changes that pinning this file would make. Raises Malformed, Untrusted, NotFound."""
        return self._user.trust_store().diff(file)

    def bindings(self) -> Bindings:
        return self._user.trust_store().bindings()

    def find_target(self, name: str, to: str) -> FoundIdentity:
        """Return the publisher or artifact that `to` gives for a binding of `name`, in full, spelled or abbreviated. It
        is `claimed` if only nodes say what the digits stand for. Raises as `find_identity` and `resolve` do."""
        if Abbreviation.parse(to) is None:
            return FoundIdentity(parse_id(to), "", claimed=False)
        if "/" in name:
            repository = Reference.parse(name).repository
            found = self._user.run(lambda session: read_reference(session, f"{repository}@sha256:{to}"))
            return FoundIdentity(found.digest or Digest(""), "", claimed=True)
        known, policy = self._known_identities(), self._user.policy(self._user.pins())
        return self._user.run(lambda session: find_identity(Inquiry(session, policy), name, to, known))

    def _known_identities(self) -> dict[Digest, str]:
        own = (publisher.inception for publisher in self.publishers())
        return known_identities(own, (pin.federation.body for pin in self.pins()), self.bindings())

    def bind(self, name: str, to: str) -> None:
        """Bind a name for this user: a namespace to an identity, or `namespace/name[@version]` to an artifact. Raises
        Malformed."""
        target = parse_id(to)
        if "/" in name:
            self._user.trust_store().bind_artifact(name, target)
        else:
            self._user.trust_store().bind_publisher(name, target)

    def pin_rotation(self, identity: str, rotation: str) -> None:
        """Pin a rotation of an identity: signatures of retired keys count only if they were logged before `rotation`.
        The identity may be abbreviated if this user knows it. Raises Malformed, NotFound (UNKNOWN-ID)."""
        who = find_id(identity, self._known_identities(), "publisher", "comity trust show")
        self._user.trust_store().pin_rotation(who, parse_id(rotation))

    def unbind(self, name: str) -> None:
        """Remove the binding of a name, and the claimant remembered at its first resolution. Raises NotFound."""
        forgotten = "/" in name and self._user.known_names().forget(name)
        try:
            self._user.trust_store().unbind(name)
        except NotFound:
            if not forgotten:
                raise
