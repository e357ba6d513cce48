"""Prefixes of S3 buckets: what a service may answer, and imports from a real one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.upstream import S3_PREFIX, Upstream
from comity.upstream.download import Timeouts
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import ListedFile, UpstreamRequest
from comity.upstream.mirror import MirrorOrder, MirrorResult, fetch_repository, list_repository, pin_revision
from comity.upstream.s3_prefix import S3Prefix, parse_object, parse_page, prefix_commit
from support.s3 import S3Account
from support.seaweed import Seaweed, seaweed

FILES = {"config.json": b"{}\n", "sub/weights bin": bytes(range(256)) * 4000}
SHA256 = hashlib.sha256(b"x")
PAGE = b"<ListBucketResult><IsTruncated>%s</IsTruncated>%s<Contents><Key>a/b</Key></Contents></ListBucketResult>"


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        pass


def test_a_page_gives_its_keys_and_the_next_token() -> None:
    assert parse_page(PAGE % (b"false", b"")) == (["a/b"], "")
    token = b"<NextContinuationToken>t</NextContinuationToken>"
    assert parse_page(PAGE % (b"true", token)) == (["a/b"], "t")
    assert parse_page((PAGE % (b"false", b"")).replace(b"<ListB", b"<x:ListB", 0)) == (["a/b"], "")
    for body in (b"", b"{}", PAGE % (b"true", b""), b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"x" * 5_000_000):
        with pytest.raises(Malformed):
            parse_page(body)


def test_the_checksum_of_a_whole_object_is_a_listed_sha256_and_others_are_not() -> None:
    whole = {"content-length": "1", "etag": '"e"', "x-amz-checksum-sha256": base64.b64encode(SHA256.digest()).decode()}
    assert parse_object("a", whole) == ListedFile("a", 1, "", SHA256.hexdigest(), version='"e"')  # type: ignore[arg-type]
    for more in (
        {"x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-sha256": "abc-3"},
        {"x-amz-checksum-sha256": ""},
    ):
        assert parse_object("a", {**whole, **more}).lfs is None
    assert parse_object("a", {**whole, "x-amz-version-id": "v7"}).version == '"e" v7'
    for wrong in ({"etag": ""}, {"content-length": "-1"}, {"x-amz-checksum-sha256": "YQ=="}, {"etag": '"a\r\nb"'}):
        with pytest.raises(Malformed):
            parse_object("a", {**whole, **wrong})


def test_the_commit_follows_from_checksums_or_from_versions() -> None:
    known = ListedFile("a", 1, "", SHA256.hexdigest(), version="1")  # type: ignore[arg-type]
    moved = ListedFile("a", 1, "", SHA256.hexdigest(), version="2")  # type: ignore[arg-type]
    assert prefix_commit(iter([known])) == prefix_commit(iter([moved]))
    unknown, replaced = (ListedFile("a", 1, version=version) for version in ("1", "2"))
    assert len({prefix_commit(iter([each])) for each in (known, unknown, replaced)}) == 3


def test_keys_sign_urls_and_are_sent_to_nobody() -> None:
    api = S3Prefix(AllowedHosts.to("https://s3.example.org/bucket/pub", (), "KEY:hush"), read_timeout=1)
    assert api.allowed_hosts.token == ""
    upstream = Upstream("https://s3.example.org/bucket/pub", "s3.example.org/tiny", "1f" * 20, "main", S3_PREFIX)
    url, headers = api.file_request(upstream, ListedFile("a b", 1, version='"e" v7'))
    assert url.startswith("https://s3.example.org/bucket/pub/tiny/a%20b?versionId=v7&")
    assert ("hush" in url, "X-Amz-Signature=" in url, headers) == (False, True, {"If-Match": '"e"'})
    with pytest.raises(Malformed):
        S3Prefix(AllowedHosts.to("https://s3.example.org"), read_timeout=1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed(tmp_path_factory.mktemp("weed")) as made:
        yield made


def run(wanted: MirrorOrder, folder: Path) -> MirrorResult:
    folder.mkdir(exist_ok=True)
    return fetch_repository(wanted, list_repository(wanted, pin_revision(wanted, Silent()), Silent()), folder, Silent())


@pytest.mark.slow
def test_objects_of_a_real_service_are_mirrored_and_pinned(service: Seaweed, tmp_path: Path) -> None:
    account = S3Account.open(service.endpoint, service.user, tmp_path, "pub")
    client = account.client()
    for path, data in FILES.items():
        client.put_object(Bucket="pub", Key=f"lab/tiny/{path}", Body=data)
    client.put_object(Bucket="pub", Key="lab/tiny2/other", Body=b"of another name")
    token = f"{service.user.access_key}:{service.user.secret_key}"
    wanted = MirrorOrder(
        UpstreamRequest.parse("s3:127.0.0.1/tiny"),
        AllowedHosts.to(f"{service.endpoint}/pub/lab", (), token),
        timeouts=Timeouts(first_delay=0.01),
    )
    done = run(wanted, tmp_path / "work")
    got = {seen.entry.path: path.read_bytes() for seen, path in zip(done.observations, done.paths, strict=True)}
    assert got == FILES
    assert {seen.match for seen in done.observations} == {"none"}, "this service keeps no SHA-256 of these objects"
    pinned = pin_revision(wanted, Silent())
    listing = list_repository(wanted, pinned, Silent())
    client.put_object(Bucket="pub", Key="lab/tiny/config.json", Body=b"[]\n")
    (tmp_path / "again").mkdir()
    with pytest.raises(NotFound):
        fetch_repository(wanted, listing, tmp_path / "again", Silent())
    with pytest.raises(NotFound):
        list_repository(wanted, pinned, Silent())
    unsigned = MirrorOrder(wanted.wanted, AllowedHosts.to(f"{service.endpoint}/pub/lab"), timeouts=wanted.timeouts)
    with pytest.raises(ComityError) as denied:
        pin_revision(unsigned, Silent())
    assert denied.value.code == "UPSTREAM-DENIED"
