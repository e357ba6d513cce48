"""Items of lists from the proven statements alone, many at a time.

Without a policy of the owner of this node, an artifact is served if its publisher signed it. The intake has verified
that signature when it read the line, so it is not verified again for a list. These are left to the judge, one by one:

    every repository, if the owner of this node has a policy
    one that nodes mirrored from an upstream; a version with several artifacts, or with statements that nothing orders
    one with several claimants to its name, of which the charter names none: who was first is to be proven
    one with an advisory about any of its artifacts, which may withdraw it
    one whose publisher has several home logs, or logs of which only their writer knows the order
    one whose publisher has rotated its keys, has an advisory about itself, or has no proven inception

For the others, the item is the same as that of the judge.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from comity.content.blobs import BlobStore
from comity.gateway.hub.card import is_complete, read_card
from comity.gateway.hub.judge import PolicyJudge
from comity.gateway.hub.list_file import KEPT, KeptItem
from comity.gateway.hub.mirrored import LocalArtifacts
from comity.gateway.hub.views import Snapshot, model_view
from comity.ledger.intake import fold_name
from comity.ledger.listed_names import MAX_NAMES, NamedOwner, OwnedNames, OwnPublication
from comity.node.intake import already_verified
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.rules.artifact_kind import kind_of
from comity.rules.git_ids import commit_id
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.home_logs import HomeLogs, NamedLog
from comity.trust.identity import Inception, check_inception
from comity.trust.resolution import bound_claimant, version_order
from comity.trust.rotation import KeyState, RotationChain
from comity.trust.statement import parse_entry
from comity.trust.statements import Published

Made = TypeVar("Made")

MAX_PUBLICATIONS: Final = 4_000
"""Statements about the names of one step. With more, its names are left to the judge."""
STEP_SECONDS: Final = 0.05
"""After this time in a thread, other work of the pool has its turn."""


@frozen
class _ItemSource:
    """What makes the item of one repository; `known_since` and `kind` as in `Snapshot`."""

    publication: OwnPublication
    owner: NamedOwner
    line: bytes
    known_since: int
    kind: str


class ProvenItems:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        judge: PolicyJudge,
        local: LocalArtifacts,
        store: BlobStore,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._judge = judge
        self._local = local
        self._store = store
        self._clock = clock

    async def make(self, names: Sequence[str]) -> list[KeptItem]:
        """Returns the items of those repositories that need no judge."""
        return await self._made(names, self._item)

    async def snapshots(self, names: Sequence[str]) -> list[Snapshot]:
        """Returns what is served of those repositories that need no judge, without the folders."""
        return await self._made(names, self._served)

    async def _made(self, names: Sequence[str], make: Callable[[_ItemSource], Made | None]) -> list[Made]:
        if self._judge.by_own_policy:
            return []
        found: list[Made] = []
        for start in range(0, len(names), MAX_NAMES):
            work = iter(await self._read(names[start : start + MAX_NAMES]))
            some: Callable[[], list[Made]] = functools.partial(_some, work, make)
            while made := await self._pools.files(some):
                found += made
        return found

    async def _read(self, names: Sequence[str]) -> list[_ItemSource]:
        policy, listed = self._judge.policy, self._ledger.tables.listed
        decisions = ((fold_name(name), bound_claimant(policy, name)) for name in names)
        bound = {name: found.claimant.publisher for name, found in decisions if found and found.claimant.publisher}
        owned = await self._ledger.run(listed.owned, names, bound, MAX_PUBLICATIONS)
        newest = list(self._newest_of_all(owned)) if owned is not None else []
        lines = await self._ledger.run(listed.lines, [publication.position for publication, _ in newest])
        times = self._ledger.tables.proven_times
        known = await self._ledger.run(times.known_since, [publication.artifact for publication, _ in newest])
        pairs = {each: (each.artifact, each.publisher) for each, _ in newest}
        stated = await self._ledger.run(listed.stated_kinds, list(pairs.values()))
        kinds = {each: kind_of(stated.get(pair, ())) for each, pair in pairs.items()}
        return [
            _ItemSource(each, owner, lines[each.position], known.get(each.artifact, 0), kinds[each])
            for each, owner in newest
            if each.position in lines
        ]

    def _newest_of_all(self, owned: OwnedNames) -> Iterator[tuple[OwnPublication, NamedOwner]]:
        """The newest publication of each repository that needs no judge, and its publisher."""
        for name, publications in owned.publications.items():
            owner = owned.owners.get(publications[0].publisher)
            if (
                name in owned.mirrored
                or owner is None
                or owner.rotated
                or owner.advised
                or any(each.advised for each in publications)
            ):
                continue
            named = NamedLog.parse(owner.home)
            newest = _newest(publications, self._judge.home_logs([named] if named else []))
            if newest is not None:
                yield newest, owner

    def _item(self, source: _ItemSource) -> KeptItem | None:
        snapshot = self._served(source)
        if snapshot is None:
            return None
        assert isinstance(snapshot.claim, Published)  # nothing else is in a source
        manifest, size = snapshot.manifest, snapshot.claim.manifest.size
        document = model_view(snapshot, read_card(manifest, self._store), siblings=False)
        until = 0 if is_complete(manifest, self._store) else int(self._clock()) + KEPT
        text = json.dumps(document, separators=(",", ":"))
        publication = source.publication
        return KeptItem(publication.name, snapshot.artifact, publication.publisher, size, until, text)

    def _served(self, source: _ItemSource) -> Snapshot | None:
        """What is served of a repository; None if only the judge can say it."""
        publication, entry = source.publication, parse_entry(source.line)
        published, inception = Published.parse(entry.statement), _inception(source.owner)
        if published.by != inception.id or not _first_keys(inception).matching(entry.envelope):
            return None  # signed by keys that only a charter lists
        manifest = self._local.manifest(published.manifest)
        return Snapshot(
            repository=publication.repository,
            artifact=published.artifact,
            claim=published,
            label=published.name.version,
            licence=published.licence.spdx,
            author=inception.display,
            manifest=manifest,
            commit=commit_id(manifest),
            trees={},  # a list shows no folders
            notices=(),
            known_since=source.known_since,
            kind=source.kind,
        )


def _some(work: Iterator[_ItemSource], make: Callable[[_ItemSource], Made | None]) -> list[Made]:
    """Make items for a while. Blocking."""
    until, found = time.monotonic() + STEP_SECONDS, list[Made]()
    for source in work:
        try:
            made = make(source)
        except ComityError:  # such as a manifest that is not here: the judge knows why
            continue
        if made is not None:
            found.append(made)
        if found and time.monotonic() > until:
            break
    return found


def _newest(publications: Sequence[OwnPublication], home: HomeLogs) -> OwnPublication | None:
    """The statement that `select_candidate` chooses; None if only the judge can say which one that is."""
    if len({each.repository for each in publications}) > 1 or len(home.logs) > 1:
        return None  # written in several ways, or in logs whose order depends on the statement
    at_home = [each for each in publications if each.log in home.logs]
    last = max(at_home, key=lambda each: each.position.index, default=None)
    version = last.version if last else max((each.version for each in publications), key=version_order)
    versioned = [each for each in publications if each.version == version]
    if len({each.artifact for each in versioned}) > 1:
        return None
    return last or (versioned[0] if len(versioned) == 1 else None)


def _inception(owner: NamedOwner) -> Inception:
    return check_inception(parse_entry(owner.inception), signed=already_verified)


def _first_keys(inception: Inception) -> RotationChain:
    return RotationChain(KeyState.of_inception(inception), ())
