"""Copies that begin, fail, complete, wait and restart in any order: what rules have copied never exceeds
their quotas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.copy_tables import MirrorCharge, MirrorCharges
from comity.ledger.ledger import Ledger
from comity.node.replication.copy_charges import QUOTA, ChargedTo, CopyCharges, Received
from comity.node.threads import Pools
from comity.node.uploads import missing_files
from comity.rules.mirror_rules import ALL, MirrorQuotas
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, OutOfSpace, Unavailable
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.copy_charges import made_charges
from support.examples import examples
from support.logs import LogKeys

UNIT = 4_096
"""A block of the disk."""
LIMITS = {ALL: 12 * UNIT, "a": 8 * UNIT}
RULES = ("a", "b", "")
ARTIFACTS = 9

OWN, MEMBER, BASIS = LogKeys.generate("own.example/log"), "a member", sha256(b"basis")

Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("begin", "begin", "begin", "fail", "complete", "withdraw", "refill", "restart")),
        st.integers(0, ARTIFACTS - 1),
        st.integers(0, 4),
    ),
    max_size=40,
)


def manifest(number: int) -> Manifest:
    size = (1 + number % 5) * UNIT
    return Manifest.of(
        [FileEntry("w", size, sha256(b"file %d" % number)), FileEntry("v", size, sha256(b"file %d" % number))]
    )


class Bench:
    """Copies that begin and end, and their bytes on the disk."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger.open(folder, lambda: 0)
        if not self.ledger.logs.all():
            self.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        self.store = FolderStore(folder / "blobs")
        self.pools = Pools()
        self.running: dict[int, AbstractAsyncContextManager[Received]] = {}
        self.complete: set[int] = set()
        self.quotas = self._made()

    def _made(self) -> CopyCharges:
        return made_charges(self.ledger, self.store, self.pools, quotas=MirrorQuotas(LIMITS), own_log=OWN.vkey)

    def admitted(self, number: int, rule: str = "") -> AbstractAsyncContextManager[Received]:
        what = manifest(number)
        charge = ChargedTo(rule or RULES[number % 3], (MEMBER,))
        missing = missing_files(self.store, what)
        return self.quotas.admitted(what.digest, charge, f"a/{number}@v1", what, missing)

    async def begin(self, number: int, units: int) -> None:
        """Charge an artifact, and write units of its file."""
        if number in self.running or number in self.complete:
            return
        what, copying = manifest(number), self.admitted(number)
        try:
            await copying.__aenter__()
        except OutOfSpace as refused:
            assert refused.code == QUOTA
            return
        self.running[number] = copying
        size = min(units * UNIT, what.files[0].size)
        if size > self.on_disk(number):
            self.store.partial_path(what.files[0].sha256).write_bytes(b"x" * size)

    async def end(self, number: int, failure: ComityError | None) -> None:
        if (copying := self.running.pop(number, None)) is None:
            return
        if failure is None:
            path = self.store.partial_path(manifest(number).files[0].sha256)
            path.write_bytes(b"x" * manifest(number).files[0].size)
            self.complete.add(number)
            await copying.__aexit__(None, None, None)
            return
        try:
            await copying.__aexit__(type(failure), failure, None)
        except ComityError as error:
            assert error is failure

    async def withdraw(self, number: int) -> None:
        """The operator withdraws a complete copy."""
        if number in self.complete:
            self.complete.discard(number)
            self.store.partial_path(manifest(number).files[0].sha256).unlink()
            await self.quotas.withdrawn([manifest(number).digest])

    async def restart(self) -> None:
        """The process ended: copies that ran do nothing any more, also when their generators are collected."""
        self.quotas._end = _nothing  # type: ignore[method-assign]
        self.running.clear()
        self.quotas = self._made()
        await self.quotas.load(BASIS)
        await self.quotas.count_done(BASIS)

    def on_disk(self, number: int) -> int:
        path = self.store.partial_path(manifest(number).files[0].sha256)
        return path.stat().st_size if path.exists() else 0

    def check(self) -> None:
        by_rule = dict.fromkeys(RULES, 0)
        for number in range(ARTIFACTS):
            by_rule[RULES[number % 3]] += self.on_disk(number)
        assert by_rule["a"] <= LIMITS["a"]
        assert sum(by_rule.values()) <= LIMITS[ALL]
        used = {quota.name: quota.used for quota in self.quotas.status()}
        assert by_rule["a"] <= used["mirror rule 'a'"] <= LIMITS["a"]
        assert sum(by_rule.values()) <= used["all that is mirrored"] <= LIMITS[ALL]
        assert used["all that is mirrored"] == sum(self.ledger.mirror_charges.used().values())
        assert self.quotas.waiting == sum(self.ledger.mirror_charges.waiting_counts().values())


async def _nothing(*_: object, **__: object) -> None:
    pass


async def run(folder: Path, steps: list[Step]) -> None:
    bench = Bench(folder)
    with closing(bench.ledger):
        await bench.restart()
        failure: Callable[[], ComityError] = lambda: Unavailable("no peer has it")  # noqa: E731
        for what, number, units in steps:
            if what == "begin":
                await bench.begin(number, units)
            elif what in ("fail", "complete"):
                await bench.end(number, failure() if what == "fail" else None)
            elif what == "withdraw":
                await bench.withdraw(number)
            elif what == "restart":
                await bench.restart()
            else:
                for artifact in await bench.quotas.take_fitting():
                    assert artifact not in {manifest(each).digest for each in bench.running}
            bench.check()


@settings(max_examples=examples(12))
@given(STEPS)
@example([("begin", 0, 0)] * 7 + [("restart", 0, 0)])
def test_copies_by_rules_never_exceed_a_quota(steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder), steps))


async def test_publications_that_no_node_serves_use_no_quota_and_delay_no_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with closing(bench.ledger):
        await bench.restart()
        await bench.begin(3, 0)  # 4 of the 8 units of rule "a"
        await bench.begin(0, 0)
        await bench.begin(6, 0)
        await bench.begin(3, 0)
        large = manifest(8)
        waits: list[Digest] = []
        try:
            async with bench.admitted(8, "a"):
                raise AssertionError("it does not fit")
        except OutOfSpace as refused:
            assert "'a'" in refused.why
            waits = [item.artifact for item in await bench.quotas.examples(9)]
        assert waits == [large.digest]
        assert await bench.quotas.take_fitting() == []
        await bench.end(3, Unavailable("no peer has it"))
        assert await bench.quotas.take_fitting() == [large.digest]
        assert bench.quotas.waiting == 0


def test_a_warning_is_given_at_four_fifths_of_a_quota(tmp_path: Path) -> None:
    quotas = MirrorQuotas({"a": 100})
    quotas.charge("a", 79)
    (use,) = quotas.uses()
    assert not use.nearly_full
    quotas.charge("a", 1)
    (use,) = quotas.uses()
    assert (use.nearly_full, quotas.exceeded("a", 21), quotas.exceeded("a", 20), quotas.exceeded("b", 999)) == (
        True,
        use,
        None,
        None,
    )


async def test_a_withdrawal_reads_the_charges_of_no_other_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    with closing(bench.ledger):
        await bench.restart()
        for number in (1, 4, 7):
            await bench.begin(number, 0)
            await bench.end(number, None)
        read = list[str]()
        for name in ("used", "waiting_counts", "release_withdrawn"):
            monkeypatch.setattr(MirrorCharges, name, lambda table, name=name: read.append(name))
        for number in (1, 4):
            await bench.withdraw(number)
        await bench.quotas.withdrawn([])
        assert read == []
        monkeypatch.undo()
        bench.check()
        assert list(bench.ledger.mirror_charges.find([manifest(7).digest])) == [manifest(7).digest]


async def test_a_copy_that_ends_while_it_is_charged_is_charged_in_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its bytes would be taken from what others have used when it is charged again."""
    putting, go_on, done, put = Event(), Event(), Event(), MirrorCharges.put

    def slow(table: MirrorCharges, charge: MirrorCharge) -> None:
        putting.set()
        go_on.wait()
        put(table, charge)
        done.set()

    monkeypatch.setattr(MirrorCharges, "put", slow)
    bench = Bench(tmp_path)
    await bench.quotas.load(BASIS)

    async def copy() -> None:
        async with bench.admitted(0):
            raise AssertionError("it was ended before")

    copying = asyncio.create_task(copy())
    await asyncio.to_thread(putting.wait)
    copying.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(copying, return_exceptions=True)
    await asyncio.to_thread(done.wait)
    async with bench.quotas._lock:
        used = {quota.used for quota in bench.quotas.status()}
    assert used == {sum(bench.ledger.mirror_charges.used().values())} == {0}
    bench.pools.close()
    bench.ledger.close()
