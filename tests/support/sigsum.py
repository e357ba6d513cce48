"""`sigsum-witness` (Go) as Debian ships it: one witness for one log, whose origin has the form that it demands."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comity.trust.keys import PublicKey
from comity.trust.tlog.note import VerifierKey, cosigner_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from support.ports import free_port, wait_until_listening
from support.tools import needs, running

ORIGIN = "sigsum.org/v1/tree/{key}"
"""For `init_node`."""


@contextmanager
def sigsum_witness(folder: Path, log: PublicKey) -> Iterator[tuple[int, VerifierKey]]:
    """Run a witness for the log that `log` signs; its port and its key. Skips where it is not installed."""
    program = needs("sigsum-witness", unlock="apt-get install sigsum-go")
    keygen = needs("sigsum-key", unlock="apt-get install sigsum-go")
    subprocess.run([keygen, "generate", "-o", str(folder / "witness")], check=True)
    public = load_ssh_public_key((folder / "witness.pub").read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    raw = public.public_bytes_raw()
    log_key = Ed25519PublicKey.from_public_bytes(log.raw).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (folder / "log.pub").write_bytes(log_key + b" log\n")
    port = free_port()
    files = {"--signing-key": "witness", "--log-key": "log.pub", "--state-file": "state"}
    command = [program, *(f"{option}={folder / name}" for option, name in files.items()), f"127.0.0.1:{port}"]
    name = f"sigsum.org/v1/witness/{hashlib.sha256(raw).hexdigest()}"
    with running(command, folder / "output", env={"GODEBUG": "httpmuxgo121=0"}) as process:
        wait_until_listening(port, process)
        yield port, cosigner_key(name, PublicKey("ed25519", raw))
