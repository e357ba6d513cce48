"""What every topic needs: the home, the pins, a session over their nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from comity.transfer.plan import Limits
from comity.trust.names import UPSTREAM
from comity.trust.policy import Policy
from comity.verifier import load_policy

from comity_client.events import NodeAtFault, OnEvent, ignore
from comity_client.evidence import catalogue
from comity_client.home import Home
from comity_client.nodes.session import Session, open_session
from comity_client.owner.known_names import KnownNames
from comity_client.owner.memory import Memory
from comity_client.owner.policies import default_policy, mirrored_policy
from comity_client.owner.publishers import Publisher, find_publisher, publishers
from comity_client.owner.trust_store import TrustStore
from comity_client.pulling.held import reference_of
from comity_client.pulling.placed import PlacedPieces

T = TypeVar("T")
Resolution = catalogue.Resolution


class Base:
    """A user's home, and how its topics reach nodes.

    Args:
        home: where it remembers; `Home.default()` where not given.
        limits: patience and bounds of transfers.
    """

    def __init__(self, home: Home | None = None, *, limits: Limits | None = None) -> None:
        self.home = home or Home.default()
        self._limits = limits or Limits()

    def policy(self, path: Path | None = None) -> Policy:
        """The policy in a file; without one, what follows from the pins (see `policies`). Raises Malformed, Untrusted,
        NotFound."""
        if path is not None:
            return load_policy(path)
        return default_policy((pin.federation for pin in self._trust().pins()), self._trust().bindings())

    def publishers(self) -> list[Publisher]:
        return list(publishers(self.home.publishers))

    def publisher(self, name: str) -> Publisher:
        """By folder, label or beginning of the id. Raises NotFound."""
        return find_publisher(self.publishers(), name)

    def _policy_for(self, reference: str) -> Policy:
        policy = self.policy()
        return mirrored_policy(policy) if reference.startswith(UPSTREAM) else policy

    async def _resolve(self, session: Session, reference: str, policy: Policy) -> Resolution:
        return await catalogue.resolve(
            session, reference_of(reference), policy, self._trust().bindings(), self._names()
        )

    def _with(self, work: Callable[[Session], Awaitable[T]], on_event: OnEvent = ignore) -> T:
        pins = [pin.federation for pin in self._trust().pins()]

        async def run() -> T:
            async with open_session(pins, lambda node, error: on_event(NodeAtFault(node.name, str(error)))) as session:
                return await work(session)

        return asyncio.run(run())

    def _trust(self) -> TrustStore:
        return TrustStore(self.home.ensure(self.home.trust))

    def _memory(self) -> Memory:
        return Memory(self.home.ensure(self.home.memory))

    def _names(self) -> KnownNames:
        return KnownNames(self.home.ensure(self.home.memory))

    def _placed(self) -> PlacedPieces:
        return PlacedPieces(self.home.ensure(self.home.placed))


def workers() -> int:
    """Threads that hash files."""
    return min(4, os.cpu_count() or 1)
