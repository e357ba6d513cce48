"""Which artifact is copied next: many or slow artifacts of one member or publisher do not delay the others."""

from __future__ import annotations

from dataclasses import dataclass, field

from comity.node.replication.artifacts import (
    COPY_SECONDS,
    FIRST_REST_SECONDS,
    MAX_REST_SECONDS,
    WORKERS,
    WORKERS_PER_MEMBER,
    WORKERS_PER_PUBLISHER,
    Copy,
    CopyQueue,
    Job,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import SideObject

MANIFEST, PIECES = SideObject(sha256(b"manifest"), 1), SideObject(sha256(b"pieces"), 1)


def artifact(who: str, number: int) -> Digest:
    return sha256(f"{who} {number}".encode())


def want(copying: CopyQueue, member: str, publisher: str, number: int) -> None:
    copying.add(Copy(artifact(publisher, number), publisher, MANIFEST, member), PIECES, (member, publisher))


@dataclass
class Workers:
    """All workers of a node, with a clock: a copy takes the seconds that are listed for its publisher."""

    copying: CopyQueue
    seconds: dict[str, float]
    now: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    worked: dict[Digest, float] = field(default_factory=dict)
    finished: dict[Digest, float] = field(default_factory=dict)

    def until(self, end: float) -> None:
        while self.now < end:
            while len(self.jobs) < WORKERS and (job := self.copying.next(self.now)) is not None:
                self.jobs.append(job)
            self.now += 1
            for job in list(self.jobs):
                copy = job.copy
                self.worked[copy.artifact] = self.worked.get(copy.artifact, 0) + 1
                if self.worked[copy.artifact] >= self.seconds[copy.name]:
                    self.copying.done(job, self.now)
                    self.finished[copy.artifact] = self.now
                elif self.now - job.begun >= job.seconds and self.copying.should_yield(job):
                    self.copying.preempted(job, self.now)
                else:
                    continue
                self.jobs.remove(job)


def test_artifacts_that_never_end_leave_workers_to_every_other_member() -> None:
    copying = CopyQueue()
    workers = Workers(copying, {"slow": 1e9, "honest": 10})
    for number in range(1_000):
        want(copying, "hostile", "slow", number)
    workers.until(5)
    for number in range(10):
        want(copying, "honest member", "honest", number)
    workers.until(75)
    assert {artifact("honest", number) for number in range(10)} <= set(workers.finished)


def test_many_identities_in_one_members_log_delay_that_member_by_a_turn_and_no_others() -> None:
    copying = CopyQueue()
    workers = Workers(copying, {**{f"slow {number}": 1e9 for number in range(50)}, "honest": 10, "other": 10})
    for number in range(50):
        want(copying, "open member", f"slow {number}", number)
    want(copying, "open member", "honest", 0)
    want(copying, "member", "other", 0)
    workers.until(15)
    assert artifact("other", 0) in workers.finished
    workers.until(50 / WORKERS_PER_MEMBER * COPY_SECONDS + 20)
    assert artifact("honest", 0) in workers.finished


def test_any_number_of_hostile_members_delays_an_honest_one_by_a_turn() -> None:
    copying = CopyQueue()
    workers = Workers(copying, {"slow": 1e9, "honest": 10})
    for member in range(20):
        for number in range(20):
            copying.add(
                Copy(artifact(f"slow {member}", number), "slow", MANIFEST, member), PIECES, (member, f"slow {member}")
            )
    workers.until(5)
    want(copying, "honest member", "honest", 0)
    workers.until(5 + 20 / WORKERS * COPY_SECONDS + COPY_SECONDS + 10)
    assert artifact("honest", 0) in workers.finished


def test_a_claim_of_anothers_artifact_takes_nothing_from_its_publisher() -> None:
    copying = CopyQueue()
    for number in range(500):
        want(copying, "hostile", "slow", number)
    wanted = artifact("honest", 0)
    copying.add(Copy(wanted, "honest", MANIFEST, "hostile"), PIECES, ("hostile", "slow"))
    copying.add(Copy(wanted, "honest", MANIFEST, "honest member"), PIECES, ("honest member", "honest"))
    jobs = [copying.next(0) for _ in range(WORKERS)]
    assert wanted in [job.copy.artifact for job in jobs if job is not None]


def test_a_member_and_a_publisher_have_a_part_of_the_workers() -> None:
    copying = CopyQueue()
    for number in range(20):
        want(copying, "member", "one", number)
    assert sum(copying.next(0) is not None for _ in range(WORKERS)) == WORKERS_PER_PUBLISHER
    for number in range(20):
        want(copying, "member", "two", number)
    assert sum(copying.next(0) is not None for _ in range(WORKERS)) == WORKERS_PER_MEMBER - WORKERS_PER_PUBLISHER


def test_a_copy_continues_while_no_other_member_needs_its_worker() -> None:
    copying = CopyQueue()
    for number in range(9):
        want(copying, "member", "one", number)
    job = copying.next(0)
    assert job is not None and not copying.should_yield(job)
    want(copying, "other", "two", 0)
    assert not copying.should_yield(job), "there are free workers"


def test_turns_become_longer_so_that_a_large_artifact_completes() -> None:
    copying = CopyQueue()
    want(copying, "member", "one", 0)
    lengths = []
    for _ in range(3):
        job = copying.next(0)
        assert job is not None
        lengths.append(job.seconds)
        copying.preempted(job, 0)
    assert lengths == [COPY_SECONDS, 2 * COPY_SECONDS, 4 * COPY_SECONDS]


def test_a_failed_copy_pauses_longer_each_time_and_delays_no_others() -> None:
    copying, now, rests = CopyQueue(), 0.0, list[float]()
    want(copying, "member", "one", 0)
    for _ in range(12):
        job = copying.next(now)
        assert job is not None
        rests.append(copying.failed(job, now))
        assert copying.next(now + rests[-1] - 0.5) is None
        now += rests[-1]
    assert rests[0] == FIRST_REST_SECONDS and rests[-1] == MAX_REST_SECONDS and rests == sorted(rests)


def test_a_failed_copy_is_due_when_there_is_a_new_source_and_pauses_after_another_failure() -> None:
    copying = CopyQueue()
    want(copying, "member", "one", 0)
    first = copying.next(0.0)
    assert first is not None
    copying.failed(first, 0.0)
    artifact = first.copy.artifact
    copying.retry({artifact})
    second = copying.next(0.0)
    assert second is not None and second.copy.artifact == artifact
    rest = copying.failed(second, 0.0)
    assert copying.next(rest - 0.5) is None, "the first pause, which was ended, does not end the second"
    assert copying.next(rest) is not None


def test_copies_beyond_the_bound_of_the_queue_are_reported_as_left_out() -> None:
    copying = CopyQueue(max_queued=100)
    for number in range(500):
        want(copying, "hostile", "flooder", number)
    want(copying, "member", "honest", 0)
    assert len(copying) == 101
    assert set(copying.left_out) == {"hostile"}


def test_a_finished_copy_is_forgotten_and_may_be_wanted_again() -> None:
    copying = CopyQueue()
    want(copying, "member", "one", 0)
    want(copying, "other", "one", 0)
    job = copying.next(0)
    assert job is not None
    copying.done(job, 1)
    assert copying.next(1) is None and len(copying) == 0
    want(copying, "member", "one", 0)
    assert copying.next(1) is not None


def test_the_time_in_which_something_is_copied_is_measured_once_for_jobs_beside_each_other() -> None:
    copying = CopyQueue()
    for number in range(3):
        want(copying, "member", "p", number)
    assert copying.busy_seconds(50) == 0
    first, second = copying.next(100), copying.next(110)
    assert first is not None and second is not None
    assert copying.busy_seconds(115) == 15
    copying.done(first, 120)
    copying.failed(second, 130)
    assert copying.busy_seconds(200) == 30
    third = copying.next(210)
    assert third is not None
    assert copying.busy_seconds(215) == 35
