"""Private keys on disk: PEM blocks (PKCS#8), one block a half, in files that only their owner can read.

A key file is written once and never replaced: whoever loses a key by a slip has lost it for good. One that others can
read is refused, as ssh does. Nothing else, in a node or a client, touches key bytes.


Secrets come from files that only their owner can read; never from the environment or the command line.

The tokens by which a node's owner lets somebody read through its gateway. A file in the node's home, mode 0600.

    {"schema":"comity/tokens/v1","tokens":[{"created":…,"id":"k3f9…","name":"ci","reach":["swiss-ai/*"],"sha256":"…"}]}

A token is `hf_` and 40 random letters and digits: Hub clients send nothing of another shape. Only its hash is kept; 238
bits of chance need no salt and no slow hash. Whoever holds a token may read, never write.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import stat
import string
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, Fields, Json, parse_json, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Refused
from comity.trust.keys import MAX_HALVES, HybridSigner, PrivateKey
from comity.trust.names import check_segment

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


MAX_SECRET: Final = 64 * 1024


def read_secret(path: Path) -> bytes:
    """The content of a secret file of at most 64 KiB.

    Raises Refused (code SECRET-EXPOSED) for a file that its group or others can open or that is not ours, Malformed for
    one that is too long, and Unavailable for one that cannot be read.
    """
    with disk_errors(f"the secret file {path.name} was not read"), path.open("rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in (0, os.geteuid()):
            raise Refused(
                f"the secret file {path.name} is not private",
                why="others may read or own it",
                hint=f"chmod 600 {path}",
                code="SECRET-EXPOSED",
            )
        data = file.read(MAX_SECRET + 1)
    if len(data) > MAX_SECRET:
        raise Malformed(f"the secret file {path.name} is too long", why=f"at most {MAX_SECRET} bytes are read")
    return data


SCHEMA: Final = "comity/tokens/v1"
FILE: Final = "tokens.json"
"""In the node's home."""
EVERYTHING: Final = "*"
MAX_TOKENS: Final = 200
_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 40
_SHAPE: Final = re.compile(r"hf_[A-Za-z0-9]{40}\Z", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token that was handed out.

    `reach` lists what it opens: `*`, `namespace/*` or `namespace/name`. `created` is in POSIX seconds.
    """

    id: str
    name: str
    reach: tuple[str, ...]
    created: int
    hash: Digest

    def opens(self, repository: str) -> bool:
        """Whether it lets read `namespace/name`."""
        wanted = repository.lower()
        return any(
            reach in (EVERYTHING, wanted, f"{wanted.partition('/')[0]}/*") for reach in map(str.lower, self.reach)
        )


class TokenFile:
    """The tokens in one file; a file that is not there holds none. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def version(self) -> tuple[int, ...]:
        """Changes whenever the file does. Raises Unavailable."""
        with disk_errors("the tokens were not read"):
            try:
                found = self._path.stat()
            except FileNotFoundError:
                return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> tuple[Token, ...]:
        """Raises Refused (SECRET-EXPOSED), Malformed, Unavailable."""
        if not self._path.exists():
            return ()
        fields = Fields(parse_json(read_secret(self._path), limit=MAX_BYTES, what="token file"), "token file")
        fields.constant("schema", SCHEMA)
        tokens = tuple(_token(item) for item in fields.items("tokens", most=MAX_TOKENS))
        fields.done()
        return tokens

    def add(self, name: str, reach: tuple[str, ...], created: int) -> tuple[str, Token]:
        """A new token: what its holder gets, shown this once, and what is kept.

        Raises Malformed for a name or a reach that cannot be; OutOfSpace (TOO-MANY-TOKENS).
        """
        secret = "hf_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        token = Token(
            secrets.token_hex(4), _checked_name(name), tuple(map(check_reach, reach)), created, hashed(secret)
        )
        with self._writing():
            known = self.read()
            if len(known) >= MAX_TOKENS:
                hint = "comity token revoke ID"
                raise OutOfSpace("too many tokens", why=f"at most {MAX_TOKENS}", hint=hint, code="TOO-MANY-TOKENS")
            self._write((*known, token))
        return secret, token

    def revoke(self, identifier: str) -> Token:
        """Forget the token with this id or name. Raises NotFound (NO-SUCH-TOKEN)."""
        with self._writing():
            known = self.read()
            gone = [token for token in known if identifier in (token.id, token.name)]
            if len(gone) != 1:
                why = "several have this name" if gone else "none has this id or name"
                raise NotFound(f"no token {identifier[:64]!r}", why=why, hint="comity token ls", code="NO-SUCH-TOKEN")
            self._write(tuple(token for token in known if token is not gone[0]))
        return gone[0]

    def _write(self, tokens: tuple[Token, ...]) -> None:
        listed: list[Json] = [
            {"id": t.id, "name": t.name, "reach": list(t.reach), "created": t.created, "sha256": t.hash} for t in tokens
        ]
        document = json.dumps({"schema": SCHEMA, "tokens": listed}, indent=1).encode() + b"\n"
        durable.write_file(self._path, document, mode=0o600, point="tokens")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time."""
        with disk_errors("the tokens were not written"):
            lock = self._path.with_name(f".{self._path.name}.lock")
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def hashed(secret: str) -> Digest:
    """Under which a token is kept and found."""
    return sha256(b"comity token\n" + secret.encode("utf-8", "replace"))


def looks_like_one(secret: str) -> bool:
    return _SHAPE.match(secret) is not None


def check_reach(text: str) -> str:
    """Return `text` if it says what a token opens. Raises Malformed."""
    if text != EVERYTHING:
        namespace, _, name = text.partition("/")
        check_segment(namespace, "namespace")
        if name != EVERYTHING:
            check_segment(name, "name")
    return text


def _checked_name(name: str) -> str:
    if not _NAME.match(name):
        raise Malformed("not a name for a token", why="1 to 64 letters, digits, '.', '_', '-' and spaces")
    return name


def _token(item: Json) -> Token:
    fields = Fields(item, "token")
    reach = tuple(text for text in fields.items("reach", most=100) if isinstance(text, str))
    token = Token(
        fields.text("id", most=64),
        fields.text("name", most=64),
        tuple(map(check_reach, reach)),
        fields.integer("created"),
        fields.digest("sha256"),
    )
    fields.done()
    return token
