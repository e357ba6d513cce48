"""How publications are read for copying: one page of each log at a time."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attackers.forging import Identity, Release
from comity.content.blobs import FolderStore
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.own_log import OwnLog
from comity.node.replication import replicas as replicas_module
from comity.node.replication import wanted as wanted_module
from comity.node.replication.artifacts import FIRST_REST_SECONDS, Copy, CopyQueue, Job
from comity.node.replication.copy_charges import CopyCharges
from comity.node.replication.copy_limits import CopyPauses
from comity.node.replication.files import FileFetcher
from comity.node.replication.replicas import Replicas
from comity.node.replication.wanted import PAGE, StatementAges, WantedArtifacts
from comity.node.settings import Replication
from comity.node.threads import AsyncLedger, Pools
from comity.rules.mirror_rules import MirrorDecision
from comity.rules.precedence import Precedence
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Unavailable
from comity.trust.keys import HybridSigner
from comity.trust.statement import Author, Entry, Statement, Subject, parse_entry, sign_statement
from comity.trust.statements import Published
from comity.trust.upstream import Observed
from support.context import node_context
from support.copy_charges import made_charges
from support.logs import LogKeys

OWN = LogKeys.generate("own.example/log")
FLOODED, QUIET = LogKeys.generate("flooded.example/log"), LogKeys.generate("quiet.example/log")
FLOOD, FEW = Identity.made("a flood"), Identity.made("one of few")
SIGNER = HybridSigner.generate(("ed25519",))
PAGES = 4


class Bench:
    """A node whose ledger has two logs, and that wants everything."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger = Ledger.open(folder, lambda: 1_000)
        self.read = 0
        self.metrics = Metrics()
        for log in (FLOODED, QUIET):
            self.ledger.logs.create(log.origin, log.vkey)
        self.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        self.node = Author("node", sha256(b"node"))
        self.seat = SimpleNamespace(
            log=OWN.vkey, record=SimpleNamespace(node=self.node), inception=SimpleNamespace(id="own")
        )
        self.now = 1_000_000.0
        self.ages = StatementAges(AsyncLedger(self.ledger), lambda: self.now)
        self.folder, self.store = folder, FolderStore(folder / "blobs")
        self.pauses = CopyPauses(Replication(), FolderStore(folder / "blobs"), Pools(), lambda: self.now)
        self.charges = made_charges(self.ledger, self.store, Pools(), own_log=OWN.vkey)
        self.make()
        parse = wanted_module._parse_publication

        def counted(entry: Entry) -> Published | Observed:
            self.read += 1
            return parse(entry)

        monkeypatch.setattr(wanted_module, "_parse_publication", counted)

    def make(
        self,
        wanted: WantedArtifacts | None = None,
        charges: CopyCharges | None = None,
        files: FileFetcher | None = None,
    ) -> Replicas:
        """The node's copies, made again."""
        self.replicas = Replicas(
            node_context(
                ledger=AsyncLedger(self.ledger),
                store=self.store,
                pools=Pools(),
                membership=cast(
                    Membership,
                    SimpleNamespace(
                        peers=(), node_ids=(), own_node=self.seat, owner=lambda log: None, precedence=Precedence()
                    ),
                ),
                metrics=self.metrics,
            ),
            cast(OwnLog, SimpleNamespace(signer=None)),
            cast(FileFetcher, files),
            wanted or self.wanted(Replication(mirror="all")),
            charges or self.charges,
            self.pauses,
            on_lost=lambda: None,
        )
        return self.replicas

    def wanted(self, settings: Replication) -> WantedArtifacts:
        return WantedArtifacts(settings, FolderStore(self.folder / "blobs"), Pools(), self.ages, {})

    async def hold(self, lines: list[bytes]) -> None:
        """The node has logged a hold of each published artifact."""
        for published in (Published.parse(parse_entry(line).statement) for line in lines):
            manifest, pieces = published.manifest, published.pieces
            body = {"manifest": manifest.to_json(), "pieces": pieces.to_json()}
            said = Statement("hold", (Subject("", published.artifact),), self.node, body, (manifest, pieces))
            self.ledger.logs.append(OWN.vkey, [sign_statement(said, SIGNER).line])
        await self.replicas.own_claims_logged()

    def prove(self, log: LogKeys, lines: list[bytes]) -> None:
        self.ledger.logs.advance(log.origin, 0, lines, log.note_over(lines))
        while (batch := self.ledger.intake.next_batch(log.vkey)).lines:
            facts = (statement_facts(index, parse_entry(line)) for index, line in enumerate(batch.lines, batch.start))
            self.ledger.intake.commit(batch, IntakeResult(log.vkey, tuple(item for item in facts if item is not None)))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.ledger.close()


async def test_publications_are_not_parsed_on_the_event_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    parse, threads = wanted_module._parse_publication, set[threading.Thread]()

    def noted(entry: Entry) -> Published | Observed:
        threads.add(threading.current_thread())
        return parse(entry)

    monkeypatch.setattr(wanted_module, "_parse_publication", noted)

    async def run(job: Job) -> None:
        bench.replicas._copies.done(job, 0.0)

    monkeypatch.setattr(bench.replicas, "_run_job", run)
    bench.prove(FLOODED, [FLOOD.publish("a/b@v1", Release(b"one\n"))])
    await bench.replicas._work()
    assert threads
    assert threading.current_thread() not in threads


async def test_a_flood_of_publications_does_not_delay_the_first_copy_from_another_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.prove(FLOODED, [FLOOD.publish(f"a/b{number}@v1", Release(b"flood\n")) for number in range(PAGES * PAGE)])
    bench.prove(QUIET, [FEW.publish("c/d@v1", Release(b"few\n"))])
    copied: list[tuple[str, int]] = []

    async def run(job: Job) -> None:
        copied.append((job.copy.name, bench.read))
        bench.replicas._copies.done(job, 0.0)

    monkeypatch.setattr(bench.replicas, "_run_job", run)
    await bench.replicas._work()
    assert {name for name, _ in copied} >= {"c/d@v1"}
    assert max(read for name, read in copied if name == "c/d@v1") <= 2 * PAGE + 1
    assert bench.read == PAGES * PAGE + 1, "each is read once"


async def test_a_copy_that_ends_by_an_unexpected_error_rests_while_others_are_copied(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was queued again without a rest, and took the turns of all workers."""
    tried = list[str]()

    async def complete(copy: Copy) -> None:
        tried.append(copy.name)
        assert copy.name != "a/bad@v1"

    monkeypatch.setattr(bench.replicas._copier, "complete", complete)
    bench.prove(FLOODED, [FLOOD.publish(name, Release(name.encode())) for name in ("a/bad@v1", "a/good@v1")])
    for _ in range(4):
        with suppress(AssertionError):
            await bench.replicas._work()
    assert sorted(tried) == ["a/bad@v1", "a/good@v1"]


async def test_a_held_artifact_that_many_claim_is_neither_looked_up_nor_queued(bench: Bench) -> None:
    release = Release(b"held\n")
    lines = [FLOOD.publish(f"a/b{number}@v1", release) for number in range(50)]
    bench.prove(FLOODED, lines)
    await bench.hold(lines[:1])
    await bench.replicas._work()
    assert (bench.replicas.held, bench.replicas.lacking) == (1, 0)


async def test_publications_that_the_settings_do_not_name_are_counted_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted_module, "MAX_NOT_LISTED", 5)
    bench.make(bench.wanted(Replication(mirror=("c/d",))))
    bench.prove(FLOODED, [FLOOD.publish(f"a/b{number}@v1", Release(b"%d\n" % number)) for number in range(9)])
    bench.prove(QUIET, [FLOOD.publish("a/b0@v1", Release(b"0\n")), FEW.publish("c/d@v1", Release(b"few\n"))])

    async def failed(job: Job) -> None:
        bench.replicas._copies.failed(job, bench.replicas._now(), Unavailable("no peer has it", code="NO-SOURCE"))

    monkeypatch.setattr(bench.replicas, "_run_job", failed)
    await bench.replicas._work()
    assert bench.replicas.not_listed == 5, "no more are counted than are remembered"
    (lacking,) = bench.replicas.incomplete(64)
    assert (lacking.name, lacking.state, lacking.why, lacking.code) == (
        "c/d@v1",
        "paused",
        "no peer has it",
        "NO-SOURCE",
    )
    assert 0 < lacking.retry_seconds <= FIRST_REST_SECONDS


async def test_a_held_artifact_that_lost_a_file_is_lacking_and_not_held(bench: Bench) -> None:
    line = FLOOD.publish("a/b@v1", Release(b"held\n"))
    bench.prove(FLOODED, [line])
    await bench.hold([line])
    assert (bench.replicas.held, bench.replicas.lacking) == (1, 0)
    await bench.replicas.check_held()
    assert (bench.replicas.held, bench.replicas.standing, bench.replicas.lacking) == (0, 1, 1)
    assert len(await bench.replicas.standing_page(None, 2)) == 1
    assert await bench.replicas.without_hold() == []


async def test_a_copy_whose_hold_is_logged_is_held_and_not_lacking_before_its_job_has_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = FLOOD.publish("a/b@v1", Release(b"complete\n"))
    bench.prove(FLOODED, [line])
    counted: list[tuple[int, int]] = []

    async def copy(wanted: Copy) -> None:
        counted.append((bench.replicas.held, bench.replicas.lacking))
        await bench.hold([line])
        counted.append((bench.replicas.held, bench.replicas.lacking))
        assert bench.replicas.incomplete(9) == []

    monkeypatch.setattr(bench.replicas._copier, "_copy", copy)
    await bench.replicas._work()
    counted.append((bench.replicas.held, bench.replicas.lacking))
    assert counted == [(0, 1), (1, 0), (1, 0)]


async def test_a_copy_completed_during_the_decision_about_its_publication_is_not_queued_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = FLOOD.publish("a/b@v1", Release(b"complete\n"))
    bench.prove(FLOODED, [line])
    reader, decide = bench.replicas._publications, bench.replicas._publications._decide

    async def slow(found: ProvenLine, published: Published, *, ours: bool, held: bool) -> MirrorDecision:
        await bench.hold([line])
        return await decide(found, published, ours=ours, held=held)

    monkeypatch.setattr(reader, "_decide", slow)
    await reader.read_page()
    assert (bench.replicas.held, bench.replicas.lacking, len(bench.replicas._copies)) == (1, 0, 0)


async def test_publications_beyond_the_queue_are_read_again_and_none_before_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, most = 30, 8
    monkeypatch.setattr(replicas_module, "CopyQueue", lambda: CopyQueue(most))
    bench.make()
    monkeypatch.setattr(wanted_module, "REREAD_SECONDS", 0.0)
    lines = [FLOOD.publish(f"a/b{number}@v1", Release(b"%d\n" % number)) for number in range(count)]
    bench.prove(FLOODED, lines)
    copied: list[str] = []

    async def run(job: Job) -> None:
        copied.append(job.copy.name)
        bench.replicas._copies.done(job, 0.0)

    monkeypatch.setattr(bench.replicas, "_run_job", run)
    while len(copied) < count:
        before = len(copied)
        await bench.replicas._work()
        assert len(copied) > before
    assert len(set(copied)) == count
    assert not bench.replicas.left_out
    assert bench.read == sum(range(count, 0, -most)), "each time from the first that did not fit"


async def test_a_full_queue_shows_in_its_use_and_in_a_metric(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "CopyQueue", lambda: CopyQueue(8))
    bench.make()
    await bench.replicas.load()
    lines = [FLOOD.publish(f"a/b{number}@v1", Release(b"%d\n" % number)) for number in range(6)]
    bench.prove(FLOODED, lines)
    await bench.replicas.incomplete_copies()
    use = bench.replicas.queue_use
    assert (use.used, use.most, use.nearly_full, bench.replicas.left_out) == (6, 8, False, False)
    bench.prove(QUIET, [FEW.publish(f"c/d{number}@v1", Release(b"few %d\n" % number)) for number in range(9)])
    await bench.replicas.incomplete_copies()
    use = bench.replicas.queue_use
    assert (use.member, use.used, use.nearly_full, bench.replicas.left_out) == (QUIET.vkey, 8, True, True)
    assert bench.metrics.registry.get_sample_value("comity_replica_queue_share") == 1.0


async def test_an_artifact_that_a_rule_copies_at_an_age_is_queued_then_without_another_read(bench: Bench) -> None:
    file = bench.folder / "mirror.toml"
    file.write_text('default = "skip"\n[[rule]]\nname = "after a day"\ndo = "copy"\nmin_age_hours = 24\n')
    bench.make(bench.wanted(Replication(rules=file)))
    await bench.replicas.load()
    bench.prove(FLOODED, [FLOOD.publish(f"a/b{number}@v1", Release(b"%d\n" % number)) for number in range(3)])
    await bench.replicas.incomplete_copies()
    assert (bench.replicas.lacking, bench.replicas.not_listed, bench.ledger.waiting_copies.count()) == (0, 0, 3)
    bench.now += 3_600
    await bench.replicas._publications.queue_due()  # sets the mark from which the age counts
    bench.now += 23 * 3_600
    await bench.replicas._publications.queue_due()
    assert bench.replicas.lacking == 0
    bench.now += 3_600
    await bench.replicas._publications.queue_due()
    assert (bench.replicas.lacking, bench.ledger.waiting_copies.count()) == (3, 0)
    assert len(bench.ledger.replicas.lacking(None, 9)) == 3, "a restart queues them again"


async def test_ages_outlive_a_restart_and_a_statement_after_the_last_mark_is_new(bench: Bench) -> None:
    bench.prove(FLOODED, [FLOOD.publish(f"a/b{number}@v1", Release(b"%d\n" % number)) for number in range(3)])
    await bench.ages.load()
    bench.now += 7_200
    bench.prove(QUIET, [FEW.publish("c/d@v1", Release(b"3\n"))])
    last = bench.ledger.proven.last_number()
    again = StatementAges(AsyncLedger(bench.ledger), lambda: bench.now)
    assert (bench.ages.of(last - 1), bench.ages.of(last)) == (7_200, 0)
    await again.load()
    bench.now += 60
    assert (again.of(last - 1), again.of(last), again.of(last + 1)) == (7_260, 60, 0)


async def test_statements_become_older_also_after_a_clock_was_ahead(bench: Bench) -> None:
    bench.prove(FLOODED, [FLOOD.publish("a/b@v1", Release(b"1\n"))])
    bench.now += 100_000_000
    await bench.ages.load()
    bench.now -= 100_000_000
    bench.prove(QUIET, [FEW.publish("c/d@v1", Release(b"3\n"))])
    await bench.ages.mark()
    bench.now += 3_600
    assert bench.ages.of(bench.ledger.proven.last_number()) == 3_600


async def test_while_copies_are_paused_nothing_is_copied_and_the_reason_shows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.prove(FLOODED, [FLOOD.publish("a/b@v1", Release(b"x\n"))])
    copied: list[str] = []

    async def run(job: Job) -> None:
        copied.append(job.copy.name)
        bench.replicas._copies.done(job, 0.0)

    monkeypatch.setattr(bench.replicas, "_run_job", run)
    bench.pauses.why = "the disk is full"
    await bench.replicas._work()
    (lacking,) = bench.replicas.incomplete(9)
    assert (copied, lacking.state, lacking.why) == ([], "waits", "the disk is full")
    bench.pauses.why = ""
    await bench.replicas._work()
    assert copied == ["a/b@v1"]


async def test_an_artifact_over_its_quota_leaves_the_queue_and_held_ones_count_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, held, large = bench.folder / "mirror.toml", Release(b"held\n"), Release(b"too large for it\n")
    file.write_text('default = "copy"\nquota_bytes = 20\n')
    wanted = bench.wanted(Replication(rules=file))
    quotas = made_charges(bench.ledger, bench.store, Pools(), quotas=wanted.quotas, own_log=OWN.vkey)

    async def all_here(objects: object) -> None:
        """The side objects are stored."""

    bench.make(wanted, quotas, cast(FileFetcher, SimpleNamespace(require_objects=all_here)))
    lines = [FLOOD.publish("a/held@v1", held), FLOOD.publish("a/large@v1", large)]
    for release in (held, large):
        for body in release.objects:
            bench.store.put(sha256(body), body)
    bench.prove(FLOODED, lines)
    await bench.hold(lines[:1])
    await quotas.load(bench.replicas._publications.basis)
    assert not quotas.ready, "no copy begins before all publications are read"
    await bench.replicas._work()
    (quota,) = quotas.status()
    assert (quota.used, quota.limit, quotas.waiting, bench.replicas.lacking) == (5, 20, 1, 1)
    (lacking,) = await bench.replicas.incomplete_examples(9)
    assert (lacking.name, lacking.state, lacking.code) == ("a/large@v1", "waits", "MIRROR-QUOTA")
    assert len(bench.replicas._copies) == 0


async def test_a_copy_that_failed_keeps_no_manifest(bench: Bench) -> None:
    seen: list[weakref.ref[set[int]]] = []

    async def complete(copy: Copy) -> None:
        manifest = set[int]()
        seen.append(weakref.ref(manifest))
        raise NotFound("no peer has it", why="why", code="NO-HOLDER")

    bench.prove(QUIET, [FEW.publish("c/d@v1", Release(b"few\n"))])
    bench.replicas._copier = cast(Any, SimpleNamespace(complete=complete))
    await bench.replicas._work()
    (copy,) = bench.replicas._copies.incomplete()
    assert copy.failure is not None
    assert (str(copy.failure), copy.failure.code) == ("no peer has it: why", "NO-HOLDER")
    gc.collect()
    assert [found() for found in seen] == [None]
