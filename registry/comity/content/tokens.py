"""The tokens by which a node's owner lets somebody read through its gateway. A file in the node's home, mode 0600.

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
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.content.secret_file import read_secret
from comity.trust.digest import Digest, sha256
from comity.trust.encoding import Json, parse_json
from comity.trust.errors import Malformed, NotFound, OutOfSpace
from comity.trust.fields import Fields
from comity.trust.names import check_segment

SCHEMA: Final = "comity/tokens/v1"
FILE: Final = "tokens.json"
"""In the node's home."""
EVERYTHING: Final = "*"
MAX_TOKENS: Final = 200
MAX_BYTES: Final = 64 * 1024
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
