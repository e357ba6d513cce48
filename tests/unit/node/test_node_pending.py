"""Submissions that wait for their files: their bounds, and who may make them."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
from comity.node.admission import require_permitted
from comity.node.settings import Publishing
from comity.node.uploads import (
    IDLE_SECONDS,
    MAX_PENDING,
    MAX_PER_CALLER,
    PendingSubmission,
    PendingSubmissions,
    Want,
    submission_id,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, OutOfSpace, Refused
from comity.trust.statement import parse_entry
from comity.wire.access import Caller
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.logs import AUTHOR, statement_line


def submission(number: int, *, size: int = 1, caller: str = "somebody", path: str = "") -> PendingSubmission:
    want = Want(sha256(b"object %d" % number), size, path)
    return PendingSubmission(sha256(b"submission %d" % number), caller, {want.digest: want}, caller)


def waits(pending: PendingSubmissions, made: PendingSubmission) -> bool:
    (want,) = made.wants.values()
    try:
        return pending.want(made.id, want.digest, want.size) == want
    except NotFound:
        return False


def test_a_submission_is_named_by_its_lines() -> None:
    assert submission_id([b"a", b"b"]) == sha256(b"a\nb\n") != submission_id([b"b", b"a"])


def test_an_upload_needs_a_submission() -> None:
    pending, made = PendingSubmissions(100), submission(1)
    pending.put(made)
    assert waits(pending, made)
    (want,) = made.wants.values()
    for digest, size in ((sha256(b"other"), want.size), (want.digest, want.size + 1)):
        with pytest.raises(NotFound) as refused:
            pending.want(made.id, digest, size)
        assert refused.value.code == "NOT-WANTED"
    pending.done(made.id)
    assert not waits(pending, made)


def test_one_caller_does_not_push_out_the_others() -> None:
    pending, first = PendingSubmissions(1 << 30), submission(0, caller="first")
    pending.put(first)
    crowd = [submission(number, caller="crowd") for number in range(1, MAX_PENDING + 1)]
    for made in crowd:
        pending.put(made)
    assert waits(pending, first)
    assert [waits(pending, made) for made in crowd].count(True) == MAX_PER_CALLER
    assert waits(pending, crowd[-1])


def test_the_oldest_submission_is_dropped_when_there_are_too_many() -> None:
    pending = PendingSubmissions(1 << 30)
    made = [submission(number, caller=f"caller {number}") for number in range(MAX_PENDING + 1)]
    for one in made:
        pending.put(one)
    assert not waits(pending, made[0])
    assert waits(pending, made[1])
    assert waits(pending, made[-1])


def test_bytes_are_bounded_for_all_and_for_each() -> None:
    pending = PendingSubmissions(10)
    pending.put(submission(1, size=6, caller="a"))
    pending.put(submission(2, size=6, caller="b"))
    assert pending.bytes == 6
    with pytest.raises(OutOfSpace) as refused:
        pending.put(submission(3, size=11))
    assert refused.value.code == "UPLOAD-QUOTA"


def test_a_large_submission_does_not_push_out_a_smaller_one_of_another() -> None:
    pending, small = PendingSubmissions(10), submission(1, size=3, caller="a")
    pending.put(small)
    for _ in range(2):
        with pytest.raises(OutOfSpace) as refused:
            pending.put(submission(2, size=10, caller="b"))
        assert refused.value.code == "UPLOAD-QUOTA"
    assert waits(pending, small)


def test_the_block_with_most_loses_one_to_a_smaller_submission() -> None:
    pending = PendingSubmissions(10)
    large = [submission(number, size=3, caller="b") for number in (1, 2, 3)]
    for made in large:
        pending.put(made)
    small = submission(4, size=4, caller="a")
    pending.put(small)
    assert [waits(pending, made) for made in (*large, small)] == [False, True, True, True]


def test_an_idle_submission_is_dropped_for_another_and_one_with_a_running_upload_is_not() -> None:
    now = 0.0
    pending = PendingSubmissions(10, lambda: now)
    pending.put(submission(1, size=3, caller="a"))
    with pending.uploading(sha256(b"submission 1")):
        now = 2 * IDLE_SECONDS
        with pytest.raises(OutOfSpace):
            pending.put(submission(2, size=10, caller="b"))
    now = 3 * IDLE_SECONDS
    pending.put(submission(2, size=10, caller="b"))
    assert not waits(pending, submission(1, size=3))


def test_where_a_manifest_lists_a_blob_is_found() -> None:
    pending = PendingSubmissions(10)
    pending.put(submission(1, path="model.safetensors"))
    assert pending.path_of(sha256(b"object 1")) == "model.safetensors"
    assert pending.path_of(sha256(b"object 2")) == ""


@pytest.mark.parametrize(
    ("accept", "code"),
    (("none", "PUBLISHING-CLOSED"), ("any", ""), ((AUTHOR.id,), ""), ((Digest("0" * 64),), "NOT-ACCEPTED")),
)
def test_the_operator_decides_who_may_publish(accept: object, code: str) -> None:
    rule, entries = Publishing.model_validate({"accept": accept}), [parse_entry(statement_line(1))]
    require_permitted(rule, Caller("operator", operator=True), entries)
    if code:
        with pytest.raises(Refused) as refused:
            require_permitted(rule, Caller("192.0.2.1"), entries)
        assert refused.value.code == code
    else:
        require_permitted(rule, Caller("192.0.2.1"), entries)


class CountedWants(dict[Digest, Want]):
    """Objects of a submission, which count how often all were read."""

    passes = 0

    def values(self) -> Any:
        self.passes += 1
        return super().values()


def test_the_objects_of_a_large_submission_are_not_counted_again_for_each_other_one() -> None:
    want = Want(sha256(b"large"), 5)
    wants = CountedWants({want.digest: want})
    pending = PendingSubmissions(100)
    pending.put(PendingSubmission(sha256(b"large one"), "large", wants, "large"))
    for number in range(2 * MAX_PENDING):
        pending.put(submission(number, size=0))
    assert wants.passes == 1
    assert pending.bytes == 5
    assert pending.want(sha256(b"large one"), want.digest, 5) == want
    pending.done(sha256(b"large one"))
    assert pending.bytes == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(("put", "put", "put", "done")), st.integers(0, 9), st.integers(0, 40)), max_size=60
)


@given(STEPS)
@settings(max_examples=examples(60))
def test_the_totals_are_those_of_the_submissions_that_wait(steps: list[tuple[str, int, int]]) -> None:
    pending, made = PendingSubmissions(100), dict[int, PendingSubmission]()
    for what, number, size in steps:
        if what == "done":
            pending.done(sha256(b"submission %d" % number))
            continue
        made[number] = submission(number, size=size, caller=str(number % 3))
        with contextlib.suppress(OutOfSpace):
            pending.put(made[number])
        waiting = [each for each in made.values() if waits(pending, each)]
        assert pending.bytes == sum(each.size for each in waiting) <= 100
        assert len(pending) == len(waiting)


def test_a_submission_of_anothers_lines_does_not_end_the_others_upload() -> None:
    pending, of_owner = PendingSubmissions(1 << 30), submission(0, caller="owner")
    copied = dataclasses.replace(of_owner, caller="copies", block="copies")
    pending.put(of_owner)
    pending.put(copied)
    for number in range(1, MAX_PER_CALLER + 1):
        pending.put(submission(number, caller="copies"))
    assert len(pending) == MAX_PER_CALLER + 1, "its own submission was dropped, and no other"
    assert waits(pending, of_owner)
    pending.put(copied)
    pending.done(of_owner.id)
    assert not waits(pending, of_owner)
    assert len(pending) == pending.bytes == MAX_PER_CALLER - 1
