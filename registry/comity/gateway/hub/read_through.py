"""The catalogue for somebody who waits: what nobody here has may be mirrored from its Hub, and read meanwhile.

(1) what is published or mirrored under a name, here or at a peer, is what the name stands for
(2) else a repository that `[upstream]` allows is asked for at its Hub: which commit the revision stands for now
(3) that commit is imported, and shown as it will be once it is whole: its manifest is known in seconds
(4) with a policy of the owner's own it is shown when it is whole, for no policy can judge what nobody has said yet

Who waits gets an answer before a stock client gives up, if only that it has to come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from comity.gateway.context import GatewayContext
from comity.gateway.hub.catalogue import Catalogue, branch_or_tag
from comity.gateway.hub.views import MAIN, Snapshot
from comity.node.importing.read_through import ReadThroughImport
from comity.trust.artifact import Manifest, tree_ids
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.upstream.hub_api import RevisionInfo

PATIENCE: Final = 8.0
"""Seconds to a first answer: stock clients wait for ten."""

Drawn: TypeAlias = tuple[Mapping[str, str], tuple[tuple[str, str], ...]]
"""The tree ids and the notices of a snapshot, worked out once. They do not hold its passage, which goes with them."""


class ReadThroughRoutes:
    """One event loop uses it."""

    def __init__(self, running: GatewayContext, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._core = running.core
        self._passages = running.passages
        self._drawn: WeakKeyDictionary[ReadThroughImport, Drawn] = WeakKeyDictionary()

    async def snapshot(self, name: str, revision: str) -> Snapshot:
        """As `Catalogue.snapshot`. Raises NotFound (UPSTREAM-NOT-ALLOWED) and Refused (UPSTREAM-GATED and others) too
        for what is not mirrored for readers, OutOfSpace, and Unavailable for what is not here yet."""
        try:
            return await self.catalogue.snapshot(name, revision)
        except NotFound as missing:
            await self._require_open(name, missing)
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._mirrored(name, branch_or_tag(revision), missing)
            except TimeoutError as error:
                raise _on_its_way(name, f"its list and small files were not here within {PATIENCE:g} s") from error

    async def spelling(self, name: str, revision: str) -> str:
        """A repository's name as its publisher or upstream writes it. Raises as `snapshot`."""
        try:
            return await self.catalogue.spelling(name)
        except NotFound:
            return (await self.snapshot(name, revision)).repository

    async def refs(self, name: str) -> tuple[dict[str, str], str | None]:
        """As `Catalogue.refs`; of what is on its way, the main branch. Raises as `snapshot`."""
        try:
            return await self.catalogue.refs(name)
        except NotFound:
            return {}, (await self.snapshot(name, MAIN)).commit

    async def revisions(self, name: str) -> list[str]:
        """As `Catalogue.revisions`; of what is on its way, the main branch."""
        try:
            return await self.catalogue.revisions(name)
        except NotFound:
            return [MAIN]

    async def _require_open(self, name: str, missing: NotFound) -> None:
        """Raises `missing`, or the reason behind it, unless the upstream may be asked."""
        if not self._passages.on or missing.code not in ("NO-SUCH-REPOSITORY", "NO-SUCH-REVISION"):
            raise missing
        if self._passages.allows(name):
            try:
                repository = await self.catalogue.repository(name)
            except NotFound:
                return
            if repository.occupied:
                return
            raise missing  # a publisher's name has the publisher's versions
        if missing.code == "NO-SUCH-REVISION":
            raise missing
        why = "nobody here has it, and readers may not have it mirrored"
        hint = "ask the operator: allow in [upstream] of node.toml"
        raise NotFound(missing.what, why=why, hint=hint, code="UPSTREAM-NOT-ALLOWED") from missing

    async def _mirrored(self, name: str, revision: str, missing: NotFound) -> Snapshot:
        """Steps (2) to (4)."""
        standing = await self._standing(name, revision, missing)
        upstream = standing.upstream
        try:
            return await self.catalogue.snapshot(upstream.repository, upstream.commit)
        except NotFound:
            return await self._coming(self._passages.passage(standing))

    async def _standing(self, name: str, revision: str, missing: NotFound) -> RevisionInfo:
        try:
            return await self._passages.standing(name, revision)
        except (Malformed, Untrusted) as error:
            if error.code == "BAD-NAME":
                raise NotFound(missing.what, why=error.why, code=missing.code) from error
            raise _not_now(name, error) from error
        except NotFound as error:
            if error.code != "UPSTREAM-NOT-FOUND" or revision == MAIN:
                raise NotFound(missing.what, why=error.why, code=missing.code) from error
            await self._standing(name, MAIN, missing)
            raise NotFound(f"{name} has no {revision[:80]!r}", why=error.why, code="NO-SUCH-REVISION") from error

    async def _coming(self, passage: ReadThroughImport) -> Snapshot:
        """Steps (3) and (4)."""
        upstream = passage.standing.upstream
        try:
            manifest = await passage.described()
        except (Malformed, Untrusted) as error:
            raise _not_now(upstream.repository, error) from error
        if manifest is None:
            try:
                return await self.catalogue.snapshot(upstream.repository, upstream.commit)
            except NotFound as error:  # what the log says of it was not read yet
                raise _on_its_way(upstream.repository, "it came in just now") from error
        if self.catalogue.judge.by_own_policy:
            raise _on_its_way(upstream.repository, "this node's own policy is put to what is whole and logged")
        if passage not in self._drawn:
            self._drawn[passage] = await self._draw(passage, manifest)
        trees, notices = self._drawn[passage]
        return Snapshot(
            repository=upstream.repository,
            artifact=manifest.digest,
            claim=passage,
            label=upstream.requested,
            licence=passage.standing.licence,
            author=upstream.repository.partition("/")[0],
            manifest=manifest,
            commit=upstream.commit,
            trees=trees,
            notices=notices,
        )

    async def _draw(self, passage: ReadThroughImport, manifest: Manifest) -> Drawn:
        source = passage.standing.upstream.endpoint.partition("://")[2]
        said = f"being mirrored from {source}; no publisher signed it, and no node has seen all of it yet"
        trees = await self._core.pools.hashing(tree_ids, manifest)
        return trees, (("mirrored", said), *await self._advisories(manifest))

    async def _advisories(self, manifest: Manifest) -> tuple[tuple[str, str], ...]:
        """What others say of the same bytes."""
        try:
            evidence = await self.catalogue.holdings.evidence(manifest, None)
        except NotFound:  # nobody says anything
            return ()
        return await self._core.pools.hashing(self.catalogue.judge.advisories, evidence)


def _on_its_way(name: str, why: str) -> Unavailable:
    return Unavailable(f"{name} is on its way", why=why, hint="ask again in a moment", code="ON-ITS-WAY")


def _not_now(name: str, error: ComityError) -> Unavailable:
    """The upstream's fault, not that of who asks; and it may pass."""
    return Unavailable(f"{name} is not here now", why=str(error), hint=error.hint, code="NOT-HERE")
