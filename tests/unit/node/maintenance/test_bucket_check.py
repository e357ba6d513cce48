"""`comity doctor` on a bucket: it names each lie, and a bucket that it does not reach; it says ok of what it probed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from comity.node.maintenance.doctor import diagnose
from comity.node.maintenance.home_checks import Diagnosis
from support.ceph import User
from support.federation import NodeHome, found
from support.ports import free_port
from support.s3 import S3Account, keep_in_bucket, write_credentials
from support.small_s3 import Lie, SmallS3, small_s3


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> NodeHome:
    home = found(tmp_path / "nodes", 1).homes[0]
    home.config().storage.blobs.mkdir(parents=True)
    return home


def checked(home: NodeHome, endpoint: str, folder: Path) -> list[Diagnosis]:
    credentials = write_credentials(folder / "s3.toml", User("KEY", "secret"))
    keep_in_bucket(home, S3Account(endpoint, credentials, "bucket"))
    found = [each for each in diagnose(home.directory) if each.topic in ("bucket", "storage")]
    assert all(each.fix for each in found if each.level in ("warn", "fail"))
    return found


def of_bucket(findings: Iterable[Diagnosis]) -> list[tuple[str, str]]:
    """Level and next step."""
    return [(each.level, each.fix) for each in findings if each.topic == "bucket"]


def test_an_honest_bucket_is_probed_and_nothing_stays_in_it(home: NodeHome, tmp_path: Path) -> None:
    with small_s3() as service:
        found = checked(home, service.endpoint, tmp_path)
        assert [(each.topic, each.level) for each in found] == [("storage", "ok"), ("bucket", "ok")]
    assert service.objects == {} and service.deleted


@pytest.mark.parametrize(
    ("lie", "level", "code"),
    [
        ("overwrites", "warn", "S3-OVERWRITES"),
        ("old lists", "warn", "S3-STALE"),
        ("other parts", "fail", "S3-OTHER-BYTES"),
        ("no ranges", "fail", "S3-RANGE"),
    ],
)
def test_a_bucket_that_lies_is_named_and_never_ticked(
    home: NodeHome, tmp_path: Path, lie: Lie, level: str, code: str
) -> None:
    with small_s3(lie) as service:
        assert of_bucket(checked(home, service.endpoint, tmp_path)) == [(level, f"comity explain {code}")]


def test_a_bucket_that_is_not_reached_is_a_problem_with_the_next_step(home: NodeHome, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    ((level, fix),) = of_bucket(checked(home, endpoint, tmp_path))
    assert level == "fail" and fix.startswith(f"curl -sS {endpoint} ")


def test_keys_that_others_can_read_are_named(home: NodeHome, tmp_path: Path) -> None:
    with small_s3() as service:
        checked(home, service.endpoint, tmp_path)
        (tmp_path / "s3.toml").chmod(0o644)
        ((level, fix),) = of_bucket(diagnose(home.directory))
    assert level == "fail" and "chmod 600" in fix


@pytest.mark.parametrize(("objects", "level"), [({}, "unknown"), ({"a file": b"data"}, "ok")])
def test_a_front_end_only_reads_its_bucket(
    home: NodeHome, tmp_path: Path, objects: dict[str, bytes], level: str
) -> None:
    with small_s3() as service:
        _store_all(service, home, tmp_path, objects)
        before = dict(service.objects)
        assert of_bucket(diagnose(home.directory)) == [(level, "")]
    assert (service.objects, service.deleted) == (before, {})


def _store_all(service: SmallS3, home: NodeHome, folder: Path, objects: dict[str, bytes]) -> None:
    """The bucket of the node as its front end finds it."""
    credentials = write_credentials(folder / "s3.toml", User("KEY", "secret"))
    keep_in_bucket(home, S3Account(service.endpoint, credentials, "bucket"))
    home.set("node", role="front-end")
    home.set("storage", database="postgresql://front_end@/ledger")
    s3 = home.config().storage.s3
    assert s3 is not None
    service.objects = {f"bucket/{s3.prefix}blobs/{name}": data for name, data in objects.items()}
