"""The S3 client and its secrets, without a service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.loaders import JSONFileLoader
from botocore.stub import Stubber
from comity.content.s3 import S3Store
from comity.content.s3_client import make_client
from comity.content.secrets import MAX_SECRET, read_secret
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Refused, Unavailable
from support.ceph import User
from support.ports import free_port
from support.s3 import write_credentials

USER = User("THEACCESSKEY", "the-secret-key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o611])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_credentials(tmp_path / "s3.toml", USER, mode)
    with pytest.raises(Refused) as caught:
        read_secret(path)
    assert caught.value.code == "SECRET-EXPOSED"
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_secret_is_read(tmp_path: Path, mode: int) -> None:
    assert b"THEACCESSKEY" in read_secret(write_credentials(tmp_path / "s3.toml", USER, mode))


def test_an_endless_secret_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_bytes(bytes(MAX_SECRET + 1))
    with pytest.raises(Malformed):
        read_secret(path)


def test_a_missing_secret_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        read_secret(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text", ["", "access_key = 'a'", "access_key = 'a'\nsecret_key = 5", "secret_key = hush", "\xff"]
)
def test_malformed_credentials_are_refused_without_quoting_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s3.toml"
    path.touch(mode=0o600)
    path.write_text(text, encoding="latin-1")
    with pytest.raises(Malformed) as caught:
        make_client("http://127.0.0.1:1", "default", path)
    assert "hush" not in str(caught.value)


def test_credentials_in_the_environment_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHERKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "other-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://elsewhere.example")
    client = make_client("http://127.0.0.1:1", "default", write_credentials(tmp_path / "s3.toml", USER))
    used = client._request_signer._credentials  # type: ignore[attr-defined]  # not public
    assert (used.access_key, used.secret_key, used.token) == ("THEACCESSKEY", "the-secret-key", None)
    assert client.meta.endpoint_url == "http://127.0.0.1:1"


def test_an_endpoint_that_is_no_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        make_client("not an address", "default", write_credentials(tmp_path / "s3.toml", USER))


def test_a_service_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    client = make_client(f"http://127.0.0.1:{free_port()}", "default", write_credentials(tmp_path / "s3.toml", USER))
    with pytest.raises(Unavailable):
        S3Store("blobs", client, tmp_path).has(sha256(b""))


def test_a_presigned_url_opens_one_blob_for_a_while_and_shows_no_secret(tmp_path: Path) -> None:
    client = make_client("https://s3.example", "default", write_credentials(tmp_path / "s3.toml", USER))
    digest = sha256(b"blob")
    url = S3Store("bucket", client, tmp_path / "local", "p/").presigned(digest, 600)
    assert url.startswith(f"https://s3.example/bucket/p/blobs/{digest[:2]}/{digest}?")
    assert "X-Amz-Expires=600" in url and "X-Amz-Signature=" in url
    assert USER.secret_key not in url


def test_a_sweep_ends_copies_within_the_bucket_that_a_crash_left_behind(tmp_path: Path) -> None:
    """These have no lock: one that began today may still run."""
    client = make_client("https://s3.example", "default", write_credentials(tmp_path / "s3.toml", USER))
    now = datetime.now(UTC)
    begun = {"old": now - timedelta(days=2), "new": now - timedelta(hours=1)}
    with Stubber(client) as service:
        for folder in ("blobs", "quarantine", "withheld", "probe"):
            prefix = f"p/{folder}/"
            found = [{"Key": f"{prefix}{name}", "UploadId": name, "Initiated": at} for name, at in begun.items()]
            asked = {"Bucket": "bucket", "Prefix": prefix}
            service.add_response("list_multipart_uploads", {"Uploads": found if folder != "blobs" else []}, asked)
            if folder != "blobs":
                aborted = {"Bucket": "bucket", "Key": f"{prefix}old", "UploadId": "old"}
                service.add_response("abort_multipart_upload", {}, aborted)
        service.add_response("list_objects_v2", {}, {"Bucket": "bucket", "Prefix": "p/unproven/"})
        S3Store("bucket", client, tmp_path / "local", "p/").sweep()
        service.assert_no_pending_responses()


def test_clients_share_the_descriptions_of_services_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = (USER, User("ANOTHERKEY", "another-secret"))
    files = [write_credentials(tmp_path / f"{user.access_key}.toml", user) for user in users]
    first = make_client("http://127.0.0.1:1", "default", files[0])
    monkeypatch.setattr(JSONFileLoader, "load_file", None)  # a description that is read again fails
    clients = (first, make_client("http://127.0.0.1:2", "default", files[1]))
    signed = [each.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"}) for each in clients]
    for url, port, user in zip(signed, (1, 2), users, strict=True):
        assert url.startswith(f"http://127.0.0.1:{port}/b/k?")
        assert f"X-Amz-Credential={user.access_key}%2F" in url
