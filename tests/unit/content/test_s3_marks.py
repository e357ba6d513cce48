"""A blob whose upload was not read back is absent on every machine, until one of them has read it back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from comity.content import fault
from comity.content.s3 import S3Store
from comity.content.s3_client import make_client
from comity.content.s3_marks import KEPT
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Untrusted
from support.ceph import User
from support.s3 import write_credentials
from support.small_s3 import SmallS3, small_s3

DATA = b"weights" * 100
DIGEST = sha256(DATA)
OTHER = b"other weights"
Machine = Callable[[str], S3Store]


class Crash(BaseException):
    """The process ends: nothing after it runs."""


def machines(service: SmallS3, folder: Path) -> Machine:
    """A process on the machine of this name; each call makes another process."""
    credentials = write_credentials(folder / "s3.toml", User("KEY", "secret"))
    client = make_client(service.endpoint, "default", credentials)
    return lambda name: S3Store("bucket", client, folder / name, "p/")


def crash_at(monkeypatch: pytest.MonkeyPatch, point: str) -> pytest.MonkeyPatch:
    def reach(name: str) -> None:
        if name == point:
            raise Crash

    monkeypatch.setattr(fault, "point", reach)
    return monkeypatch


def left(service: SmallS3) -> int:
    """The number of marks in the bucket."""
    return sum("/unproven/" in key for key in service.objects)


def crashed(machine: Machine, point: str, *data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        crash_at(patch, point)
        machine("first").put_all({sha256(each): each for each in data})


def test_what_was_not_read_back_is_absent_on_another_machine_until_it_reads_it_back(tmp_path: Path) -> None:
    with small_s3() as service:
        machine = machines(service, tmp_path)
        crashed(machine, "blob.readback", DATA)
        standby, reader = machine("second"), machine("third")
        assert any("/blobs/" in key for key in service.objects), "the object is there"
        for store in (standby, reader):
            assert not store.has(DIGEST)
            assert list(store.sizes()) == []
            with pytest.raises(NotFound):
                store.read(DIGEST, 0, 1)
        standby.sweep()
        for store in (standby, reader):
            assert store.read(DIGEST, 0, 7) == DATA[:7]
        assert left(service) == 0


def test_other_bytes_of_a_writer_that_died_are_deleted_by_the_next_one(tmp_path: Path) -> None:
    with small_s3() as service:
        machine = machines(service, tmp_path)
        crashed(machine, "blob.readback", DATA)
        (key,) = [key for key in service.objects if "/blobs/" in key]
        service.objects[key] = b"rot"
        standby = machine("second")
        standby.sweep()
        assert not standby.has(DIGEST) and key not in service.objects
        standby.put(DIGEST, DATA)
        assert standby.has(DIGEST)


def test_a_standby_that_gets_the_same_blob_proves_it_without_a_sweep(tmp_path: Path) -> None:
    with small_s3() as service:
        machine = machines(service, tmp_path)
        crashed(machine, "blob.readback", DATA)
        standby = machine("second")
        standby.put(DIGEST, DATA)
        assert standby.has(DIGEST)
        assert left(service) == 0 and machine("third").has(DIGEST)


def test_a_mark_of_several_blobs_stays_until_each_is_proven(tmp_path: Path) -> None:
    with small_s3() as service:
        machine = machines(service, tmp_path)
        crashed(machine, "blob.readback", DATA, OTHER)
        standby = machine("second")
        standby.put(DIGEST, DATA)
        assert left(service) == 1 and standby.has(DIGEST)
        assert not standby.has(sha256(OTHER))
        standby.put(sha256(OTHER), OTHER)
        assert left(service) == 0 and standby.has(sha256(OTHER))


def test_a_mark_whose_blob_did_not_come_stays_a_week_for_a_writer_that_is_frozen(tmp_path: Path) -> None:
    with small_s3() as service:
        machine = machines(service, tmp_path)
        crashed(machine, "blob.upload", DATA)
        standby = machine("second")
        standby.sweep()
        assert left(service) == 1
        service.objects[f"bucket/p/blobs/{DIGEST[:2]}/{DIGEST}"] = b"sent late, and false"
        assert not standby.has(DIGEST)
        del service.objects[f"bucket/p/blobs/{DIGEST[:2]}/{DIGEST}"]
        service.hours_ago = dict.fromkeys(service.objects, 1 + KEPT // timedelta(hours=1))
        standby.sweep()
        assert left(service) == 0


def test_many_small_blobs_have_one_mark_and_a_sweep_leaves_that_of_a_running_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_s3() as service:
        store = machines(service, tmp_path)("first")
        counts = []

        def reach(name: str) -> None:
            if name == "blob.readback":
                store.sweep()
                counts.append(left(service))

        monkeypatch.setattr(fault, "point", reach)
        store.put_all({sha256(each): each for each in (DATA, OTHER)})
        assert counts == [1, 1]
        assert left(service) == 0 and store.has(DIGEST) and store.has(sha256(OTHER))
        before = len(service.deleted)
        store.put_all({DIGEST: DATA})
        assert len(service.deleted) == before, "what is there needs no mark"


def test_bytes_that_a_service_changed_leave_no_mark(tmp_path: Path) -> None:
    with small_s3("other bytes") as service:
        with pytest.raises(Untrusted):
            machines(service, tmp_path)("first").put(DIGEST, DATA)
        assert service.objects == {}
