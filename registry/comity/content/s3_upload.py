"""Uploads of files to an S3 service in parts, which a later process continues.

Parts are sent some at a time, each from the disk: memory does not grow with the file. A small synced file on the node's
own disk, the record of the upload, names it at the service. After a crash the parts that are there are compared with
the file, by length and MD5, which is the ETag of a part at most services (Amazon S3 API, UploadPart); others are sent
again. A part with a false ETag does no harm beyond this one upload, which is read back and hashed as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.content import fault
from comity.content.blobs import CHUNK
from comity.content.durable import disk_errors
from comity.content.s3_client import s3_errors
from comity.formats.source import RangeFile
from comity.trust.errors import NotFound, OutOfSpace, Unavailable
from comity.trust.frozen import frozen

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART: Final = 16 * 1024 * 1024
"""Bytes of a part; more where a file would have more than `MAX_PARTS` of them."""
MAX_PARTS: Final = 10_000
"""Of one upload (Amazon S3, multipart upload limits)."""
PARTS_AT_ONCE: Final = 4


@frozen
class Upload:
    """An upload that was begun at the service. The last part has the rest of the file, others `part` bytes."""

    id: str
    part: int


def read_record(path: Path) -> Upload | None:
    """The upload that the record names; None if there is no record, or it names none. Raises Unavailable."""
    with disk_errors(f"{path.name} was not read"):
        try:
            fields = json.loads(path.read_bytes() or b"{}")
        except (FileNotFoundError, ValueError):
            return None
    match fields:
        case {"upload": str(name), "part": int(part)} if part > 0:
            return Upload(name, part)
    return None


class FileUpload:
    """The upload of the file `path` to `key` in `bucket`. Only one process at a time uses the file `record`, which
    exists. Raises OSError."""

    def __init__(self, client: S3Client, bucket: str, key: str, path: Path, record: Path) -> None:
        self._client, self._bucket, self._key, self._path, self._record = client, bucket, key, path, record
        self._size = path.stat().st_size

    def send(self) -> None:
        """Send the file, or what an earlier upload of the same bytes did not. What is there stays for the next one,
        unless the service has no space. Raises ComityError and OSError."""
        if self._size <= PART:
            with self._path.open("rb") as body, s3_errors(f"{self._key} was not sent"):
                self._client.put_object(Bucket=self._bucket, Key=self._key, Body=body)
            return
        upload, there = self._begun()
        try:
            self._complete(upload, self._send_parts(upload, there))
        except OutOfSpace:
            abort(self._client, self._bucket, self._key, upload.id)
            raise
        except NotFound as error:
            raise Unavailable(error.what, why="another program ended the upload", code="S3") from error

    def _begun(self) -> tuple[Upload, dict[int, tuple[int, str]]]:
        """The upload, and the length and MD5 that the service says of each part that it has."""
        if upload := read_record(self._record):
            there = self._parts(upload)
            if there is not None:
                return upload, there
        with s3_errors(f"the upload of {self._key} was not begun"):
            begun = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._key)["UploadId"]
        upload = Upload(begun, max(PART, -(-self._size // MAX_PARTS)))
        self._record.write_text(json.dumps({"upload": upload.id, "part": upload.part}))
        return upload, {}

    def _parts(self, upload: Upload) -> dict[int, tuple[int, str]] | None:
        """None if the service has no such upload: it was completed or aborted."""
        try:
            with s3_errors(f"the parts of {self._key} were not listed"):
                pages = self._client.get_paginator("list_parts")
                return {
                    part["PartNumber"]: (part["Size"], part["ETag"].strip('"'))
                    for page in pages.paginate(Bucket=self._bucket, Key=self._key, UploadId=upload.id)
                    for part in page.get("Parts", ())
                }
        except NotFound:
            return None

    def _send_parts(self, upload: Upload, there: Mapping[int, tuple[int, str]]) -> list[CompletedPartTypeDef]:
        numbers = range(1, -(-self._size // upload.part) + 1)
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="part") as threads:
            jobs = [threads.submit(partial(self._send_part, upload, number, there.get(number))) for number in numbers]
            try:
                return [{"PartNumber": number, "ETag": job.result()} for number, job in zip(numbers, jobs, strict=True)]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _send_part(self, upload: Upload, number: int, there: tuple[int, str] | None) -> str:
        """The ETag of the part, which is sent unless it is there."""
        start = (number - 1) * upload.part
        length = min(upload.part, self._size - start)
        if there is not None and there == (length, self._md5(start, length)):
            return there[1]
        with self._opened(start, length) as body, s3_errors(f"part {number} of {self._key} was not sent"):
            sent = self._client.upload_part(
                Bucket=self._bucket, Key=self._key, UploadId=upload.id, PartNumber=number, Body=body
            )
        os.utime(self._record)  # its age is that of the newest part
        fault.point("blob.part")
        return sent["ETag"]

    def _md5(self, start: int, length: int) -> str:
        with self._opened(start, length) as part:
            return hashlib.file_digest(part, partial(hashlib.md5, usedforsecurity=False)).hexdigest()

    @contextmanager
    def _opened(self, start: int, length: int) -> Iterator[BufferedReader[RangeFile]]:
        """A part of the file as a file."""
        with self._path.open("rb") as file:
            read = RangeFile(lambda offset, count: os.pread(file.fileno(), count, start + offset), length)
            yield BufferedReader(read, CHUNK)

    def _complete(self, upload: Upload, parts: list[CompletedPartTypeDef]) -> None:
        with s3_errors(f"the upload of {self._key} was not completed"):
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=self._key, UploadId=upload.id, MultipartUpload={"Parts": parts}
            )


def abort(client: S3Client, bucket: str, key: str, upload: str) -> None:
    """End an upload; the service forgets its parts. Nothing happens if there is none."""
    try:
        with s3_errors(f"the upload of {key} was not ended"):
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    except NotFound:
        pass
