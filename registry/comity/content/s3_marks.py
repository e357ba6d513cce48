"""Marks in a bucket for blobs that are being uploaded, so that a process on another machine knows them too.

    <prefix>unproven/<random>   lines, the digests of blobs whose objects, where there are any, were not read back yet

A mark is written before the first object of its blobs, and deleted when all of them were read back. One that a process
left behind is found by the next one, when it first uses the bucket.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from comity.content.s3_client import s3_errors
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import Malformed, NotFound, OutOfSpace, Untrusted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_MARK: Final = 1 << 20
"""Bytes of a mark that are read: more than all digests of one call have."""
KEPT: Final = timedelta(days=7)
"""A mark whose blobs never came is kept so long: a writer that was frozen may still send one."""


class Mark:
    """The mark of some blobs, written at the first call of `set`."""

    def __init__(self, client: S3Client, bucket: str, key: str, digests: Collection[Digest]) -> None:
        self._client, self._bucket, self._key, self._digests = client, bucket, key, digests
        self._lock, self._is_set = threading.Lock(), False

    def set(self) -> None:
        with self._lock:
            if not self._is_set:
                body = "".join(f"{digest}\n" for digest in self._digests).encode()
                self._client.put_object(Bucket=self._bucket, Key=self._key, Body=body)
                self._is_set = True

    def clear(self) -> None:
        if self._is_set:
            self._client.delete_object(Bucket=self._bucket, Key=self._key)


class Marks:
    """The marks below `prefix` of a bucket. Raises what `s3_errors` raises."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client, self._bucket, self._folder = client, bucket, f"{prefix}unproven/"
        self._lock = threading.Lock()
        self._own, self._seen = set[str](), set[str]()
        """Keys of the marks of running uploads, and of those that other processes left."""
        self._left: dict[Digest, set[str]] | None = None
        """Blobs that others left unproven, and the keys of their marks; None before they were looked for."""

    @contextmanager
    def marking(self, digests: Collection[Digest]) -> Iterator[Mark]:
        """A mark that is cleared at the end of the block. It stays where the block failed and the service may have an
        object that was not read back: other than for want of space, or by an object that was deleted for its bytes."""
        key = f"{self._folder}{secrets.token_hex(16)}"
        mark = Mark(self._client, self._bucket, key, digests)
        self._own.add(key)
        try:
            yield mark
            self._clear(mark)
        except (OutOfSpace, Untrusted):
            if len(digests) == 1:
                self._clear(mark)
            raise
        finally:
            self._own.discard(key)

    def has(self, digest: Digest) -> bool:
        """Whether another process left a mark of this blob, which is still there."""
        with self._lock:
            keys = tuple(self._found().get(digest, ()))
        return any(self._is_there(digest, key) for key in keys)

    def settle(self, digest: Digest) -> None:
        """The object of this blob was read back here, and deleted if it had other bytes: no mark that was found counts
        for it any more. Those that have no other blob are deleted."""
        with self._lock:
            left = self._found()
            keys = left.pop(digest, set())
            done = keys.difference(*left.values())
        for key in done:
            self.remove(key)

    def left(self) -> dict[str, tuple[datetime, list[Digest]]]:
        """The marks that other processes left, by their key: when, and of which blobs."""
        with self._lock:
            return self._look()

    def remove(self, key: str) -> None:
        with s3_errors("a mark was not deleted"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def _found(self) -> dict[Digest, set[str]]:
        """The lock is held."""
        if self._left is None:
            self._look()
        return self._left or {}

    def _look(self) -> dict[str, tuple[datetime, list[Digest]]]:
        with s3_errors("the marks were not listed"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._folder)
            listed = [(item["Key"], item["LastModified"]) for page in pages for item in page.get("Contents", ())]
        found = {key: (at, self._digests(key)) for key, at in listed if key not in self._own}
        left = self._left or {}
        for key in found.keys() - self._seen:
            for digest in found[key][1]:
                left.setdefault(digest, set()).add(key)
        self._seen |= found.keys()
        self._left = left
        return found

    def _is_there(self, digest: Digest, key: str) -> bool:
        try:
            with s3_errors("a mark was not looked up"):
                self._client.head_object(Bucket=self._bucket, Key=key)
        except NotFound:
            with self._lock:
                self._found().get(digest, set()).discard(key)
            return False
        return True

    def _digests(self, key: str) -> list[Digest]:
        """Of a mark; none if it has gone meanwhile."""
        try:
            with s3_errors("a mark was not read"):
                body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
                with body:
                    lines = body.read(MAX_MARK).decode("ascii", "replace").split()
        except NotFound:
            return []
        return [digest for line in lines if (digest := _digest(line))]

    def _clear(self, mark: Mark) -> None:
        with s3_errors("a mark was not deleted"):
            mark.clear()


def is_old(at: datetime) -> bool:
    """Whether nobody waits for the blobs of a mark any more."""
    return datetime.now(UTC) - at > KEPT


def _digest(line: str) -> Digest | None:
    try:
        return parse_digest(line)
    except Malformed:
        return None
