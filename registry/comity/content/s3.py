"""A blob store in an S3 bucket.

    <prefix>blobs/ab/abcd…        whole files named by their hash; writing one twice does no harm
    <prefix>quarantine/abcd….N    damaged blobs, each with abcd….N.reason beside it
    <prefix>withheld/<artifact>/abcd…   blobs that the operator took out of service (`withheld`)

    <prefix>unproven/…            marks of blobs that are being uploaded, for other machines (`s3_marks`)

    <local>/partial/abcd…         the partial file of a pull
    <local>/uploading/abcd…       uploaded but not yet verified; the blob counts as absent. The record of its upload

A service may store other bytes than it received and still answer OK; some do. Each upload is therefore read back and
hashed, and deleted if it differs. Server-side checksums and conditional requests are not relied on. Only one node may
use a prefix.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from comity.content import durable, fault
from comity.content.blobs import (
    CHUNK,
    MAX_READ,
    BlobLock,
    blob_not_found,
    check_objects,
    check_range,
    check_source,
    lock_if_free,
)
from comity.content.durable import disk_errors
from comity.content.s3_client import error_code, s3_errors
from comity.content.s3_marks import Mark, Marks, is_old
from comity.content.s3_probe import BucketProbe
from comity.content.s3_upload import PART, PARTS_AT_ONCE, FileUpload, abort, read_record
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CopySourceTypeDef


_PUTS_AT_ONCE: Final = 8
_COPY_TIME: Final = timedelta(days=1)
"""After which a copy that the service makes within the bucket, or a probe, counts as left behind by a crash."""

_KEPT_SECONDS: Final = 7 * 86_400
"""After which an upload that was not continued is ended."""
_COPY: Final = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=PARTS_AT_ONCE)


class S3Store:
    """A `BlobStore` in `bucket` below `prefix`; `local` is a folder of this node only, created if missing.

    Files are uploaded in parts, some at a time, from disk, and read back in chunks: memory does not grow with the blob.
    An upload that a crash or an outage ended goes on where it was when the same blob is admitted again.
    Also raises Refused (code S3-ACCESS) if the service does not accept the keys.
    """

    def __init__(self, bucket: str, client: S3Client, local: Path, prefix: str = "") -> None:
        self._bucket, self._client, self._prefix = bucket, client, prefix
        self._marks = Marks(client, bucket, prefix)
        self._partial, self._uploading = local / "partial", local / "uploading"
        with disk_errors(f"the blob store {local.name} was not opened"):
            durable.make_folders(self._partial)
            durable.make_folders(self._uploading)

    def probe(self) -> tuple[ComityError, ...]:
        return BucketProbe(self._client, self._bucket, self._prefix).run()

    def has(self, digest: Digest) -> bool:
        try:
            self.size(digest)
        except NotFound:
            return False
        return True

    def size(self, digest: Digest) -> int:
        found = None if self._is_unproven(digest) else self._stored_size(digest)
        if found is None:
            raise blob_not_found(digest)
        return found

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        check_range(offset, length, MAX_READ)
        return b"".join(self.iterate(digest, offset, length))

    def iterate(self, digest: Digest, offset: int, length: int, chunk: int = CHUNK) -> Iterator[bytes]:
        check_range(offset, length)
        if self._is_unproven(digest):
            raise blob_not_found(digest)
        if not length:
            self.size(digest)
            return iter(())
        try:
            body = self._get(digest, offset, length)
        except NotFound as error:
            raise blob_not_found(digest) from error
        return _chunks(body, chunk) if body else iter(())

    def put(self, digest: Digest, data: bytes) -> None:
        self.put_all({digest: data})

    def put_all(self, objects: Mapping[Digest, bytes]) -> None:
        check_objects(objects)
        if not objects:
            return
        with self._marks.marking(objects) as mark:

            def put(digest: Digest, data: bytes) -> None:
                self._upload(digest, lambda key: self._client.put_object(Bucket=self._bucket, Key=key, Body=data), mark)

            with ThreadPoolExecutor(min(_PUTS_AT_ONCE, len(objects)), thread_name_prefix="put") as threads:
                list(threads.map(put, objects.keys(), objects.values()))
        fault.point("blob.done")

    def admit(self, path: Path, digest: Digest, size: int, *, link: bool = False) -> None:
        def send(key: str) -> None:
            FileUpload(self._client, self._bucket, key, path, self._marker(digest)).send()

        with disk_errors(f"blob {digest} was not admitted"):
            parse_digest(digest)
            check_source(path, size)
            self._upload_one(digest, send)
            if not link:
                path.unlink(missing_ok=True)

    def partial_path(self, digest: Digest) -> Path:
        return self._partial / parse_digest(digest)

    def presigned(self, digest: Digest, seconds: int) -> str:
        """A URL that lets any holder read this one blob for so many seconds. Computed locally; no request is sent."""
        with s3_errors(f"no URL was made for blob {digest}"):
            wanted = {"Bucket": self._bucket, "Key": self.key(digest)}
            return self._client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)

    def quarantine(self, digest: Digest, reason: str) -> None:
        name, key = parse_digest(digest), self.key(digest)
        with s3_errors(f"blob {name} was not moved to quarantine"):
            taken = {key for key, _ in self.objects(f"{self._prefix}quarantine/{name}.")}
            target = next(spot for n in count(1) if (spot := f"{self._prefix}quarantine/{name}.{n}") not in taken)
            try:
                self._client.copy({"Bucket": self._bucket, "Key": key}, self._bucket, target, Config=_COPY)
            except ClientError as error:
                if error_code(error) == "404":
                    return
                raise
            self._client.delete_object(Bucket=self._bucket, Key=key)
            self._client.put_object(Bucket=self._bucket, Key=f"{target}.reason", Body=reason.encode() + b"\n")

    def quarantined(self) -> int:
        with s3_errors("the quarantine was not listed"):
            return sum(not key.endswith(".reason") for key, _ in self.objects(f"{self._prefix}quarantine/"))

    def remove(self, digest: Digest) -> None:
        key = self.key(digest)
        with s3_errors(f"blob {digest} was not removed"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def withheld(self) -> WithheldObjects:
        return WithheldObjects(self, self._bucket, self._client, f"{self._prefix}withheld/")

    def adopt(self, digest: Digest, key: str) -> None:
        """Copy the object `key` of this bucket into the store, if its bytes hash to `digest`. Raises NotFound, and
        Untrusted if they do not."""
        source: CopySourceTypeDef = {"Bucket": self._bucket, "Key": key}
        self._upload_one(digest, lambda target: self._client.copy(source, self._bucket, target, Config=_COPY))

    def sizes(self, after: str = "") -> Iterator[tuple[Digest, int]]:
        with s3_errors("the blobs were not listed"):
            for key, size in self.objects(f"{self._prefix}blobs/"):
                digest = _digest_in(key)
                if digest and digest > after and not self._is_unproven(digest):
                    yield digest, size

    def verify(self, digest: Digest) -> bool:
        self.size(digest)
        return self._hash_matches(digest)

    def sweep(self) -> None:
        with disk_errors("the blob store was not swept"), s3_errors("the blob store was not swept"):
            for key, upload, _ in list(self._unfinished_uploads("blobs")):
                if digest := _digest_in(key):
                    with lock_if_free(self._uploading, digest) as free:
                        if free and upload != self._kept_upload(digest):
                            abort(self._client, self._bucket, key, upload)
            for folder in ("quarantine", "withheld", "probe"):
                for key, upload, begun in list(self._unfinished_uploads(folder)):
                    if datetime.now(UTC) - begun > _COPY_TIME:
                        abort(self._client, self._bucket, key, upload)
            for digest in [found for path in self._uploading.iterdir() if (found := _digest_in(path.name))]:
                with lock_if_free(self._uploading, digest) as free:
                    if free and not (self._kept_upload(digest) and self._stored_size(digest) is None):
                        self._verify_upload(digest)
            for key, (at, digests) in self._marks.left().items():
                settled = [self._is_settled(digest, at) for digest in digests]
                if all(settled):
                    self._marks.remove(key)

    def free_bytes(self) -> int | None:
        return None

    def key(self, digest: Digest) -> str:
        """The key of the object of a blob, present or not."""
        name = parse_digest(digest)
        return f"{self._prefix}blobs/{name[:2]}/{name}"

    def _marker(self, digest: Digest) -> Path:
        return self._uploading / parse_digest(digest)

    def _is_unproven(self, digest: Digest) -> bool:
        """Whether an object of the blob, if there is one, was not read back yet, here or on another machine."""
        return self._marker(digest).exists() or self._marks.has(digest)

    def _is_settled(self, digest: Digest, at: datetime) -> bool:
        """Read back what another process marked `at` then, if it is there. Returns whether its mark has done for it."""
        with lock_if_free(self._uploading, digest) as free:
            if not free:
                return False
            if self._stored_size(digest) is None:
                return is_old(at)
            if self._is_unproven(digest):
                self._verify_upload(digest)
            return True

    def _kept_upload(self, digest: Digest) -> str:
        """The id of the upload of a blob that can go on; empty if there is none, or none that is young."""
        marker = self._marker(digest)
        upload = read_record(marker)
        return upload.id if upload and time.time() - marker.stat().st_mtime < _KEPT_SECONDS else ""

    def _stored_size(self, digest: Digest) -> int | None:
        """The length of the object of a blob, verified or not; None if there is none."""
        try:
            with s3_errors(f"blob {digest} was not looked up"):
                return self._client.head_object(Bucket=self._bucket, Key=self.key(digest))["ContentLength"]
        except NotFound:
            return None

    def _upload_one(self, digest: Digest, send: Callable[[str], object]) -> None:
        with self._marks.marking((digest,)) as mark:
            self._upload(digest, send, mark)
        fault.point("blob.done")

    def _upload(self, digest: Digest, send: Callable[[str], object], mark: Mark) -> None:
        with BlobLock(self._uploading, digest), s3_errors(f"blob {digest} was not uploaded"):
            if self.has(digest):
                return
            marker = self._marker(digest)
            if self._is_unproven(digest) and self._stored_size(digest) is not None and self._verify_upload(digest):
                return  # the process that uploaded it ended before it was read back
            mark.set()
            with disk_errors(f"blob {digest} was not uploaded"):
                marker.touch()
                durable.sync(self._uploading, point="blob.marker")
            fault.point("blob.upload")
            send(self.key(digest))
            fault.point("blob.readback")
            if not self._verify_upload(digest):
                raise Untrusted(
                    f"blob {digest} was not uploaded",
                    why="the service returned other bytes than were sent",
                    code="HASH",
                )

    def _verify_upload(self, digest: Digest) -> bool:
        """Read an upload back and delete it if its hash does not match. Returns whether it matched."""
        matches = self._hash_matches(digest)
        if not matches:
            self.remove(digest)
        with disk_errors(f"the upload marker of blob {digest} was not removed"):
            self._marker(digest).unlink(missing_ok=True)
        self._marks.settle(digest)
        return matches

    def _hash_matches(self, digest: Digest) -> bool:
        hasher = hashlib.sha256()
        try:
            with s3_errors(f"blob {digest} was not read back"):
                body = self._client.get_object(Bucket=self._bucket, Key=self.key(digest))["Body"]
                for chunk in _chunks(body, CHUNK):
                    hasher.update(chunk)
        except NotFound:
            return False
        return hasher.hexdigest() == parse_digest(digest)

    def _get(self, digest: Digest, offset: int, length: int) -> StreamingBody | None:
        """The body of a non-empty range; None if the blob ends before it."""
        wanted = f"bytes={offset}-{offset + length - 1}"
        with s3_errors(f"blob {digest} was not read"):
            try:
                response = self._client.get_object(Bucket=self._bucket, Key=self.key(digest), Range=wanted)
            except ClientError as error:
                if error_code(error) == "InvalidRange":
                    return None
                raise
        if response["ContentLength"] > length or not response.get("ContentRange", "").startswith(f"bytes {offset}-"):
            response["Body"].close()
            raise Unavailable(f"blob {digest} was not read", why="the service ignored the range", code="S3-RANGE")
        return response["Body"]

    def objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys and sizes of the objects of the bucket whose key begins with `prefix`. Raises what the client raises."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            yield from ((item["Key"], item["Size"]) for item in page.get("Contents", ()))

    def _unfinished_uploads(self, folder: str) -> Iterator[tuple[str, str, datetime]]:
        """The key, the id and the begin of each, below the prefix `folder`."""
        pages = self._client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"):
            for upload in page.get("Uploads", ()):
                yield upload["Key"], upload["UploadId"], upload["Initiated"]


class WithheldObjects:
    """Implements `WithheldBlobs` in a bucket, below `prefix`. The service copies; no byte passes through this machine,
    but what is put back is read and hashed like every upload.

    A blob counts as withheld from the copy on, and the store loses it by the deletion that follows. A crash between the
    two leaves both, and either direction can be finished from there.
    """

    def __init__(self, store: S3Store, bucket: str, client: S3Client, prefix: str) -> None:
        self._store, self._bucket, self._client, self._prefix = store, bucket, client, prefix

    def artifacts(self) -> list[Digest]:
        """Of the objects, not of the folders that a service names: some name one for a while after its last object."""
        with s3_errors("the withheld blobs were not listed"):
            folders = {key.rpartition("/")[0] for key, _ in self._store.objects(self._prefix)}
        return sorted(digest for folder in folders if (digest := _digest_in(folder)))

    def take(self, artifact: Digest, digest: Digest) -> int:
        try:
            size = self._store.size(digest)
        except NotFound:
            return 0
        with s3_errors(f"blob {digest} was not taken aside"):
            source: CopySourceTypeDef = {"Bucket": self._bucket, "Key": self._store.key(digest)}
            target = self._key(artifact, digest)
            fault.point("withhold.copy")
            self._client.copy(source, self._bucket, target, Config=_COPY)
            if self._client.head_object(Bucket=self._bucket, Key=target)["ContentLength"] != size:
                why = "the copy that the service made has another size"
                raise Unavailable(f"blob {digest} was not taken aside", why=why, code="S3")
            fault.point("withhold.delete")
            self._store.remove(digest)
        return size

    def give_back(self, artifact: Digest) -> None:
        for digest in self.files(artifact):
            key = self._key(artifact, digest)
            self._store.adopt(digest, key)
            fault.point("withhold.back")
            self._delete(key)

    def erase(self, artifact: Digest) -> None:
        for digest in self.files(artifact):
            self._delete(self._key(artifact, digest))

    def read(self, artifact: Digest, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        check_range(offset, length)
        if not length:
            return iter(())
        with s3_errors(f"withheld blob {digest} was not read"):
            wanted = f"bytes={offset}-{offset + length - 1}"
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(artifact, digest), Range=wanted)
        return _chunks(found["Body"], CHUNK)

    def files(self, artifact: Digest) -> list[Digest]:
        with s3_errors(f"the withheld blobs of {artifact} were not listed"):
            keys = [key for key, _ in self._store.objects(f"{self._prefix}{parse_digest(artifact)}/")]
        return [digest for key in keys if (digest := _digest_in(key))]

    def _delete(self, key: str) -> None:
        with s3_errors("a withheld blob was not deleted"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def _key(self, artifact: Digest, digest: Digest) -> str:
        return f"{self._prefix}{parse_digest(artifact)}/{parse_digest(digest)}"


def _chunks(body: StreamingBody, chunk: int) -> Iterator[bytes]:
    with s3_errors("the service interrupted its answer"), contextlib.closing(body):
        yield from body.iter_chunks(chunk)


def _digest_in(key: str) -> Digest | None:
    """The digest at the end of a key or file name; None if there is none, for an object that is not ours."""
    try:
        return parse_digest(key.rpartition("/")[2])
    except Malformed:
        return None
