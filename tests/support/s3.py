"""An account with a real S3 service, and stores in its bucket."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from comity.content.s3 import S3Store
from comity.content.s3_client import make_client
from support.ceph import User
from support.federation import NodeHome

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3Account:
    """One user's keys, in a file as a node keeps them, and an existing bucket."""

    endpoint: str
    credentials: Path
    bucket: str

    @classmethod
    def open(cls, endpoint: str, user: User, folder: Path, bucket: str) -> S3Account:
        credentials = write_credentials(folder / f"{bucket}.toml", user)
        account = cls(endpoint, credentials, bucket)
        account.client().create_bucket(Bucket=bucket)
        return account

    def client(self, endpoint: str | None = None) -> S3Client:
        return _client(endpoint or self.endpoint, self.credentials)

    def store(self, local: Path, *, prefix: str | None = None, endpoint: str | None = None) -> S3Store:
        """A store below a prefix of its own, unless a prefix is given."""
        return S3Store(self.bucket, self.client(endpoint), local, prefix or f"{uuid.uuid4()}/")


@cache
def _client(endpoint: str, credentials: Path) -> S3Client:
    """Making one takes longer than most tests."""
    return make_client(endpoint, "default", credentials)


def keep_in_bucket(home: NodeHome, account: S3Account) -> S3Store:
    """Have a node keep its blobs in the account's bucket, below a prefix of its own. Returns its store."""
    prefix = f"{uuid.uuid4()}/"
    settings = {
        "endpoint": account.endpoint,
        "bucket": account.bucket,
        "credentials_file": str(account.credentials),
        "prefix": prefix,
        "region": "default",
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    with (home.directory / "node.toml").open("a") as file:
        file.write("\n".join(("", "[storage.s3]", *lines, "")))
    return account.store(home.directory / "look", prefix=prefix)


def may_only_read(account: S3Account, user: User, name: str) -> None:
    """Let `user`, called `name` at the service, get and list the objects of the account's bucket, and nothing else."""
    bucket, who = f"arn:aws:s3:::{account.bucket}", {"AWS": [f"arn:aws:iam:::user/{name}"]}
    allowed = [
        {"Effect": "Allow", "Principal": who, "Action": ["s3:GetObject"], "Resource": [f"{bucket}/*"]},
        {"Effect": "Allow", "Principal": who, "Action": ["s3:ListBucket"], "Resource": [bucket]},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    account.client().put_bucket_policy(Bucket=account.bucket, Policy=policy)


def write_credentials(path: Path, user: User, mode: int = 0o600) -> Path:
    path.write_text(f'access_key = "{user.access_key}"\nsecret_key = "{user.secret_key}"\n')
    path.chmod(mode)
    return path
