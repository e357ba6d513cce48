"""Properties of blobs in S3 only, tested with a real Ceph and a real SeaweedFS: false answers of a service, crashes
between two requests, quotas.

One faulty service is real: a gateway that corrupts multipart uploads. All other faults come from a proxy in front of a
correct service; the store and its client are those of production.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from comity.content.blobs import BlobLock
from comity.content.s3 import S3Store
from comity.content.s3_client import make_client
from comity.content.s3_upload import PART
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, OutOfSpace, Refused, Unavailable, Untrusted
from support.ceph import Ceph, User, gateway_over_sqlite
from support.lying_proxy import Answer, Lie, lying_proxy
from support.s3 import S3Account, write_credentials

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
DATA = os.urandom(2 * MIB)
DIGEST = sha256(DATA)
KEY = f"p/blobs/{DIGEST[:2]}/{DIGEST}"

PUT = """
import sys
from pathlib import Path
from comity.content.s3 import S3Store
from comity.content.s3_client import make_client
from comity.trust.encoding import sha256
endpoint, credentials, bucket, local, prefix, source = sys.argv[1:]
data = Path(source).read_bytes()
S3Store(bucket, make_client(endpoint, "default", Path(credentials)), Path(local), prefix).put(sha256(data), data)
"""


def blob_bytes(change: Callable[[Answer], Answer]) -> Lie:
    """False answers about the bytes of blobs only: lookups, listings and uploads are answered truthfully."""

    def lie(answer: Answer) -> Answer:
        return change(answer) if answer.method == "GET" and "/blobs/" in answer.path else answer

    return lie


def flip_a_bit(answer: Answer) -> Answer:
    return replace(answer, body=bytes([answer.body[0] ^ 1]) + answer.body[1:])


def forget_the_end(answer: Answer) -> Answer:
    return replace(answer, body=answer.body[:-1], length=answer.length - 1)


def break_off(answer: Answer) -> Answer:
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def send_it_all(answer: Answer) -> Answer:
    headers = {name: value for name, value in answer.headers.items() if name != "Content-Range"}
    return replace(answer, status=200, headers=headers, body=DATA, length=len(DATA))


def say_too_much(answer: Answer) -> Answer:
    return replace(answer, body=answer.body + b"!", length=answer.length + 1)


def shift_by_one(answer: Answer) -> Answer:
    return replace(answer, headers={**answer.headers, "Content-Range": f"bytes 1-100/{len(DATA)}"})


@pytest.mark.parametrize("change", [flip_a_bit, forget_the_end])
@pytest.mark.parametrize("way_in", ["put", "admit"])
def test_an_upload_that_reads_back_as_other_bytes_is_refused_and_deleted(
    s3: S3Account, tmp_path: Path, change: Callable[[Answer], Answer], way_in: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    with lying_proxy(s3.endpoint, blob_bytes(change)) as endpoint:
        store = s3.store(tmp_path / "local", endpoint=endpoint)
        with pytest.raises(Untrusted):
            store.put(DIGEST, DATA) if way_in == "put" else store.admit(source, DIGEST, len(DATA))
        assert not store.has(DIGEST)
        assert list(store.sizes()) == []
    assert source.read_bytes() == DATA


@pytest.mark.ceph
def test_a_real_service_that_corrupts_multipart_uploads_is_detected(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    source = tmp_path / "source"
    source.write_bytes(data := os.urandom(40 * MIB))
    with gateway_over_sqlite(tmp_path / "gateway") as gateway:
        account = S3Account.open(gateway.endpoint, gateway.user("node"), tmp_path, "node-blobs")
        store = account.store(tmp_path / "local")
        store.put(DIGEST, DATA)
        with pytest.raises((Untrusted, Unavailable)):  # other bytes, or a part that is not there any more
            store.admit(source, sha256(data), len(data))
        assert list(store.sizes()) == [(DIGEST, len(DATA))]
        with pytest.raises(Untrusted) as caught:
            store.probe()
        assert caught.value.code == "S3-OTHER-BYTES"
    assert source.exists()


def test_a_blob_that_is_there_is_not_sent_again(s3: S3Account, tmp_path: Path) -> None:
    sent: list[str] = []

    def listen(answer: Answer) -> Answer:
        sent.append(answer.method)
        return answer

    with lying_proxy(s3.endpoint, listen) as endpoint:
        store = s3.store(tmp_path / "local", endpoint=endpoint)
        store.put(DIGEST, DATA)
        assert sent == ["GET", "HEAD", "PUT", "PUT", "GET", "DELETE"]  # a list of marks, once; a mark before and after
        sent.clear()
        store.put(DIGEST, DATA)
        assert sent == ["HEAD"]


def test_an_upload_is_absent_until_it_was_read_back(s3: S3Account, tmp_path: Path) -> None:
    local, prefix = tmp_path / "local", f"{tmp_path.name}/"
    with lying_proxy(s3.endpoint, blob_bytes(break_off)) as endpoint, pytest.raises(Unavailable):
        s3.store(local, prefix=prefix, endpoint=endpoint).put(DIGEST, DATA)
    store = s3.store(local, prefix=prefix)
    assert not store.has(DIGEST)
    store.sweep()
    assert store.verify(DIGEST)


@pytest.mark.parametrize(
    ("change", "offset", "length"),
    [
        (send_it_all, 5, 100),
        (send_it_all, 0, 100),
        (say_too_much, 5, 100),
        (shift_by_one, 5, 100),
        (break_off, 0, len(DATA)),
    ],
)
def test_an_answer_that_is_not_the_range_is_refused(
    s3: S3Account, tmp_path: Path, change: Callable[[Answer], Answer], offset: int, length: int
) -> None:
    prefix = f"{tmp_path.name}/"
    s3.store(tmp_path / "local", prefix=prefix).put(DIGEST, DATA)
    with lying_proxy(s3.endpoint, blob_bytes(change)) as endpoint, pytest.raises(Unavailable):
        s3.store(tmp_path / "local", prefix=prefix, endpoint=endpoint).read(DIGEST, offset, length)


@pytest.mark.parametrize(("point", "arrived"), [("blob.upload", False), ("blob.readback", True), ("blob.done", True)])
def test_a_crash_leaves_the_blob_proven_or_absent(s3: S3Account, tmp_path: Path, point: str, arrived: bool) -> None:
    source, local, prefix = tmp_path / "source", tmp_path / "local", f"{tmp_path.name}/"
    source.write_bytes(DATA)
    argv = [sys.executable, "-c", PUT, s3.endpoint, str(s3.credentials), s3.bucket, str(local), prefix, str(source)]
    child = subprocess.run(argv, env={**os.environ, "COMITY_FAULT": point}, check=False)
    assert child.returncode == -signal.SIGKILL
    store = s3.store(local, prefix=prefix)
    proven = point == "blob.done"
    assert store.has(DIGEST) == proven
    assert list(store.sizes()) == [(DIGEST, len(DATA))] * proven
    if not proven:
        with pytest.raises(NotFound):
            store.read(DIGEST, 0, 1)
    store.sweep()
    assert store.has(DIGEST) == arrived
    store.put(DIGEST, DATA)
    assert store.verify(DIGEST)


def test_a_sweep_aborts_unfinished_uploads_but_not_running_ones(s3: S3Account, tmp_path: Path) -> None:
    store, client, busy = s3.store(tmp_path, prefix="sweep/"), s3.client(), sha256(b"busy")
    for digest in (DIGEST, busy):
        client.create_multipart_upload(Bucket=s3.bucket, Key=f"sweep/blobs/{digest[:2]}/{digest}")
    with BlobLock(tmp_path / "uploading", busy):
        store.sweep()
    left = client.list_multipart_uploads(Bucket=s3.bucket, Prefix="sweep/")["Uploads"]
    assert [upload["Key"][-64:] for upload in left] == [busy]


ADMIT = """
import sys
from pathlib import Path
from comity.content.s3 import S3Store
from comity.content.s3_client import make_client
from comity.trust.encoding import Digest
endpoint, credentials, bucket, local, prefix, source, digest = sys.argv[1:]
store = S3Store(bucket, make_client(endpoint, "default", Path(credentials)), Path(local), prefix)
store.admit(Path(source), Digest(digest), Path(source).stat().st_size, link=True)
"""


@dataclass(frozen=True)
class Large:
    """A file of four parts, and the store into which an admission of it is killed."""

    s3: S3Account
    source: Path
    digest: Digest
    local: Path
    prefix: str

    def killed(self, point: str) -> S3Store:
        """The store after a process that admits the file died at a fault point."""
        places = [self.s3.endpoint, self.s3.credentials, self.s3.bucket, self.local, self.prefix, self.source]
        argv = [sys.executable, "-c", ADMIT, *map(str, places), self.digest]
        child = subprocess.run(argv, env={**os.environ, "COMITY_FAULT": point}, check=False)
        assert child.returncode == -signal.SIGKILL
        store = self.s3.store(self.local, prefix=self.prefix)
        assert not store.has(self.digest)
        return store

    def sent_by_admission(self) -> list[str]:
        """The methods, and numbers of parts, of an admission's requests."""
        sent: list[str] = []

        def listen(answer: Answer) -> Answer:
            number = re.search(r"partNumber=(\d+)", answer.path)
            sent.append(f"part {number[1]}" if number else answer.method)
            return answer

        with lying_proxy(self.s3.endpoint, listen) as endpoint:
            store = self.s3.store(self.local, prefix=self.prefix, endpoint=endpoint)
            store.admit(self.source, self.digest, self.source.stat().st_size, link=True)
        assert self.s3.store(self.local, prefix=self.prefix).verify(self.digest)
        assert self.uploads() == []
        return sent

    def uploads(self) -> list[str]:
        found = self.s3.client().list_multipart_uploads(Bucket=self.s3.bucket, Prefix=self.prefix)
        return [upload["UploadId"] for upload in found.get("Uploads", ())]

    def part(self, number: int) -> bytes:
        return self.source.read_bytes()[(number - 1) * PART : number * PART]

    @property
    def marker(self) -> Path:
        return self.local / "uploading" / self.digest


@pytest.fixture
def large(s3: S3Account, tmp_path: Path) -> Large:
    source = tmp_path / "large"
    source.write_bytes(data := random.Random(2).randbytes(3 * PART + 17))
    return Large(s3, source, sha256(data), tmp_path / "local", f"{tmp_path.name}/")


def test_an_upload_that_was_killed_goes_on_with_the_parts_that_are_there(large: Large) -> None:
    store = large.killed("blob.part:2")
    store.sweep()
    (upload,) = large.uploads()
    key = store.key(large.digest)
    listed = large.s3.client().list_parts(Bucket=large.s3.bucket, Key=key, UploadId=upload)["Parts"]
    there = {f"part {part['PartNumber']}" for part in listed}
    assert len(there) >= 2
    sent = {request for request in large.sent_by_admission() if request.startswith("part")}
    assert sent <= {f"part {number}" for number in (1, 2, 3, 4)} - there  # what was under way may still have arrived


def test_only_parts_with_the_bytes_of_the_file_are_kept(large: Large) -> None:
    client, store = large.s3.client(), large.s3.store(large.local, prefix=large.prefix)
    bucket, key = large.s3.bucket, store.key(large.digest)
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    for number, data in ((1, large.part(2)), (2, large.part(2)), (3, large.part(3)[:-1])):
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=data)
    large.marker.write_text(json.dumps({"upload": upload, "part": PART}))
    sent = [request for request in large.sent_by_admission() if request.startswith("part")]
    assert sorted(sent) == ["part 1", "part 3", "part 4"]


@pytest.mark.parametrize("record", ['{"upload": "no-such-upload", "part": 16777216}', '{"upl'])
def test_a_record_of_an_upload_that_is_gone_or_torn_begins_another(large: Large, record: str) -> None:
    large.s3.store(large.local, prefix=large.prefix)
    large.marker.write_text(record)
    sent = [request for request in large.sent_by_admission() if request.startswith("part")]
    assert sorted(sent) == ["part 1", "part 2", "part 3", "part 4"]


def test_an_upload_that_nobody_continues_for_a_week_is_ended(large: Large) -> None:
    store = large.killed("blob.part:1")
    week = 7 * 86_400
    for age, left in ((week - 60, 1), (week + 60, 0)):
        os.utime(large.marker, times=(time.time() - age,) * 2)
        store.sweep()
        assert len(large.uploads()) == left
    assert not large.marker.exists()
    assert not store.has(large.digest)


def test_a_file_that_arrived_before_the_crash_is_read_back_and_not_sent_again(large: Large) -> None:
    large.killed("blob.readback")
    its_mark = ["GET", "GET", "DELETE"]  # listed, read, and deleted when the object was read back
    assert large.sent_by_admission() == ["HEAD", "GET", *its_mark]


def test_damage_in_the_bucket_is_detected_and_moved_aside_with_its_reason(s3: S3Account, tmp_path: Path) -> None:
    store, client = s3.store(tmp_path, prefix="p/"), s3.client()
    store.put(DIGEST, DATA)
    client.put_object(Bucket=s3.bucket, Key=KEY, Body=b"rot")
    assert not store.verify(DIGEST)
    store.quarantine(DIGEST, "scrub: the hash differs")
    aside = client.get_object(Bucket=s3.bucket, Key=f"p/quarantine/{DIGEST}.1")["Body"].read()
    reason = client.get_object(Bucket=s3.bucket, Key=f"p/quarantine/{DIGEST}.1.reason")["Body"].read()
    assert (aside, reason) == (b"rot", b"scrub: the hash differs\n")
    store.put(DIGEST, DATA)
    store.quarantine(DIGEST, "again")
    assert client.head_object(Bucket=s3.bucket, Key=f"p/quarantine/{DIGEST}.2")["ContentLength"] == len(DATA)


def test_both_services_do_what_they_say_and_the_probe_leaves_nothing(s3: S3Account, tmp_path: Path) -> None:
    assert s3.store(tmp_path, prefix="probed/").probe() == ()
    assert s3.client().list_objects_v2(Bucket=s3.bucket, Prefix="probed/")["KeyCount"] == 0


def test_a_missing_bucket_is_reported_by_the_probe(s3: S3Account, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        S3Store("no-such-bucket", s3.client(), tmp_path).probe()


def test_a_wrong_secret_is_refused(s3: S3Account, tmp_path: Path) -> None:
    wrong = write_credentials(tmp_path / "wrong.toml", User("NODEACCESSKEY", "not-the-secret"))
    store = S3Store(s3.bucket, make_client(s3.endpoint, "default", wrong), tmp_path)
    with pytest.raises(Refused) as caught:
        store.put(DIGEST, DATA)
    assert caught.value.code == "S3-ACCESS"


ADMIT_SPARSE = """
import re, sys
from pathlib import Path
from comity.content.s3 import S3Store
from comity.content.s3_client import make_client
from comity.trust.encoding import Digest
endpoint, credentials, bucket, local, source, digest = sys.argv[1:]
store = S3Store(bucket, make_client(endpoint, "default", Path(credentials)), Path(local), "sparse/")
store.admit(Path(source), Digest(digest), Path(source).stat().st_size)
store.remove(Digest(digest))
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.ceph
def test_admitting_512_mib_holds_less_than_250_mb(ceph_s3: S3Account, tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.truncate(512 * MIB)
    with (tmp_path / "source").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    places = [
        ceph_s3.endpoint,
        str(ceph_s3.credentials),
        ceph_s3.bucket,
        str(tmp_path / "local"),
        str(tmp_path / "source"),
        digest,
    ]
    child = subprocess.run([sys.executable, "-c", ADMIT_SPARSE, *places], capture_output=True, text=True, check=True)
    assert int(child.stdout) * 1024 < 250_000_000


@pytest.mark.ceph
@pytest.mark.parametrize("size", [2 * MIB, 40 * MIB])
def test_an_exhausted_quota_is_out_of_space_and_leaves_nothing(ceph_cluster: Ceph, tmp_path: Path, size: int) -> None:
    name = f"poor{size // MIB}"
    poor = S3Account.open(ceph_cluster.endpoint, ceph_cluster.user(name, quota=MIB), tmp_path, f"{name}-blobs")
    source = tmp_path / "source"
    source.write_bytes(data := os.urandom(size))
    store = poor.store(tmp_path / "local")
    with pytest.raises(OutOfSpace):
        store.admit(source, sha256(data), size)
    assert not store.has(sha256(data))
    assert source.exists()
    assert poor.client().list_objects_v2(Bucket=poor.bucket)["KeyCount"] == 0
    assert "Uploads" not in poor.client().list_multipart_uploads(Bucket=poor.bucket)


def test_a_presigned_url_gives_ranges_of_its_blob(s3: S3Account, tmp_path: Path) -> None:
    store = s3.store(tmp_path)
    store.put(DIGEST, DATA)
    request = urllib.request.Request(store.presigned(DIGEST, 60), headers={"Range": "bytes=10-19"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert (answer.status, answer.read()) == (206, DATA[10:20])
    other = store.presigned(DIGEST, 60).replace(DIGEST, sha256(b"other"))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(other, timeout=10)
    assert refused.value.code == 403
    refused.value.close()
