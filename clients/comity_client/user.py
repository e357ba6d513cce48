"""One user of this machine: the stores in the state folder, the default policy, and sessions with the pinned nodes.

What asks nodes, and what judges, is loaded where it is used: a look at the pins needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from comity.federation_file import Federation
from comity.trust.errors import ComityError, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.names import abbreviated, refers_to_upstream

from comity_client.home import Home
from comity_client.trust_store import Bindings, TrustPin, TrustStore

if TYPE_CHECKING:
    import asyncio

    from comity.trust.policy import Policy

    from comity_client.early import EarlyStart
    from comity_client.events import OnEvent
    from comity_client.evidence.artifact_info import ArtifactInfo, Replica
    from comity_client.evidence.resolve import Decided, Resolution
    from comity_client.pull.placed_pieces import PlacedPieces
    from comity_client.seen import KnownNames, SeenLogs
    from comity_client.session import RemoteNode, Session

T = TypeVar("T")

MOST_COSIGNERS: Final = 2
UNSIGNED: Final = ("signatures", "transparency", "cosigners")
"""Rows about a publication; a mirrored artifact without a publication has none."""


@frozen
class User:
    """The stores in the state folder of a user, the policy of the owner, and sessions with the nodes of the pins."""

    home: Home
    left_out: Callable[[RemoteNode], str] | None = field(default=None, compare=False)
    """Why a node is not asked; empty if it is. None: every node is asked."""
    early: EarlyStart | None = field(default=None, repr=False, compare=False)
    """The connections with which this process began, for its first session."""
    _open: _OpenSession | None = field(default=None, repr=False, compare=False)

    def trust_store(self) -> TrustStore:
        return TrustStore(self.home.ensure(self.home.trust))

    def seen_logs(self, reader: EvidenceReader | None = None) -> SeenLogs:
        from comity_client.seen import SeenLogs

        return SeenLogs(self.home.ensure(self.home.memory), reader)

    def known_names(self) -> KnownNames:
        from comity_client.seen import KnownNames

        return KnownNames(self.home.ensure(self.home.memory))

    def placed_pieces(self) -> PlacedPieces:
        from comity_client.pull.placed_pieces import PlacedPieces

        return PlacedPieces(self.home.ensure(self.home.placed))

    def pins(self, reader: EvidenceReader | None = None) -> tuple[Federation, ...]:
        return tuple(pin.federation for pin in self.trust_store().pins(reader))

    def policy(self, pins: Iterable[Federation], reference: str = "") -> Policy:
        """Return the default policy of these pins, for the kind of reference (see `default_policy`).

        Args:
            reference: as a user typed it; empty for a folder, whatever its name is.
        """
        policy = default_policy(pins, self.trust_store().bindings())
        return mirrored_policy(policy) if refers_to_upstream(reference) else policy

    async def resolve(
        self, session: Session, reference: str, policy: Policy | None = None, decided: Decided | None = None
    ) -> Resolution:
        """Resolve a reference; by default by the default policy of the session's pins. `decided`: as `resolve`."""
        from comity_client.evidence.inquiry import Inquiry
        from comity_client.evidence.lookup import reference_of
        from comity_client.evidence.resolve import resolve

        if abbreviated(reference) is None:
            parsed = reference_of(reference)
        else:
            from comity_client.pull.destinations import read_reference

            parsed = await read_reference(session, reference)
        inquiry = Inquiry(session, policy or self.policy(session.pins))
        return await resolve(inquiry, parsed, self.trust_store().bindings(), self.known_names(), decided)

    def show(self, reference: str, policy: Policy | None = None) -> ArtifactInfo:
        """Describe the artifact of a reference; without a policy, by the default policy. If no node gives it, what an
        earlier pull of this exact version left is the answer (`ArtifactInfo.cache`). Raises as `resolve` does."""

        async def work(session: Session) -> ArtifactInfo:
            from asyncio import to_thread

            from comity_client.evidence.artifact_info import describe_ahead, describe_artifact
            from comity_client.kept_proofs import kept_proofs

            try:
                resolution = await self.resolve(session, reference, policy, describe_ahead)
                stated = [each.publication for each in resolution.statements]
                return await describe_artifact(resolution, await to_thread(kept_proofs, stated))
            except Unavailable as error:
                from comity_client.pull.offline import shown_before

                judged_by = policy or self.policy(session.pins, reference)
                names, bindings = self.known_names(), self.trust_store().bindings()
                return await to_thread(shown_before, names, bindings, session.pins, reference, judged_by, error)

        return self.run(work, ahead=True)

    def whereis(self, reference: str) -> list[Replica]:
        """List the nodes that claim a copy, and those that answer with one now. Raises as `resolve` does."""

        async def work(session: Session) -> list[Replica]:
            from comity_client.evidence.artifact_info import replicas

            return await replicas(await self.resolve(session, reference))

        return self.run(work, ahead=True)

    def run(
        self,
        work: Callable[[Session], Coroutine[Any, Any, T]],
        on_event: OnEvent | None = None,
        *,
        ahead: bool = False,
    ) -> T:
        """Run `work` in a session. One reader parses the pins and what the nodes say.

        Args:
            ahead: it will ask all nodes; connections are opened before `work` is called, which may import much.
        """
        if self._open is None:
            reader = EvidenceReader()
            opening: AbstractContextManager[_OpenSession] = self._opened(self.trust_store().pins(reader), reader)
        else:
            opening = nullcontext(self._open)
        with opening as opened:
            opened.on_event = on_event
            if ahead:
                opened.runner.run(opened.session.begin_connecting())
            found = list[T]()

            async def kept() -> None:
                found.append(await work(opened.session))

            opened.runner.run(kept())  # returns nothing, because the runner renders what it returns as text
            return found[0]

    @contextmanager
    def connected(self) -> Iterator[User]:
        """This user, with one session for all that is run in the block. Its connections are being opened while a
        command imports what it needs."""
        reader = EvidenceReader()
        with self._opened(self.trust_store().pins(reader), reader) as opened:
            opened.runner.run(opened.session.begin_connecting())
            yield replace(self, _open=opened)

    @contextmanager
    def _opened(self, pins: Iterable[TrustPin], reader: EvidenceReader) -> Iterator[_OpenSession]:
        import asyncio

        from comity_client.known_addresses import KeptAddresses
        from comity_client.session import Session

        def report(node: RemoteNode, error: ComityError) -> None:
            if opened.on_event is not None:
                from comity_client.events import NodeAtFault

                opened.on_event(NodeAtFault(node.name, str(error)))

        federations = [pin.federation for pin in pins]
        early = self.early
        channels = early.channels if early else None
        session = Session(federations, report, reader, KeptAddresses(self.home.trust), channels)
        if self.left_out is not None:
            for node in session.nodes:
                node.left_out = self.left_out(node)
        with early.take_runner() if early else asyncio.Runner() as runner:
            opened = _OpenSession(session, runner)
            try:
                yield opened
            finally:
                runner.run(session.close())
                if channels is not None:
                    runner.run(channels.close())


@dataclass(slots=True)
class _OpenSession:
    """A session, and the event loop that its connections belong to. `on_event` hears of faults of nodes."""

    session: Session
    runner: asyncio.Runner
    on_event: OnEvent | None = None


def default_policy(pins: Iterable[Federation], bindings: Bindings) -> Policy:
    """Return the policy of pulls and verifications without a policy file: all pinned bodies count; bindings and pinned
    rotations apply; required cosigners outside the jurisdiction of the publisher are the highest quorum of the
    pinned charters, at most two.

    A small federation cannot give more cosigners than its charter promises, and a charter with a low quorum must not
    weaken the rule for another.
    """
    from comity.trust.home_logs import OriginOwners, origin_owners
    from comity.trust.policy import CosignerRule, Policy

    federations = tuple(pins)
    bodies = tuple(federation.body for federation in federations)
    promised = max((body.policy.cosigner_quorum for body in bodies), default=MOST_COSIGNERS)
    return Policy(
        pins=bodies,
        bindings=dict(bindings.publishers),
        rotations=dict(bindings.rotations),
        cosigners=CosignerRule(at_least=min(MOST_COSIGNERS, promised)),
        origins=OriginOwners.of_all(origin_owners(each.chain, each.identity_entries) for each in federations),
    )


def mirrored_policy(policy: Policy) -> Policy:
    """Return the policy for a reference to an upstream, `hf:org/name@commit`: no publication is required, but a node of
    a pinned member must claim that it fetched these bytes there."""
    from comity.trust.policy import UpstreamRule

    rule = UpstreamRule(max(1, policy.upstream.corroborated))
    return replace(policy, upstream=rule, require=tuple(row for row in policy.require if row not in UNSIGNED))
