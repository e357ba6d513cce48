"""A service that lies is named, with the lie; an honest one is not, and nothing of the probe stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.content.s3_client import make_client
from comity.content.s3_probe import BucketProbe
from comity.trust.errors import ComityError, Unavailable, Untrusted
from support.ceph import User
from support.ports import free_port
from support.s3 import write_credentials
from support.small_s3 import Lie, small_s3


def probe(endpoint: str, folder: Path) -> tuple[ComityError, ...]:
    credentials = write_credentials(folder / "s3.toml", User("KEY", "secret"))
    return BucketProbe(make_client(endpoint, "default", credentials), "bucket", "p/").run()


def test_nothing_is_said_of_an_honest_service_and_nothing_stays(tmp_path: Path) -> None:
    with small_s3() as service:
        assert probe(service.endpoint, tmp_path) == ()
    assert (service.objects, service.uploads) == ({}, {})
    assert len(service.deleted) == 1


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("overwrites", "S3-OVERWRITES"),
        ("old lists", "S3-STALE"),
        ("deleted in lists", "S3-STALE"),
        ("old reads", "S3-STALE"),
    ],
)
def test_a_lie_that_the_store_can_do_without_is_named(tmp_path: Path, lie: Lie, code: str) -> None:
    with small_s3(lie) as service:
        (found,) = probe(service.endpoint, tmp_path)
        assert found.code == code
        assert service.objects == {}


@pytest.mark.parametrize(
    ("lie", "code"), [("other bytes", "S3-OTHER-BYTES"), ("other parts", "S3-OTHER-BYTES"), ("no ranges", "S3-RANGE")]
)
def test_a_service_that_does_not_keep_bytes_is_refused(tmp_path: Path, lie: Lie, code: str) -> None:
    with small_s3(lie) as service:
        with pytest.raises(Untrusted) as caught:
            probe(service.endpoint, tmp_path)
        assert caught.value.code == code
        assert service.objects == {}


def test_several_lies_are_named_together(tmp_path: Path) -> None:
    with small_s3("overwrites", "old lists", "old reads") as service:
        found = probe(service.endpoint, tmp_path)
    assert {error.code for error in found} == {"S3-OVERWRITES", "S3-STALE"}


def test_what_a_killed_probe_left_behind_is_deleted_after_an_hour(tmp_path: Path) -> None:
    with small_s3() as service:
        service.objects = {"bucket/p/probe/old": b"old", "bucket/p/probe/new": b"new", "bucket/p/blobs/b": b"blob"}
        service.hours_ago = {"bucket/p/probe/old": 2}
        assert probe(service.endpoint, tmp_path) == ()
    assert sorted(service.objects) == ["bucket/p/blobs/b", "bucket/p/probe/new"]


def test_a_service_that_does_not_answer_is_no_liar(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        probe(f"http://127.0.0.1:{free_port()}", tmp_path)
