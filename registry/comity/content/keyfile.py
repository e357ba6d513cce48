"""Private keys on disk: PEM blocks (PKCS#8), one block a half, in files that only their owner can read.

A key file is written once and never replaced: whoever loses a key by a slip has lost it for good. One that others can
read is refused, as ssh does. Nothing else, in a node or a client, touches key bytes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.errors import Conflict, Malformed, NotFound, Refused
from comity.trust.keys import MAX_HALVES, HybridSigner, PrivateKey

MAX_BYTES: Final = 64 * 1024
_BLOCK: Final = re.compile(rb"-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END PRIVATE KEY-----\n?")


def write_keys(path: Path, keys: Iterable[PrivateKey]) -> None:
    """Write `keys` to a new file, mode 0600, on the disk when the call returns. The folder must exist.

    Raises Conflict (code KEY-EXISTS) where there is a file, OutOfSpace, Unavailable.
    """
    with durable.disk_errors(f"{path} was not written"):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileExistsError as error:
            hint = "choose another name; a key is never overwritten"
            raise Conflict(f"{path} exists", why="it may hold a key", hint=hint, code="KEY-EXISTS") from error
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(b"".join(key.to_pem() for key in keys))
            file.flush()
            durable.fsync(descriptor, point="key.fsync")
        durable.sync(path.parent, point="key.folder")


def read_keys(path: Path) -> tuple[PrivateKey, ...]:
    """The keys in `path`, in the file's order.

    Raises NotFound; Refused (code KEY-PERMISSIONS) where it is not ours, or others may read or write it; Malformed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise NotFound(f"no key file {path}") from error
    except OSError as error:
        raise Refused(f"{path} cannot be read", why=error.strerror or str(error), code="KEY-PERMISSIONS") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Malformed(f"{path} is no key file", why="it is not a regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise Refused(f"{path} is not yours", why="another user may change the key", code="KEY-PERMISSIONS")
        if found.st_mode & 0o077:
            why = f"its mode is {stat.S_IMODE(found.st_mode):04o}: others on this machine may use the key"
            raise Refused(f"{path} is not private", why=why, hint=f"chmod 600 {path}", code="KEY-PERMISSIONS")
        return _parse(file.read(MAX_BYTES + 1), path)


def read_signer(path: Path) -> HybridSigner:
    """What signs with every key in `path`. Raises as `read_keys` does."""
    return HybridSigner(read_keys(path))


def _parse(data: bytes, path: Path) -> tuple[PrivateKey, ...]:
    blocks = _BLOCK.findall(data) if len(data) <= MAX_BYTES else []
    if not 1 <= len(blocks) <= MAX_HALVES or b"".join(blocks) != data:
        raise Malformed(f"{path} is no key file", why="expected one or two unencrypted PKCS#8 PEM blocks, nothing else")
    return tuple(PrivateKey.from_pem(block) for block in blocks)
