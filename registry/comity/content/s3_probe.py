"""What a node finds out about its bucket at its start: whether the service does what it says.

    S3-OTHER-BYTES   an object, or one that was uploaded in parts, has other bytes than were sent: nothing can be stored
    S3-RANGE         a request for a part of an object gets something else: nothing can be served
    S3-STALE         a read or a listing does not have what was just written, or still has what was just deleted
    S3-OVERWRITES    a PUT that is to be done only if the object is new gets OK although the object is there

The store is correct on a service with the last two, which its operator should know of all the same: a listing says
which files are withheld and how many there are, and nothing but a conditional PUT can keep two nodes apart that were
given one prefix by mistake.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from comity.content.s3_client import s3_errors
from comity.trust.errors import ComityError, NotFound, Untrusted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectOutputTypeDef

_WHAT: Final = "the bucket cannot be relied on"
_SMALL: Final = 4096
_PART: Final = 5 * 1024 * 1024
"""The smallest part but the last that S3 accepts (Amazon S3, multipart upload limits)."""
_LEFT_BEHIND: Final = timedelta(hours=1)


class BucketProbe:
    """Objects of its own below `<prefix>probe/` in a bucket, which are deleted again; some 15 MB of traffic."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client, self._bucket, self._folder = client, bucket, f"{prefix}probe/"
        self._key = f"{self._folder}{secrets.token_hex(8)}"

    def run(self) -> tuple[ComityError, ...]:
        """Returns each of S3-STALE and S3-OVERWRITES that is so. Raises Untrusted with one of the other codes, and what
        `s3_errors` raises if the bucket cannot be used."""
        small, large = os.urandom(_SMALL), os.urandom(_PART + _SMALL)
        with s3_errors(f"the bucket {self._bucket} cannot be used"):
            self._remove_left_behind()
            try:
                found = [*self._new_object(small), *self._overwritten(), *self._deleted_object(), *self._parts(large)]
            finally:
                self._clean()
        by_code = {error.code: error for error in found}
        for code in ("S3-OTHER-BYTES", "S3-RANGE"):
            if code in by_code:
                raise by_code[code]
        return tuple(by_code.values())

    def _new_object(self, data: bytes) -> list[Untrusted]:
        self._client.put_object(Bucket=self._bucket, Key=self._key, Body=data)
        found = [*self._compared("an object", data), *self._range_compared(data)]
        if (self._key, len(data)) not in self._listed():
            found.append(_stale("a listing does not have what was just written"))
        return found

    def _compared(self, what: str, data: bytes) -> list[Untrusted]:
        try:
            with s3_errors(f"{what} was not read back"):
                found = self._read(self._client.get_object(Bucket=self._bucket, Key=self._key), len(data))
        except NotFound:
            return [_stale("a read does not find what was just written")]
        if found == data:
            return []
        return [Untrusted(_WHAT, why=f"{what} has other bytes than were sent", code="S3-OTHER-BYTES")]

    def _range_compared(self, data: bytes) -> list[Untrusted]:
        first, last = 100, 1099
        try:
            with s3_errors("a part of an object was not read"):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key, Range=f"bytes={first}-{last}")
        except NotFound:
            return []  # a lie that has its name
        said = answer.get("ContentRange", "").startswith(f"bytes {first}-{last}/")
        if said and self._read(answer, last - first + 1) == data[first : last + 1]:
            return []
        answer["Body"].close()
        return [Untrusted(_WHAT, why="a request for a part of an object gets something else", code="S3-RANGE")]

    def _overwritten(self) -> list[Untrusted]:
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._key, Body=b"overwritten", IfNoneMatch="*")
        except ClientError:  # it honours the condition, or says that it cannot: both are true answers
            return []
        why = "a PUT that was to be done only for a new object got OK although it was there"
        return [Untrusted(_WHAT, why=why, code="S3-OVERWRITES")]

    def _deleted_object(self) -> list[Untrusted]:
        self._client.delete_object(Bucket=self._bucket, Key=self._key)
        stale = []
        if any(key == self._key for key, _ in self._listed()):
            stale.append(_stale("a listing still has what was just deleted"))
        try:
            with s3_errors("a deleted object was looked up"):
                self._client.get_object(Bucket=self._bucket, Key=self._key)["Body"].close()
        except NotFound:
            pass
        else:
            stale.append(_stale("a read still finds what was just deleted"))
        return stale

    def _parts(self, data: bytes) -> list[Untrusted]:
        bucket, key = self._bucket, self._key
        upload = self._client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        parts: list[CompletedPartTypeDef] = []
        for number, part in enumerate((data[:_PART], data[_PART:]), 1):
            sent = self._client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part)
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        self._client.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )
        return self._compared("an object that was uploaded in parts", data)

    def _read(self, answer: GetObjectOutputTypeDef, length: int) -> bytes:
        """At most one byte more than `length`."""
        with closing(answer["Body"]) as body:
            return body.read(length + 1)

    def _listed(self) -> list[tuple[str, int]]:
        answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._folder)
        return [(item["Key"], item["Size"]) for item in answer.get("Contents", ())]

    def _remove_left_behind(self) -> None:
        """Delete the objects of probes that were killed."""
        for item in self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._folder).get("Contents", ()):
            if datetime.now(UTC) - item["LastModified"] > _LEFT_BEHIND:
                self._client.delete_object(Bucket=self._bucket, Key=item["Key"])

    def _clean(self) -> None:
        with contextlib.suppress(ComityError), s3_errors("the object of the probe was not deleted"):
            self._client.delete_object(Bucket=self._bucket, Key=self._key)  # else the next probe deletes it


def _stale(why: str) -> Untrusted:
    return Untrusted(_WHAT, why=why, code="S3-STALE")
