"""The check of `comity doctor` on a bucket: whether it answers, takes the keys of the node, and does what it says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from comity.node.home_files import bucket_client
from comity.node.maintenance.home_checks import Diagnosis, ExaminedNode
from comity.trust.errors import ComityError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comity.node.settings import S3

TOPIC: Final = "bucket"


def check_bucket(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The bucket passes the probe of a node's start. A front end, whose keys may only read, is checked by reading."""
    s3 = node.config.storage.s3
    if s3 is None:
        return
    try:
        client = bucket_client(s3, patient=False)
        yield from _read(client, s3) if node.config.is_front_end else _probed(client, s3)
    except ComityError as error:
        yield Diagnosis.of(TOPIC, error, fix=_fix(error, s3))


def _probed(client: S3Client, s3: S3) -> Iterator[Diagnosis]:
    from comity.content.s3_probe import BucketProbe

    found = BucketProbe(client, s3.bucket, s3.prefix).run()
    yield from (Diagnosis.of(TOPIC, lie, level="warn") for lie in found)
    if not found:
        text = "objects were written, also in parts, read, listed and deleted in"
        yield Diagnosis(TOPIC, "ok", f"{text} {s3.bucket} at {s3.endpoint}")


def _read(client: S3Client, s3: S3) -> Iterator[Diagnosis]:
    from comity.content.s3_client import s3_errors

    with s3_errors(f"the bucket {s3.bucket} cannot be read"):
        listed = client.list_objects_v2(Bucket=s3.bucket, Prefix=f"{s3.prefix}blobs/", MaxKeys=1).get("Contents", ())
        for item in listed:
            client.head_object(Bucket=s3.bucket, Key=item["Key"])
    where = f"{s3.bucket} at {s3.endpoint}"
    if listed:
        text = f"{where} lists files, and lets this front end read one; only its writer tests the rest"
        yield Diagnosis(TOPIC, "ok", text)
    else:
        yield Diagnosis(TOPIC, "unknown", f"{where} answers, and has no file to read yet")


def _fix(error: ComityError, s3: S3) -> str:
    if error.code != "S3":
        return ""
    return (
        f"curl -sS {shlex.quote(s3.endpoint)}   shows whether this machine reaches the service; see that it has the "
        f"bucket {s3.bucket}, and endpoint and bucket in [storage.s3]"
    )
