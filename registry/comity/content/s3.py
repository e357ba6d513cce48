"""How to reach an S3 service: endpoint, credentials, and what its refusals mean to us.

Blobs in an S3 bucket.

    <prefix>blobs/ab/abcd…        whole files named by their hash, so that writing one twice does no harm
    <prefix>quarantine/abcd….N    what turned out wrong, with abcd….N.reason beside it

    <local>/partial/abcd…         what a pull has so far
    <local>/uploading/abcd…       sent, but not read back yet: for everybody here the blob is absent

A service may store other bytes than it was sent and still answer OK; some do. So each upload is read back and hashed,
and what differs is deleted. Server-side checksums and conditional requests are not relied on. One prefix has one node.
"""

from __future__ import annotations

import contextlib
import hashlib
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from comity.content import durable, fault
from comity.content.blobs import CHUNK, MAX_READ, BlobLock, absent, check_range, check_source, lock_if_free, mismatch
from comity.content.durable import disk_errors
from comity.content.secrets import read_secret
from comity.trust.encoding import Digest, parse_digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, Refused, Unavailable, Untrusted

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client


_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL: Final = frozenset({"507", "InsufficientCapacity", "InsufficientStorage", "QuotaExceeded"})
_FORBIDDEN: Final = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


def open_client(endpoint: str, region: str, credentials: Path) -> S3Client:
    """A client for the service at `endpoint` with the keys in the file `credentials`, and no others.

    The file is private (mode 0600) TOML: `access_key = "…"` and `secret_key = "…"`. Nothing is sent yet. Checksums are
    left to us: services answer them in too many ways, and we hash what we read back. Raises Malformed, Refused,
    Unavailable.
    """
    access_key, secret_key = _parse_credentials(read_secret(credentials))
    config = Config(
        signature_version="s3v4",
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": 4},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    try:
        session = boto3.Session(access_key, secret_key, region_name=region)
        return session.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise Malformed("not an S3 service", why=str(error)) from error


@contextmanager
def s3_errors(what: str) -> Iterator[None]:
    """Turn the refusals of an S3 service into ours: NotFound (object), OutOfSpace, Refused (code S3-ACCESS), and
    Unavailable (code S3) for all else, network failures included. `what` says what did not happen."""
    try:
        yield
    except ClientError as error:
        raise _translate(what, error) from error
    except BotoCoreError as error:
        raise Unavailable(what, why=str(error), code="S3") from error


def error_code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _translate(what: str, error: ClientError) -> ComityError:
    code = error_code(error)
    if code in _ABSENT:
        return NotFound(what, why=str(error))
    if code in _FULL:
        return OutOfSpace(what, why=str(error), hint="raise the quota of the bucket's owner")
    if code in _FORBIDDEN:
        return Refused(what, why=str(error), code="S3-ACCESS")
    return Unavailable(what, why=str(error), code="S3")


def _parse_credentials(data: bytes) -> tuple[str, str]:
    try:
        fields = tomllib.loads(data.decode())
    except ValueError:
        fields = {}  # the reason would quote the secret
    match fields:
        case {"access_key": str(access_key), "secret_key": str(secret_key)}:
            return access_key, secret_key
    raise Malformed("S3 credentials are malformed", why='expected TOML: access_key = "…" and secret_key = "…"')


ConditionalPut: TypeAlias = Literal["honoured", "ignored", "refused"]

_PART: Final = 16 * 1024 * 1024  # the transfer makes it larger where a file would have more than 10,000
_TRANSFER: Final = TransferConfig(
    multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4, preferred_transfer_client="classic"
)


class S3Store:
    """A `BlobStore` in `bucket` below `prefix`; `local` is a folder of this node's own, created where it is missing.

    Files are sent in parts, four at a time, straight from the disk, and read back in chunks: memory does not grow with
    the blob. Beside what every store raises: Refused (code S3-ACCESS) where the service does not accept our keys.
    """

    def __init__(self, bucket: str, client: S3Client, local: Path, prefix: str = "") -> None:
        self._bucket, self._client, self._prefix = bucket, client, prefix
        self._partial, self._uploading = local / "partial", local / "uploading"
        with disk_errors(f"the blob store {local.name} was not opened"):
            durable.make_folders(self._partial)
            durable.make_folders(self._uploading)

    def probe(self) -> ConditionalPut:
        """Write, read and delete an object, and see what `If-None-Match: *` does: for the operator's eyes, since
        nothing relies on it. Raises Unavailable where the bucket does not do its work."""
        key = f"{self._prefix}probe"
        with s3_errors(f"bucket {self._bucket} cannot be used"):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=b"first")
            try:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=b"second", IfNoneMatch="*")
                found: ConditionalPut = "ignored"
            except ClientError as error:
                found = "honoured" if error_code(error) == "PreconditionFailed" else "refused"
            self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read(16)
            self._client.delete_object(Bucket=self._bucket, Key=key)
        return found

    def has(self, digest: Digest) -> bool:
        try:
            self.size(digest)
        except NotFound:
            return False
        return True

    def size(self, digest: Digest) -> int:
        if self._marker(digest).exists():
            raise absent(digest)
        try:
            with s3_errors(f"blob {digest} was not looked up"):
                return self._client.head_object(Bucket=self._bucket, Key=self._key(digest))["ContentLength"]
        except NotFound as error:
            raise absent(digest) from error

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        check_range(offset, length, MAX_READ)
        return b"".join(self.iterate(digest, offset, length))

    def iterate(self, digest: Digest, offset: int, length: int, chunk: int = CHUNK) -> Iterator[bytes]:
        check_range(offset, length)
        if self._marker(digest).exists():
            raise absent(digest)
        if not length:
            self.size(digest)
            return iter(())
        try:
            body = self._get(digest, offset, length)
        except NotFound as error:
            raise absent(digest) from error
        return _chunks(body, chunk) if body else iter(())

    def put(self, digest: Digest, data: bytes) -> None:
        if (found := sha256(data)) != parse_digest(digest):
            raise mismatch(digest, found)
        self._upload(digest, lambda key: self._client.put_object(Bucket=self._bucket, Key=key, Body=data))

    def admit(self, path: Path, digest: Digest, size: int, *, link: bool = False) -> None:
        def send(key: str) -> None:
            with create_transfer_manager(self._client, _TRANSFER) as manager:
                manager.upload(str(path), self._bucket, key).result()

        with disk_errors(f"blob {digest} was not taken in"):
            parse_digest(digest)
            check_source(path, size)
            self._upload(digest, send)
            if not link:
                path.unlink(missing_ok=True)

    def scratch(self, digest: Digest) -> Path:
        return self._partial / parse_digest(digest)

    def presigned(self, digest: Digest, seconds: int) -> str:
        """A URL at which the service gives this one blob to whoever has it, for so long. Made here: nothing is sent."""
        with s3_errors(f"no URL was made for blob {digest}"):
            wanted = {"Bucket": self._bucket, "Key": self._key(digest)}
            return self._client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)

    def quarantine(self, digest: Digest, reason: str) -> None:
        name, key = parse_digest(digest), self._key(digest)
        with s3_errors(f"blob {name} was not put aside"):
            taken = {key for key, _ in self._objects(f"{self._prefix}quarantine/{name}.")}
            aside = next(spot for n in count(1) if (spot := f"{self._prefix}quarantine/{name}.{n}") not in taken)
            try:
                self._client.copy({"Bucket": self._bucket, "Key": key}, self._bucket, aside, Config=_TRANSFER)
            except ClientError as error:
                if error_code(error) == "404":
                    return
                raise
            self._client.delete_object(Bucket=self._bucket, Key=key)
            self._client.put_object(Bucket=self._bucket, Key=f"{aside}.reason", Body=reason.encode() + b"\n")

    def quarantined(self) -> int:
        with s3_errors("what was put aside was not listed"):
            return sum(not key.endswith(".reason") for key, _ in self._objects(f"{self._prefix}quarantine/"))

    def remove(self, digest: Digest) -> None:
        key = self._key(digest)
        with s3_errors(f"blob {digest} was not removed"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def sizes(self) -> Iterator[tuple[Digest, int]]:
        with s3_errors("the blobs were not listed"):
            for key, size in self._objects(f"{self._prefix}blobs/"):
                digest = _digest_in(key)
                if digest and not self._marker(digest).exists():
                    yield digest, size

    def verify(self, digest: Digest) -> bool:
        self.size(digest)
        return self._is_right(digest)

    def sweep(self) -> None:
        with disk_errors("the blob store was not swept"), s3_errors("the blob store was not swept"):
            for digest, key, upload in list(self._unfinished()):
                with lock_if_free(self._uploading, digest) as free:
                    if free:
                        self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
            for digest in [found for path in self._uploading.iterdir() if (found := _digest_in(path.name))]:
                with lock_if_free(self._uploading, digest) as free:
                    if free:
                        self._settle(digest)

    def free_bytes(self) -> int | None:
        return None

    def _key(self, digest: Digest) -> str:
        name = parse_digest(digest)
        return f"{self._prefix}blobs/{name[:2]}/{name}"

    def _marker(self, digest: Digest) -> Path:
        return self._uploading / parse_digest(digest)

    def _upload(self, digest: Digest, send: Callable[[str], object]) -> None:
        with BlobLock(self._uploading, digest), s3_errors(f"blob {digest} was not uploaded"):
            if self.has(digest):
                return
            with disk_errors(f"blob {digest} was not uploaded"):
                self._marker(digest).touch()
                durable.sync(self._uploading, point="blob.marker")
            fault.point("blob.upload")
            send(self._key(digest))
            fault.point("blob.readback")
            if not self._settle(digest):
                raise Untrusted(
                    f"blob {digest} was not uploaded",
                    why="the service returned other bytes than it was sent",
                    code="HASH",
                )
            fault.point("blob.done")

    def _settle(self, digest: Digest) -> bool:
        """Read an upload back; keep it if it is right, else delete it. Whether it was right."""
        right = self._is_right(digest)
        if not right:
            self.remove(digest)
        with disk_errors(f"blob {digest} was not settled"):
            self._marker(digest).unlink()
        return right

    def _is_right(self, digest: Digest) -> bool:
        hasher = hashlib.sha256()
        try:
            with s3_errors(f"blob {digest} was not read back"):
                body = self._client.get_object(Bucket=self._bucket, Key=self._key(digest))["Body"]
                for chunk in _chunks(body, CHUNK):
                    hasher.update(chunk)
        except NotFound:
            return False
        return hasher.hexdigest() == parse_digest(digest)

    def _get(self, digest: Digest, offset: int, length: int) -> StreamingBody | None:
        """The body of a range that is not empty; None where the blob ends before it."""
        wanted = f"bytes={offset}-{offset + length - 1}"
        with s3_errors(f"blob {digest} was not read"):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(digest), Range=wanted)
            except ClientError as error:
                if error_code(error) == "InvalidRange":
                    return None
                raise
        if answer["ContentLength"] > length or not answer.get("ContentRange", "").startswith(f"bytes {offset}-"):
            answer["Body"].close()
            raise Unavailable(f"blob {digest} was not read", why="the service ignored the range", code="S3-RANGE")
        return answer["Body"]

    def _objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The keys that begin so, and the lengths of what they name."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            yield from ((item["Key"], item["Size"]) for item in page.get("Contents", ()))

    def _unfinished(self) -> Iterator[tuple[Digest, str, str]]:
        pages = self._client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}blobs/"):
            for upload in page.get("Uploads", ()):
                if digest := _digest_in(upload["Key"]):
                    yield digest, upload["Key"], upload["UploadId"]


def _chunks(body: StreamingBody, chunk: int) -> Iterator[bytes]:
    with s3_errors("the service broke off"), contextlib.closing(body):
        yield from body.iter_chunks(chunk)


def _digest_in(key: str) -> Digest | None:
    """The digest a key or file name ends in; an object that has none is somebody else's business."""
    try:
        return parse_digest(key.rpartition("/")[2])
    except Malformed:
        return None
