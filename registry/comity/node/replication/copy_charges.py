"""What copies are charged to: the member that publishes the artifact, and the quotas of mirror rules.

`CopyAdmission` decides about the space of the disk, `MirrorQuotas` about quotas; this module keeps in the ledger what
they have charged, and looks at the disk.

(1) an artifact that does not fit leaves the queue of copies and waits in the ledger
(2) a copy that failed is charged only what of it is on the disk: who publishes what nobody serves uses nothing
(3) when there is room again, artifacts that wait are queued, the smallest first
(4) after a change of the rules no copy by quotas begins before all publications are read: what is held counts first
(5) a copy that loses its promise ends; its verified pieces stay

What this node publishes itself is charged to nobody, nor is what it fetched because a reader asked for it. What its
operator pinned is charged to a quota only, and what it repairs is charged already.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, ParamSpec, TypeAlias, TypeVar

import structlog

from comity.ledger.copy_tables import MirrorCharge
from comity.node.context import NodeContext
from comity.node.replication.copy_admission import OPERATOR, OUTSIDE, AdmittedCopy, CopyAdmission, Refusal
from comity.node.threads import Clock
from comity.node.uploads import Want, missing_files, read_manifest
from comity.rules.mirror_rules import MirrorQuotas
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, OutOfSpace
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject
from comity.wire.node_status import LackingArtifact, MemberCopies, Quota

QUOTA: Final = "MIRROR-QUOTA"
SHARE: Final = "COPY-SHARE"
WAITS: Final = frozenset({QUOTA, SHARE})
"""Codes of errors for copies that wait in the ledger until there is room."""
PATIENCE: Final = 60.0
"""Seconds without a verified byte after which a copy loses its promise."""
PAGE: Final = 64
BLOCK: Final = 512
"""Bytes of a unit of `st_blocks`."""
COUNTED_ONCE: Final = 16 << 20
"""Files of at least this size are charged once, where what is held is counted again."""
MAX_COUNTED_ONCE: Final = 200_000
NO_MEMBER: Final = "logs that no member writes"
MAKE_ROOM: Final = (
    "free some space on the node's disk, or lower replication.stop_free_bytes; the node goes on by itself"
)

P = ParamSpec("P")
T = TypeVar("T")
Received: TypeAlias = Callable[[int], None]
"""Called with the number of bytes that were verified and stored."""

_log: Final = structlog.get_logger("comity.node.artifacts")


@frozen
class ChargedTo:
    """To what a copy is charged: a mirror rule, empty for the default, and one of the members that publish it; to no
    member for what the operator pinned."""

    rule: str
    members: Collection[str]


class CopyCharges:
    """Not thread-safe: call from the event loop.

    Args:
        now: monotonic seconds.

    Attributes:
        counting: publications are read again, and what is held is charged.
    """

    def __init__(
        self,
        quotas: MirrorQuotas,
        admission: CopyAdmission,
        context: NodeContext,
        now: Clock,
    ) -> None:
        self._quotas = quotas
        self._admission = admission
        self._ledger = context.ledger
        self._store = context.store
        self._pools = context.pools
        self._membership = context.membership
        self._now = now
        self._lock = asyncio.Lock()
        self._turns: dict[AdmittedCopy, asyncio.Timeout] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._room = False
        self._freed = False
        """Space was given back since the last look."""
        self._counted_once: set[int] = set()
        self.counting = True

    @property
    def ready(self) -> bool:
        """Whether copies may begin. (4)"""
        return not (self.counting and self._quotas)

    async def load(self, basis: Digest) -> None:
        """Load what is charged. Charges of withdrawn holds end: the process may have ended between the two. `basis`
        stands for the settings by which it was charged."""
        table = self._ledger.tables.mirror_charges
        await self._ledger.run(table.release_withdrawn)
        self.counting = not await self._ledger.run(table.counted, basis)
        await self._load()
        await self.look()
        self._room = True

    async def _load(self) -> None:
        table = self._ledger.tables.mirror_charges
        self._quotas.load(await self._ledger.run(table.used))
        self._waiting = Counter(await self._ledger.run(table.waiting_counts))
        self._admission.load(await self._ledger.run(table.spaces))

    async def look(self) -> bool:
        """Look at the disk, and end the copies that lost their promise. Returns whether space was given back."""
        free = await self._pools.files(self._store.free_bytes)
        self._admission.set_members(self._membership.names)
        self._admission.look(self._now(), free)
        self._after_change()
        freed, self._freed = self._freed, False
        return freed

    def recount(self) -> None:
        """All publications are read again: what waits is decided again."""
        self.counting, self._waiting, self._counted_once = True, Counter(), set()

    async def count_done(self, basis: Digest) -> None:
        """All publications are read. Charges of what is neither held nor wanted end."""
        if not self.counting:
            return
        table = self._ledger.tables.mirror_charges
        async with self._lock:
            await self._ledger.run(table.release_unwanted)
            await self._ledger.run(table.set_counted, self._membership.own_node.log, basis)
            await self._load()
            for copy in self._turns:  # what runs is charged by the admission
                if (row := await self._before(copy.artifact)) is not None:
                    self._admission.charge(row.member, -row.space)
        self._counted_once = set()
        self.counting, self._room = False, True

    async def withdrawn(self, artifacts: Sequence[Digest]) -> None:
        """This node withdrew its holds of these artifacts: their charges end."""
        if artifacts:
            await self._alone(self._release, artifacts)
            self._room = True

    async def charge_held(self, artifact: Digest, charge: ChargedTo, name: str, manifest: SideObject) -> None:
        """Charge a copy that is held, whatever the quota. One whose manifest cannot be read is not charged."""
        before = await self._before(artifact)
        if before is not None and before.rule == charge.rule and before.charged == before.size and before.member:
            return
        if any(copy.artifact == artifact for copy in self._turns):
            return
        try:
            found = await self._pools.files(read_manifest, self._store, manifest)
        except ComityError as error:
            _log.warning("a held artifact is not charged", name=name, why=str(error))
            return
        size, member = size_of(found), self._payer(charge)
        new = self._counted(found)
        await self._alone(self._put, MirrorCharge(artifact, charge.rule, name, size, size, False, member, new))

    @asynccontextmanager
    async def admitted(
        self,
        artifact: Digest,
        charge: ChargedTo | None,
        name: str,
        manifest: Manifest,
        missing: Sequence[Want],
        patience: float = PATIENCE,
    ) -> AsyncIterator[Received]:
        """Inside the block an artifact has space for its missing files, and is charged; after it if the block succeeds.
        None: to nobody. Call what it returns with the bytes that arrive.

        Raises OutOfSpace: MIRROR-QUOTA or COPY-SHARE if it waits for room, COPY-SPACE if it lost its promise.
        """
        admission = asyncio.create_task(self._alone(self._admit, artifact, charge, name, manifest, missing, patience))
        try:
            copy = await asyncio.shield(admission)
        except asyncio.CancelledError:
            with suppress(ComityError):
                await self._alone(self._end, await admission, charge, name, manifest, complete=False)
            raise

        def received(count: int) -> None:
            self._admission.received(copy, count, self._now())
            if copy.withdrawn:
                self._after_change()

        try:
            async with asyncio.timeout(None) as turn:
                self._turns[copy] = turn
                self._after_change()
                yield received
        except BaseException as error:
            await self._alone(self._end, copy, charge, name, manifest, complete=False)
            if isinstance(error, TimeoutError) and turn.expired():
                hint = "none is needed: it is tried again, later each time"
                raise OutOfSpace(f"{name} lost its space", why=copy.withdrawn, hint=hint, code="COPY-SPACE") from error
            raise
        await self._alone(self._end, copy, charge, name, manifest, complete=True)

    async def take_fitting(self) -> list[Digest]:
        """Artifacts that waited for room and fit now, at most `PAGE` a rule and member: they wait no longer."""
        if not (self._room and self.ready and self.waiting):
            return []
        self._room = False
        table, taken = self._ledger.tables.mirror_charges, list[Digest]()
        async with self._lock:
            for rule, member in list(self._waiting):
                room, space = self._quotas.room(rule), self._admission.room(member)
                most, disk = (2**62 if each is None else each for each in (room, space))
                for charge in await self._ledger.run(table.fitting, rule, member, most, disk, PAGE):
                    if charge.size > most or charge.new > disk:
                        break
                    most, disk = most - charge.size, disk - charge.new
                    taken.append(charge.artifact)
            if taken:
                await self._ledger.run(table.end_waiting, taken)
                self._waiting = Counter(await self._ledger.run(table.waiting_counts))
        return taken

    @property
    def waiting(self) -> int:
        """Artifacts that wait for room."""
        return self._waiting.total()

    async def examples(self, most: int) -> list[LackingArtifact]:
        """Artifacts that wait for room, with the reason."""
        if not self.waiting or most <= 0:
            return []
        found = await self._ledger.run(self._ledger.tables.mirror_charges.waiting, most)
        return [self._example(item) for item in found]

    def spaces(self) -> list[MemberCopies]:
        """How the copies of each member use the disk, the largest user first."""
        names, waiting = self._membership.names, Counter[str]()
        for (_, member), count in self._waiting.items():
            waiting[member] += count
        return [
            MemberCopies(
                "" if space.member == OUTSIDE else space.member,
                NO_MEMBER if space.member == OUTSIDE else names.get(space.member) or space.member[:16],
                space.stored,
                space.promised,
                space.most,
                waiting[space.member],
            )
            for space in self._admission.spaces()
        ]

    async def member_copies(self) -> list[MemberCopies]:
        """The same, with the largest artifact of each."""
        table, found = self._ledger.tables.mirror_charges, []
        for space in self.spaces():
            largest = await self._ledger.run(table.largest, space.member or OUTSIDE) if space.stored else None
            found.append(replace(space, largest=largest.name if largest is not None else ""))
        return found

    def status(self) -> Iterator[Quota]:
        for use in self._quotas.uses():
            yield Quota(str(use), use.used, use.limit, items=False)

    def warnings(self) -> Iterator[str]:
        for use in self._quotas.uses():
            if use.nearly_full:
                waiting = sum(count for (rule, _), count in self._waiting.items() if not use.rule or rule == use.rule)
                yield f"{use} uses {use.used} of {use.limit} bytes; artifacts that wait for room: {waiting}"
        for space in self.spaces():
            if space.waiting:
                room = "" if space.most is None else f" of at most {space.most}"
                yield (
                    f"{space.waiting} artifacts that {space.name} publishes wait for room; its copies use {space.used}"
                    f"{room} bytes: comity rm frees some, replication.shares in node.toml gives it more"
                )

    def _after_change(self) -> None:
        """End the copies that lost their promise."""
        now = asyncio.get_running_loop().time()
        for copy, turn in self._turns.items():
            if copy.withdrawn and not turn.expired():
                turn.reschedule(now)
        if self._admission.freed:
            self._admission.freed = False
            self._freed = self._room = True

    async def _alone(self, change: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a change under the lock, to its end also if its caller is cancelled: memory must match the ledger."""

        async def locked() -> T:
            async with self._lock:
                return await change(*args, **kwargs)

        return await asyncio.shield(locked())

    async def _admit(
        self,
        artifact: Digest,
        charge: ChargedTo | None,
        name: str,
        manifest: Manifest,
        missing: Sequence[Want],
        patience: float,
    ) -> AdmittedCopy:
        before = await self._before(artifact) if charge is not None else None
        absent, size = sum(want.size for want in missing), size_of(manifest)
        new = max(before.new if before is not None else absent, absent)
        partial = await self._pools.files(self._partial, missing)
        free = await self._pools.files(self._store.free_bytes)
        member = self._payer(charge)
        wanted = MirrorCharge(artifact, charge.rule if charge else "", name, size, size, False, member, new)
        self._charge(before, -1)
        try:
            if charge is not None and (why := self._over_quota(wanted)):
                raise OutOfSpace(f"{name} is not copied yet", why=why, code="MIRROR-QUOTA")
            stored = min(new, new - absent + partial)
            now = self._now()
            self._admission.look(now, free)
            found = self._admission.admit(artifact, member, new, stored, now, partial=partial, patience=patience)
            if isinstance(found, Refusal):
                raise _no_space(name, found)
        except OutOfSpace as error:
            self._charge(before, 1)
            if charge is not None and error.code in WAITS:
                charged = before.charged if before is not None else 0
                await self._put(MirrorCharge(artifact, charge.rule, name, size, charged, True, member, new))
            raise
        if charge is not None:
            self._quotas.charge(wanted.rule, wanted.charged)
            await self._ledger.run(self._ledger.tables.mirror_charges.put, wanted)
        return found

    async def _end(
        self, copy: AdmittedCopy, charge: ChargedTo | None, name: str, manifest: Manifest, *, complete: bool
    ) -> None:
        self._turns.pop(copy, None)
        size, stored = size_of(manifest), copy.size
        if not complete:
            missing = await self._pools.files(missing_files, self._store, manifest)
            partial = await self._pools.files(self._partial, missing)
            stored = max(0, min(copy.size, copy.size - sum(want.size for want in missing) + partial))
        self._admission.end(copy, stored)
        if charge is not None:
            charged = size - copy.size + stored
            self._quotas.charge(charge.rule, charged - size)
            ended = MirrorCharge(copy.artifact, charge.rule, name, size, charged, False, copy.member, copy.size)
            await self._ledger.run(self._ledger.tables.mirror_charges.put, ended)
        self._after_change()

    def _payer(self, charge: ChargedTo | None) -> str:
        if charge is None or not charge.members:
            return OPERATOR
        known = self._membership.names
        return self._admission.payer({member if member in known else OUTSIDE for member in charge.members})

    def _charge(self, row: MirrorCharge | None, sign: int) -> None:
        """Charge in memory what a row says, or take it back. What runs is charged by the admission."""
        if row is not None:
            self._quotas.charge(row.rule, sign * row.charged)
            self._admission.charge(row.member, sign * row.space)
            self._waiting[row.rule, row.member] += sign * row.waits

    def _over_quota(self, wanted: MirrorCharge) -> str:
        if (use := self._quotas.exceeded(wanted.rule, wanted.size)) is None:
            return ""
        return (
            f"{use} has {max(0, use.limit - use.used)} of {use.limit} bytes left, and this artifact has {wanted.size}"
        )

    def _example(self, item: MirrorCharge) -> LackingArtifact:
        why, code = self._over_quota(item), QUOTA
        room = self._admission.room(item.member)
        if not why and room is not None and item.new > room:
            why, code = f"the space of its member has room for {room} bytes, and this artifact needs {item.new}", SHARE
        why = why or "there is room for it, and it waits for its turn"
        return LackingArtifact(item.artifact, item.name, "waits", why, code, 0)

    async def _put(self, row: MirrorCharge) -> None:
        before = await self._before(row.artifact)
        await self._ledger.run(self._ledger.tables.mirror_charges.put, row)
        self._charge(before, -1)
        self._charge(row, 1)

    async def _release(self, artifacts: Sequence[Digest]) -> None:
        running = {copy.artifact for copy in self._turns}
        for charge in await self._ledger.run(self._ledger.tables.mirror_charges.release, artifacts):
            if charge.artifact not in running:
                self._charge(charge, -1)

    async def _before(self, artifact: Digest) -> MirrorCharge | None:
        return (await self._ledger.run(self._ledger.tables.mirror_charges.find, [artifact])).get(artifact)

    def _counted(self, manifest: Manifest) -> int:
        """Bytes of the files of a held artifact; a large file that another one had is not counted again."""
        total = 0
        for digest, size in {entry.sha256: entry.size for entry in manifest.files}.items():
            key = int(digest[:15], 16)
            if key not in self._counted_once:
                total += size
                if size >= COUNTED_ONCE and len(self._counted_once) < MAX_COUNTED_ONCE:
                    self._counted_once.add(key)
        return total

    def _partial(self, missing: Sequence[Want]) -> int:
        """Bytes of missing files that an earlier try left on the disk. Blocking."""
        return sum(min(want.size, _allocated(self._store.partial_path(want.digest))) for want in missing)


def _no_space(name: str, refusal: Refusal) -> OutOfSpace:
    if refusal.waits:
        hint = "see the space of each member: comity status --node HOME"
        return OutOfSpace(f"{name} is not copied yet", why=refusal.why, hint=hint, code="COPY-SHARE")
    return OutOfSpace("no space for a copy", why=refusal.why, hint=MAKE_ROOM)


def size_of(manifest: Manifest) -> int:
    """The sizes of an artifact's files, each file once."""
    return sum({entry.sha256: entry.size for entry in manifest.files}.values())


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * BLOCK
    except OSError:
        return 0
