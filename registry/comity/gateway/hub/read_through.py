"""Catalogue with read-through: mirror unknown repositories from their Hub on demand, and serve them meanwhile.

(1) a name that is published or mirrored, here or at a peer, resolves as in the catalogue
(2) else the Hub is asked for the current commit of the revision, if `[upstream]` allows the repository
(3) that commit is imported; its manifest is known in seconds and served before the import is complete
(4) with a policy of the owner, it is served only when complete, because a policy needs logged statements
(5) what is in none of these places may be continued by an artifact that members name (`continuations`)

A request is answered before a stock client times out, if only with an error that asks to retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from comity.gateway.access_tokens import Permit
from comity.gateway.hub.catalogue import Catalogue, branch_or_tag
from comity.gateway.hub.continuations import CONTINUABLE, Continuations
from comity.gateway.hub.views import MAIN, Refs, ServedRevision, Snapshot
from comity.node.importing.read_through import ReadThroughImport, ReadThroughImports
from comity.node.threads import Pools
from comity.rules.git_ids import tree_ids
from comity.trust.artifact import Manifest
from comity.trust.errors import ComityError, Malformed, NotFound, PolicyNotMet, Unavailable, Untrusted
from comity.upstream.listed_files import RevisionInfo

ANSWER_TIMEOUT: Final = 8.0
"""Seconds to a first response; stock clients wait for ten."""

SnapshotDetails: TypeAlias = tuple[Mapping[str, str], tuple[tuple[str, str], ...]]
"""Tree ids and notices of a snapshot, computed once per import. They must not reference the import, which is the weak
key.
"""


class ReadThroughRoutes:
    """The catalogue with read-through, or the catalogue alone without `imports`. Not thread-safe: call from the event
    loop."""

    def __init__(
        self, pools: Pools, imports: ReadThroughImports | None, catalogue: Catalogue, continuations: Continuations
    ) -> None:
        self.catalogue = catalogue
        self._continuations = continuations
        self._pools = pools
        self._imports = imports
        self._details: WeakKeyDictionary[ReadThroughImport, SnapshotDetails] = WeakKeyDictionary()

    async def snapshot(self, name: str, revision: str, permit: Permit) -> Snapshot:
        """As `Catalogue.snapshot`. Also raises NotFound (UPSTREAM-NOT-ALLOWED), Refused (UPSTREAM-GATED and others) for
        what is not mirrored for readers, OutOfSpace, and Unavailable for what is not here yet.

        Args:
            permit: called with the artifact's own name where it is served under another one.
        """
        found = await self._found(name, revision)
        if found.continues:
            await permit(found.continues.repository)
        return found

    async def _found(self, name: str, revision: str) -> Snapshot:
        try:
            return await self._original(name, revision)
        except (NotFound, PolicyNotMet) as refused:
            missing = await self._missing(name, refused)
            try:
                return await self._continuations.snapshot(name, branch_or_tag(revision), missing)
            except NotFound as error:
                raise refused if error is missing else error from error

    async def _missing(self, name: str, refused: NotFound | PolicyNotMet) -> NotFound:
        """What to tell of a name that may be continued: also of one that nodes mirrored, and that is not served. Raises
        `refused` for a name of a publisher."""
        if isinstance(refused, NotFound) and refused.code in CONTINUABLE:
            return refused
        if await self._is_published(name):
            raise refused
        return NotFound(f"{name} is not served here", why=str(refused), code="NO-SUCH-REPOSITORY")

    async def _is_published(self, name: str) -> bool:
        """Whether a publisher has the name: what nodes only claim to have mirrored does not stand in the way."""
        try:
            return not (await self.catalogue.repository(name)).mirrored
        except NotFound:
            return False

    async def _original(self, name: str, revision: str) -> Snapshot:
        """As `snapshot`, without continuations."""
        try:
            return await self.catalogue.snapshot(name, revision)
        except NotFound as missing:
            imports = await self._permitted_imports(name, missing)
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    return await self._mirrored_snapshot(imports, name, branch_or_tag(revision), missing)
            except TimeoutError as error:
                raise _import_pending(
                    name, f"its list and small files did not arrive within {ANSWER_TIMEOUT:g} s"
                ) from error

    async def canonical_name(self, name: str, revision: str, permit: Permit) -> str:
        """Return the name of a repository as its publisher or upstream writes it. Raises as `snapshot`."""
        try:
            return await self.catalogue.canonical_name(name)
        except NotFound:
            return (await self.snapshot(name, revision, permit)).repository

    async def refs(self, name: str, permit: Permit) -> Refs:
        """As `Catalogue.refs`; during an import, and of a continuation, the main branch. Raises as `snapshot`."""
        try:
            return await self.catalogue.refs(name)
        except NotFound:
            found = await self.snapshot(name, MAIN, permit)
            return Refs({}, found.commit, kind=found.kind)

    async def revisions(self, name: str) -> list[ServedRevision]:
        """As `Catalogue.revisions`; during an import, and of a continuation, the main branch."""
        try:
            return await self.catalogue.revisions(name)
        except NotFound:
            return [ServedRevision(MAIN)]

    async def _permitted_imports(self, name: str, missing: NotFound) -> ReadThroughImports:
        """Return the imports if the upstream may be asked for this name; otherwise raise `missing`, or its reason."""
        imports = self._imports
        if imports is None or not imports.enabled or missing.code not in ("NO-SUCH-REPOSITORY", "NO-SUCH-REVISION"):
            raise missing
        if imports.allows(name):
            if not await self._is_published(name):
                return imports
            raise missing  # the name belongs to a publisher, so only its versions count
        if missing.code == "NO-SUCH-REVISION":
            raise missing
        why = "no node here has it, and [upstream] does not allow it"
        hint = "ask the operator to add it to allow in [upstream] of node.toml"
        raise NotFound(missing.what, why=why, hint=hint, code="UPSTREAM-NOT-ALLOWED") from missing

    async def _mirrored_snapshot(
        self, imports: ReadThroughImports, name: str, revision: str, missing: NotFound
    ) -> Snapshot:
        """Steps (2) to (4)."""
        pinned = await self._pin_revision(imports, name, revision, missing)
        upstream = pinned.upstream
        try:
            return await self.catalogue.snapshot(upstream.repository, upstream.commit)
        except NotFound:
            return await self._importing_snapshot(imports.import_of(pinned))

    async def _pin_revision(
        self, imports: ReadThroughImports, name: str, revision: str, missing: NotFound
    ) -> RevisionInfo:
        try:
            return await imports.pin(name, revision)
        except (Malformed, Untrusted) as error:
            if error.code == "BAD-NAME":
                raise NotFound(missing.what, why=error.why, code=missing.code) from error
            raise _upstream_failed(name, error) from error
        except NotFound as error:
            if error.code != "UPSTREAM-NOT-FOUND" or revision == MAIN:
                raise NotFound(missing.what, why=error.why, code=missing.code) from error
            await self._pin_revision(imports, name, MAIN, missing)
            raise NotFound(f"{name} has no {revision[:80]!r}", why=error.why, code="NO-SUCH-REVISION") from error

    async def _importing_snapshot(self, pending_import: ReadThroughImport) -> Snapshot:
        """Steps (3) and (4)."""
        upstream = pending_import.revision.upstream
        try:
            manifest = await pending_import.described()
        except (Malformed, Untrusted) as error:
            raise _upstream_failed(upstream.repository, error) from error
        if manifest is None:
            try:
                return await self.catalogue.snapshot(upstream.repository, upstream.commit)
            except NotFound as error:  # its log entry was not read yet
                raise _import_pending(upstream.repository, "it was imported just now") from error
        if self.catalogue.judge.by_own_policy:
            raise _import_pending(upstream.repository, "the policy of this node needs a complete and logged artifact")
        if pending_import not in self._details:
            self._details[pending_import] = await self._make_details(pending_import, manifest)
        trees, notices = self._details[pending_import]
        return Snapshot(
            repository=upstream.repository,
            artifact=manifest.digest,
            claim=pending_import,
            label=upstream.requested,
            licence=pending_import.revision.licence,
            author=upstream.repository.partition("/")[0],
            manifest=manifest,
            commit=upstream.commit,
            trees=trees,
            notices=notices,
        )

    async def _make_details(self, pending_import: ReadThroughImport, manifest: Manifest) -> SnapshotDetails:
        source = pending_import.revision.upstream.endpoint.partition("://")[2]
        notice = f"being mirrored from {source}; no publisher signed it, and no node has all of it yet"
        trees = await self._pools.hashing(tree_ids, manifest)
        return trees, (("mirrored", notice), *await self._advisories(manifest))

    async def _advisories(self, manifest: Manifest) -> tuple[tuple[str, str], ...]:
        """Return the advisories of others about the same bytes."""
        try:
            found = await self.catalogue.local_artifacts.evidence(manifest)
        except NotFound:  # no statements
            return ()
        return await self._pools.hashing(self.catalogue.judge.advisories, found.evidence)


def _import_pending(name: str, why: str) -> Unavailable:
    return Unavailable(f"{name} is being imported", why=why, hint="try again in a few seconds", code="ON-ITS-WAY")


def _upstream_failed(name: str, error: ComityError) -> Unavailable:
    """Return a transient error: the upstream failed, not the client."""
    return Unavailable(f"{name} is not available now", why=str(error), hint=error.hint, code="NOT-HERE")
