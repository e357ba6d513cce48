"""Items of the Hub's list, made once and kept until a statement about them is proven.

Most items are made from the proven statements alone, a hundred at a time (`proven_items`). The others are judged: all
statements about the artifact, signatures and proofs, tens of milliseconds each. All are made ahead by a background
task, and kept in a file (`list_file`) with the position in the proven statements up to which they hold.

`StatementFollower` knows which statements were followed; `ListItems` makes and keeps the items.

(1) before items are used, new statements are followed: those about a name, an artifact or an author, and those by which
    an author changes its keys, remove its items; while many are new, items are made as if nothing was kept. Members
    and the records of their nodes are no subjects: all items are made again when those change that this node follows
(2) claims and tests of copies change no item, unless the owner of this node has a policy
(3) an item is not kept if a statement about one of its subjects was followed since it was begun; and since `SETTLED`
    before, if it was judged: an answer that the catalogue kept may be a second older than a statement
(4) what may change without a statement is kept for `KEPT`: every item under a policy of the owner, which may depend on
    time and on cosigners, and one whose README.md is not here yet; a repository that is not served, for `REFUSED_KEPT`
(5) the background task makes what was never made, and takes at most `SHARE` of one core

Not thread-safe: call from the event loop.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import comity
from comity.content.gateway_tokens import ALL_REPOSITORIES
from comity.gateway.hub.card import Cards
from comity.gateway.hub.catalogue import Catalogue, RepositoryList
from comity.gateway.hub.judge import READ, PolicyJudge, changed_name
from comity.gateway.hub.list_file import FILE_NAME, KEPT, KeptItem, ListFile
from comity.gateway.hub.proven_items import ProvenItems
from comity.gateway.hub.views import Document, Snapshot, model_view, with_siblings
from comity.ledger.intake import fold_name
from comity.ledger.proven import ProvenLine
from comity.node.home import ServedHome
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.projection import Follower, Position
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import ComityError
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES, HOLD_WITHDRAWN, KEY_PREDICATES

CHECK_INTERVAL: Final = 1.0
STEP: Final = 500
"""Statements followed at a time."""
SETTLED: Final = 5.0
REFUSED_KEPT: Final = 30
SHARE: Final = 0.5
NAMES: Final = 100
"""Names that the background task looks up at a time."""
PASSES: Final = LoopTiming(interval=60.0, deadline=86_400.0)
"""Of passes over all names."""
OF_KEYS: Final = frozenset(KEY_PREDICATES)
"""Predicates of an author's statements that concern everything that the author signed."""
ALL: Final = "*"
COPIES: Final = frozenset({*HOLD_PREDICATES, HOLD_WITHDRAWN})


class StatementFollower:
    """Follows the proven statements, and removes from the file the items that they are about.

    Args:
        predicates: of the statements that change items.
        basis: on what items depend besides the ledger, now.
    """

    def __init__(
        self, file: ListFile, ledger: AsyncLedger, pools: Pools, predicates: Sequence[str], basis: Callable[[], str]
    ) -> None:
        self._file = file
        self._pools = pools
        # Without items there is nothing to remove: it goes on from the newest statement.
        self._follower = Follower(ledger, file, predicates, basis=basis, from_newest=True)
        self._lock = asyncio.Lock()
        self._due = float("-inf")
        """When new statements are looked for again, by the event loop's clock."""
        self._current = False
        self._touched: dict[str, float] = {}
        """Subjects of the newest statements, and when they were followed; `ALL` for every subject."""
        self._begun: list[float] = []
        """When the items were begun that are being made."""

    @property
    def current(self) -> bool:
        """Whether all statements were followed: else the file may have items that a statement changed."""
        return self._current

    @contextmanager
    def making(self) -> Iterator[float]:
        """Yields the time. While items are made, no subject of a statement is forgotten that was followed since."""
        begun = asyncio.get_running_loop().time()
        self._begun.append(begun)
        try:
            yield begun
        finally:
            self._begun.remove(begun)

    async def unchanged(self, items: Sequence[KeptItem], since: float) -> list[KeptItem]:
        """The items about whose subjects no statement was followed since this time; none while many are new."""
        await self.follow()
        changed = {subject for subject, at in self._touched.items() if at >= since}
        return [item for item in items if self._current and changed.isdisjoint(_subjects_of(item))]

    async def follow(self) -> None:
        """Follow what is new, at most `STEP` statements, and if there were fewer, at most once a second."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now < self._due:
                return
            self._due = now + CHECK_INTERVAL
            self._forget_settled(now)
            begun = self._follower.begun
            lines = await self._follower.next(STEP)
            if self._follower.begun != begun:
                self._touched[ALL] = now
            self._current = len(lines) < STEP
            if lines:
                await self._remove_items_of(lines, now)
            if not self._current:
                self._due = now

    def _forget_settled(self, now: float) -> None:
        settled = min([now, *self._begun]) - SETTLED
        self._touched = {subject: at for subject, at in self._touched.items() if at >= settled}

    async def _remove_items_of(self, lines: Sequence[ProvenLine], now: float) -> None:
        statements = [parse_entry(line.line).statement for line in lines]
        subjects = dict.fromkeys(_subjects(statements))
        self._touched.update(dict.fromkeys(subjects, now))
        await self._pools.files(self._file.follow, list(subjects), Position.at(lines[-1]))


class ListItems:
    """`close` it after its loop has ended. `cards` are those that it reads."""

    def __init__(self, home: ServedHome, catalogue: Catalogue, cards: Cards, proven: ProvenItems) -> None:
        """Opens the file. Blocking. Raises Unavailable, OutOfSpace."""
        self._pools = home.pools
        self._catalogue = catalogue
        self._names = RepositoryList(home.ledger)
        self.cards = cards
        self._proven = proven
        self._clock = home.clock
        ledger, membership, judge = home.ledger, home.membership, catalogue.judge
        file = home.config.storage.ledger.parent / FILE_NAME
        self._file = ListFile(file, _basis(membership, judge))
        read = READ if judge.by_own_policy else tuple(kind for kind in READ if kind not in COPIES)
        self._follower = StatementFollower(self._file, ledger, home.pools, read, lambda: _basis(membership, judge))

    async def items(self, names: Sequence[str], *, siblings: bool) -> list[Document]:
        """The items of the repositories with these names that are served, in their order."""
        kept = await self._kept(names)
        kept |= await self._make_proven([name for name in names if fold_name(name) not in kept])
        found = [await self._item(name, kept.get(fold_name(name)), siblings=siblings) for name in names]
        return [item for item in found if item is not None]

    async def proven(self, names: Sequence[str]) -> dict[str, Snapshot]:
        """What is served of those of the repositories that need no judge, by folded name: some tens are made in the
        time of one judgement. Without the folders."""
        return {fold_name(found.repository): found for found in await self._proven.snapshots(names)}

    def begin(self, supervisor: Supervisor) -> None:
        """Make what was never made, in the background."""
        supervisor.loop("list of the gateway", self._pass, PASSES)

    def close(self) -> None:
        """Blocking."""
        self._file.close()

    async def _pass(self) -> None:
        cursor = ""
        while True:
            names, cursor = await self._names.names("", "", cursor, NAMES, (ALL_REPOSITORIES,))
            await self._follower.follow()
            kept = (
                await self._pools.files(self._file.get, [fold_name(name) for name in names])
                if self._follower.current
                else {}
            )
            if self._follower.current:
                await self._make_ahead([name for name in names if fold_name(name) not in kept])
            if not cursor or not names:
                return

    async def _make_ahead(self, names: Sequence[str]) -> None:
        """As items are made for a reader, but with pauses."""
        before = time.process_time()
        made = await self._make_proven(names)
        await _pause_since(before)
        for name in names:
            if fold_name(name) not in made:
                before = time.process_time()
                await self._make(name)
                await _pause_since(before)

    async def _kept(self, names: Sequence[str]) -> dict[str, KeptItem]:
        await self._follower.follow()
        if not self._follower.current or not names:
            return {}
        now = self._clock()
        found = await self._pools.files(self._file.get, [fold_name(name) for name in names])
        return {name: item for name, item in found.items() if not item.until or item.until > now}

    async def _item(self, name: str, kept: KeptItem | None, *, siblings: bool) -> Document | None:
        if kept is None:
            snapshot = await self._make(name)
            return await self._view(snapshot, siblings=siblings) if snapshot is not None else None
        if not kept.document:
            return None
        item: Document = json.loads(kept.document)
        if not siblings:
            return item
        manifest = SideObject(Digest(kept.artifact), kept.manifest_size)
        with suppress(ComityError):
            return with_siblings(item, await self._pools.files(self._catalogue.local_artifacts.manifest, manifest))
        return None

    async def _make_proven(self, names: Sequence[str]) -> dict[str, KeptItem]:
        """Make the items that need no judge, and keep them. Returns them by folded name."""
        if not names:
            return {}
        with self._follower.making() as begun:
            made = await self._proven.make(names)
            await self._keep(made, begun)
        return {item.name: item for item in made}

    async def _make(self, name: str) -> Snapshot | None:
        """Have an item judged, and keep it. Returns None if the repository is not served."""
        with self._follower.making() as begun:
            try:
                snapshot = await self._catalogue.snapshot(name, "main")
            except ComityError:
                until = int(self._clock()) + REFUSED_KEPT
                await self._keep([KeptItem(fold_name(name), "", "", 0, until, "")], begun - SETTLED)
                return None
            await self._keep([await self._judged(name, snapshot)], begun - SETTLED)
            return snapshot

    async def _judged(self, name: str, snapshot: Snapshot) -> KeptItem:
        document = json.dumps(await self._view(snapshot, siblings=False), separators=(",", ":"))
        by = getattr(snapshot.claim, "by", None)
        author = by if isinstance(by, str) else ""
        lasting = not self._catalogue.judge.by_own_policy and await self.cards.complete(snapshot.manifest)
        until = 0 if lasting else int(self._clock()) + KEPT
        size = len(snapshot.manifest.encode())
        return KeptItem(fold_name(name), snapshot.artifact, author, size, until, document)

    async def _view(self, snapshot: Snapshot, *, siblings: bool) -> Document:
        card = await self.cards.card(snapshot.artifact, snapshot.manifest)
        return model_view(snapshot, card, siblings=siblings)

    async def _keep(self, items: Sequence[KeptItem], since: float) -> None:
        """Keep the items about whose subjects no statement was followed since this time."""
        unchanged = await self._follower.unchanged(items, since)
        if unchanged:
            with suppress(ComityError):
                await self._pools.files(self._file.put, unchanged)


def _basis(membership: Membership, judge: PolicyJudge) -> str:
    """On what items depend besides the ledger."""
    body, nodes = membership.body, list[Json](sorted(str(node) for node in membership.node_ids))
    records = membership.records_digest
    return sha256(canonical([comity.__version__, body.digest if body else "", nodes, records, judge.basis]))


def _subjects_of(item: KeptItem) -> Iterable[str]:
    return ALL, changed_name(item.name), item.artifact, item.author


def _subjects(statements: Iterable[Any]) -> Iterable[str]:
    for statement in statements:
        if statement.by is not None and statement.predicate in OF_KEYS:
            yield statement.by.id
        for subject in statement.subjects:
            yield subject.digest
            if subject.name:
                yield changed_name(subject.name.rpartition("@")[0])


async def _pause_since(before: float) -> None:
    """Let others work, after work that began at this process time."""
    await asyncio.sleep((time.process_time() - before) * (1 / SHARE - 1))


@asynccontextmanager
async def kept_list(items: ListItems, metrics: Metrics) -> AsyncIterator[ListItems]:
    """Makes items ahead while the block lasts."""
    supervisor = Supervisor(metrics)
    items.begin(supervisor)
    try:
        yield items
    finally:
        await supervisor.stop()
        await asyncio.to_thread(items.close)
