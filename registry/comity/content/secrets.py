"""Private keys and other secret files: those that only their owner can read.

Secrets never come from the environment or the command line. A file that others can read is refused, as ssh does.

A key file holds PKCS#8 PEM blocks, one per key half. It is written once and never replaced, because an overwritten key
cannot be recovered. No other module of a node or client handles key bytes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.trust.errors import Conflict, Malformed, NotFound, Refused
from comity.trust.keys import MAX_HALVES, HybridSigner, PrivateKey

MAX_SECRET: Final = 64 * 1024
_BLOCK: Final = re.compile(rb"-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END PRIVATE KEY-----\n?")


def write_keys(path: Path, keys: Iterable[PrivateKey]) -> None:
    """Write `keys` to a new file, mode 0600; durable when the call returns. The folder must exist.

    Raises Conflict (code KEY-EXISTS) if the file exists, OutOfSpace, Unavailable.
    """
    with durable.disk_errors(f"{path} was not written"):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileExistsError as error:
            hint = "choose another name; a key is never overwritten"
            raise Conflict(f"{path} exists", why="it may hold a key", hint=hint, code="KEY-EXISTS") from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                file.write(b"".join(key.to_pem() for key in keys))
                file.flush()
                durable.fsync(descriptor, point="key.fsync")
            durable.sync(path.parent, point="key.folder")
        except BaseException:  # a part of a key is none, and its file would refuse the next try
            path.unlink(missing_ok=True)
            raise


def read_keys(path: Path) -> tuple[PrivateKey, ...]:
    """The keys in `path`, in the file's order.

    Raises NotFound; Refused (code KEY-PERMISSIONS) if the file is not ours, or others may read or write it; Malformed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        hint = "name the file where it is now, or put it back from your backup: chmod 600"
        raise NotFound(f"key file {path} does not exist", hint=f"{hint} {path}") from error
    except OSError as error:
        raise Refused(f"{path} cannot be read", why=error.strerror or str(error), code="KEY-PERMISSIONS") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Malformed(f"{path} is not a key file", why="it is not a regular file")
        if found.st_uid not in (0, os.geteuid()):
            why = "another user owns the file and may change the key"
            raise Refused(f"{path} belongs to another user", why=why, code="KEY-PERMISSIONS")
        if found.st_mode & 0o077:
            why = f"the file mode is {stat.S_IMODE(found.st_mode):04o}: other users of this machine may use the key"
            raise Refused(f"{path} is not private", why=why, hint=f"chmod 600 {path}", code="KEY-PERMISSIONS")
        return _parse(file.read(MAX_SECRET + 1), path)


def read_signer(path: Path) -> HybridSigner:
    """A signer that uses every key in `path`. Raises as `read_keys` does."""
    return HybridSigner(read_keys(path))


def _parse(data: bytes, path: Path) -> tuple[PrivateKey, ...]:
    blocks = _BLOCK.findall(data) if len(data) <= MAX_SECRET else []
    if not 1 <= len(blocks) <= MAX_HALVES or b"".join(blocks) != data:
        why = "expected one or two unencrypted PKCS#8 PEM blocks and nothing else"
        raise Malformed(f"{path} is not a key file", why=why)
    return tuple(PrivateKey.from_pem(block) for block in blocks)


def read_secret(path: Path) -> bytes:
    """The content of a secret file of at most 64 KiB.

    Raises Refused (code SECRET-EXPOSED) if group or others can open the file or it is not ours, Malformed if it is too
    long, and Unavailable if it cannot be read.
    """
    with disk_errors(f"the secret file {path.name} was not read"), path.open("rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in (0, os.geteuid()):
            raise Refused(
                f"the secret file {path.name} is not private",
                why="other users may read it or own it",
                hint=f"chmod 600 {path}",
                code="SECRET-EXPOSED",
            )
        data = file.read(MAX_SECRET + 1)
    if len(data) > MAX_SECRET:
        raise Malformed(f"the secret file {path.name} is too long", why=f"at most {MAX_SECRET} bytes are read")
    return data
