"""The client of an S3 service: its keys, and its errors as ours."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader
from botocore.session import get_session

from comity.content.secrets import read_secret
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, Refused, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})
_FULL: Final = frozenset({"507", "InsufficientCapacity", "InsufficientStorage", "QuotaExceeded"})
_FORBIDDEN: Final = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


ATTEMPTS: Final = 4
"""Of each request, while the service does not answer."""


def make_client(endpoint: str, region: str, credentials: Path, *, attempts: int = ATTEMPTS) -> S3Client:
    """A client for the service at `endpoint` with the keys in the file `credentials` only.

    The file is private (mode 0600) TOML: `access_key = "…"` and `secret_key = "…"`. Nothing is sent yet. Checksums of
    the protocol are off: services handle them differently, and uploads are read back and hashed. Raises Malformed,
    Refused, Unavailable.
    """
    access_key, secret_key = _parse_credentials(read_secret(credentials))
    config = Config(
        signature_version="s3v4",
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": attempts},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    try:
        inner = get_session()
        inner.register_component("data_loader", _descriptions())
        session = boto3.Session(access_key, secret_key, region_name=region, botocore_session=inner)
        return session.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise Malformed("the S3 configuration is invalid", why=str(error)) from error


@functools.cache
def _descriptions() -> Loader:
    """What reads botocore's descriptions of services, and keeps them: a session of its own for each client would parse
    those of S3 again, in a tenth of a second. It knows no keys."""
    loader: Loader = get_session().get_component("data_loader")
    return loader


@contextmanager
def s3_errors(what: str) -> Iterator[None]:
    """Translate errors of an S3 service: NotFound (object or upload), OutOfSpace, Refused (code S3-ACCESS), else
    Unavailable (code S3), network failures included. `what` names the operation that failed."""
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
        return OutOfSpace(what, why=str(error), hint="raise the bucket owner's quota")
    if code in _FORBIDDEN:
        return Refused(what, why=str(error), code="S3-ACCESS")
    return Unavailable(what, why=str(error), code="S3")


def _parse_credentials(data: bytes) -> tuple[str, str]:
    try:
        fields = tomllib.loads(data.decode())
    except ValueError:
        fields = {}  # the parser's error would quote the secret
    match fields:
        case {"access_key": str(access_key), "secret_key": str(secret_key)}:
            return access_key, secret_key
    raise Malformed("S3 credentials are malformed", why='expected TOML: access_key = "…" and secret_key = "…"')
