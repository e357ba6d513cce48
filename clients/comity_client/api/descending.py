"""What was made from what, and what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from comity.trust.digest import Digest
from comity.trust.policy import Policy
from comity.trust.statements.derived import sign_derived

from comity_client.api.base import Base, workers
from comity_client.comparing.differences import Differences, compare_sides
from comity_client.comparing.sides import Side, side_of_folder, side_of_resolution
from comity_client.events import OnEvent, Progress, ignore
from comity_client.lineage.derivations import Derivation, derive
from comity_client.lineage.graph import Lineage, check_edges, of_folder, of_resolution
from comity_client.nodes.session import Session
from comity_client.owner.publishers import Publisher
from comity_client.publishing.publish import (
    Receipt,
    publish_statement,
)
from comity_client.pulling.held import Held, held, held_of


class Descending(Base):
    """What was made from what, and what differs."""

    def lineage(self, what: Path | str, *, check: bool = False, hub_cache: Path | None = None) -> Lineage:
        """What an artifact comes from: a folder by its pack alone, a reference by what all nodes say.

        Args:
            check: make the weights of each edge again whose two sides are on this machine.

        Raises as `resolve` and `lineage.of_folder` do.
        """

        async def work(session: Session) -> Lineage:
            policy = self.policy()
            return await of_resolution(session, await self._resolve(session, str(what), policy), policy)

        folder = Path(what) if Path(what).is_dir() else None
        found = of_folder(folder, self.policy()) if folder else self._with(work)
        if not check:
            return found
        places = {found.graph.root.digest: folder} if folder else {}

        def derivation(child: Digest, parent: Digest) -> Derivation:
            sides = (self.held(places.get(d) or f"sha256:{d}", hub_cache=hub_cache) for d in (child, parent))
            return self.derive(*sides)

        return check_edges(found, derivation)

    def held(
        self, what: Path | str, *, hub_cache: Path | None = None, on_hashed: Callable[[int], None] | None = None
    ) -> Held:
        """An artifact whose bytes are here, hashed now: a folder, or what a reference was pulled to. Uses no network.
        Raises as `held.held` does."""
        return held(what, workers=workers(), hub_cache=hub_cache, on_hashed=on_hashed)

    def derive(self, child: Held, parent: Held, *, on_read: Callable[[int], None] = lambda _: None) -> Derivation:
        """Whether `child` was made from `parent`, tensor by tensor. Uses no network. Raises as `derivations.derive`
        does."""
        return derive(child, parent, workers=workers(), on_read=on_read)

    def compare(
        self,
        before: Path | str,
        after: Path | str,
        *,
        policy: Policy | None = None,
        hub_cache: Path | None = None,
        on_event: OnEvent = ignore,
    ) -> Differences:
        """What differs between two artifacts, each a folder or a reference.

        Raises as `resolve` and `held.held` do; what could not be compared of them is in the result.
        """
        judged_by = policy or self.policy()

        def hold(what: Path | str) -> Held:
            return self.held(what, hub_cache=hub_cache, on_hashed=lambda count: on_event(Progress("", count)))

        async def side(session: Session, what: Path | str) -> Side:
            if isinstance(what, Path) or Path(what).exists():
                return side_of_folder(await asyncio.to_thread(hold, what), judged_by)
            resolution = await self._resolve(session, what, judged_by)
            here = held_of(f"sha256:{resolution.artifact}", hub_cache, hold)
            return await side_of_resolution(session, self._memory(), resolution, judged_by, on_event, here)

        async def work(session: Session) -> Differences:
            return await compare_sides(session, await side(session, before), await side(session, after))

        return self._with(work, on_event)

    def log_derivation(
        self,
        derivation: Derivation,
        *,
        publisher: Publisher,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore,
    ) -> Receipt:
        """Sign what was found, and log it. Raises as `publish` does."""
        entry = sign_derived(derivation.said_by(publisher.inception.author), publisher.signer())
        title, where = derivation.child.title, nodes or [publisher.home]
        return self._with(
            lambda session: publish_statement(
                session, self._memory(), title, entry, {}, publisher, where, on_event=on_event
            ),
            on_event,
        )
