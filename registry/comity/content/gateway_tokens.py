"""Tokens of the gateway, and when each was used last.

A gateway token lets its holder read through the gateway, never write. One file in the node's home, mode 0600, has all:

    {"schema":"comity/tokens/v1","tokens":[{"created":…,"id":"k3f9…","name":"ci","reach":["swiss-ai/*"],"sha256":"…"}]}

A token that ends has `expires` too. Rotation makes another token with the same name and reach, and lets the old one end
some time later, so that clients can change over.

A token is `hf_` and 40 random letters and digits, because Hub clients send no other form. Only its hash is stored; with
238 random bits neither salt nor a slow hash is needed.

When each token was last used is kept too, so that an operator sees which can go: only the minute, and nothing of who
used it, from where, or for what. The node writes the times to another file of its home, mode 0600, at most once in
`WRITTEN_EVERY` seconds and when it stops:

    {"schema":"comity/token-uses/v1","uses":{"k3f9…":1800000000}}

The command line reads it. A file of times that cannot be read is no error: they are then unknown, until a token is used
again.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.content.secrets import MAX_SECRET, read_secret
from comity.trust.encoding import Digest, Fields, Json, parse_json, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace
from comity.trust.frozen import frozen
from comity.trust.names import check_segment

USES_SCHEMA: Final = "comity/token-uses/v1"
USES_FILE: Final = "token-uses.json"
"""In the node's home."""
WRITTEN_EVERY: Final = 60.0
MINUTE: Final = 60
TOKENS_SCHEMA: Final = "comity/tokens/v1"
TOKENS_FILE: Final = "tokens.json"
"""In the node's home."""
ALL_REPOSITORIES: Final = "*"
MAX_TOKENS: Final = 200
MAX_USES: Final = 2 * MAX_TOKENS
KEPT_EXPIRED: Final = 7 * 86_400
"""Seconds for which a token that has ended is still listed."""
_TOKEN_ALPHABET: Final = string.ascii_letters + string.digits
_TOKEN_LENGTH: Final = 40
_TOKEN_SHAPE: Final = re.compile(r"hf_[A-Za-z0-9]{40}\Z", re.ASCII)
_TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}\Z", re.ASCII)


@frozen
class Token:
    """The stored record of a token that was issued.

    `reach` lists the readable repositories: `*`, `namespace/*` or `namespace/name`. `created` and `expires` are in
    POSIX seconds; `expires` is 0 for never.
    """

    id: str
    name: str
    reach: tuple[str, ...]
    created: int
    hash: Digest
    expires: int = 0

    def expired(self, now: float) -> bool:
        return 0 < self.expires <= now

    def allows(self, repository: str) -> bool:
        """Whether the token allows reading `namespace/name`."""
        wanted = repository.lower()
        return any(
            reach in (ALL_REPOSITORIES, wanted, f"{wanted.partition('/')[0]}/*") for reach in map(str.lower, self.reach)
        )


class TokenFile:
    """The tokens in one file; a missing file means no tokens. Safe for several processes at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def version(self) -> tuple[int, ...]:
        """A value that changes whenever the file does. Raises Unavailable."""
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
        fields = Fields(parse_json(read_secret(self._path), limit=MAX_SECRET, what="token file"), "token file")
        fields.constant("schema", TOKENS_SCHEMA)
        tokens = tuple(_token(item) for item in fields.items("tokens", most=MAX_TOKENS))
        fields.done()
        return tokens

    def add(self, name: str, reach: tuple[str, ...], created: int, expires: int = 0) -> tuple[str, Token]:
        """Create a token. Returns the secret, which is never shown again, and the stored record.

        Raises Malformed for an invalid name, reach or expiry; OutOfSpace (TOO-MANY-TOKENS).
        """
        secret, token = _new_token(name, reach, created, expires)
        with self._writing():
            self._add(self.read(), token)
        return secret, token

    def rotate(self, identifier: str, now: int, overlap: int) -> tuple[str, Token, Token]:
        """Create a successor of the token with this id or name: of the same name and reach, valid from now for as long
        as its predecessor was. The predecessor ends `overlap` seconds from now, or when it would have ended. Returns
        the new secret, the successor and the predecessor.

        Raises NotFound (NO-SUCH-TOKEN), OutOfSpace (TOO-MANY-TOKENS).
        """
        with self._writing():
            existing = self.read()
            old = _only(existing, identifier)
            expires = now + old.expires - old.created if old.expires else 0
            secret, token = _new_token(old.name, old.reach, now, expires)
            ends = now + overlap
            ending = replace(old, expires=min(old.expires, ends) if old.expires else ends)
            self._add(tuple(ending if known is old else known for known in existing), token)
        return secret, token, ending

    def revoke(self, identifier: str) -> Token:
        """Delete the token with this id or name. Raises NotFound (NO-SUCH-TOKEN)."""
        with self._writing():
            existing = self.read()
            revoked = _only(existing, identifier)
            self._write(tuple(token for token in existing if token is not revoked))
        return revoked

    def _add(self, existing: tuple[Token, ...], token: Token) -> None:
        kept = tuple(known for known in existing if not known.expired(token.created - KEPT_EXPIRED))
        if len(kept) >= MAX_TOKENS:
            hint = "comity token revoke ID"
            raise OutOfSpace("too many tokens", why=f"at most {MAX_TOKENS}", hint=hint, code="TOO-MANY-TOKENS")
        self._write((*kept, token))

    def _write(self, tokens: tuple[Token, ...]) -> None:
        listed: list[Json] = [_token_json(token) for token in tokens]
        document = json.dumps({"schema": TOKENS_SCHEMA, "tokens": listed}, indent=1).encode() + b"\n"
        durable.write_file(self._path, document, mode=0o600, point="tokens")
        self._give_to_node(self._path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock for the only writer."""
        lock = self._path.with_name(f".{self._path.name}.lock")
        with durable.exclusive(lock, "the tokens were not written"):
            self._give_to_node(lock)
            yield

    def _give_to_node(self, path: Path) -> None:
        """The node is not root, and reads and writes what root has made."""
        with disk_errors(f"{path.name} did not get the owner of its folder"):
            durable.give_to_owner(path, owner_of=self._path.parent)


def token_hash(secret: str) -> Digest:
    """The hash under which a token is stored and found."""
    return sha256(b"comity token\n" + secret.encode("utf-8", "replace"))


def looks_like_token(secret: str) -> bool:
    return _TOKEN_SHAPE.match(secret) is not None


def check_reach(text: str) -> str:
    """Return `text` if it is a valid reach. Raises Malformed."""
    if text != ALL_REPOSITORIES:
        namespace, _, name = text.partition("/")
        check_segment(namespace, "namespace")
        if name != ALL_REPOSITORIES:
            check_segment(name, "name")
    return text


def _new_token(name: str, reach: tuple[str, ...], created: int, expires: int) -> tuple[str, Token]:
    if expires and expires <= created:
        raise Malformed("the token would have ended before it begins", why="its expiry is not later than now")
    secret = "hf_" + "".join(secrets.choice(_TOKEN_ALPHABET) for _ in range(_TOKEN_LENGTH))
    reaches = tuple(map(check_reach, reach))
    return secret, Token(secrets.token_hex(4), _checked_name(name), reaches, created, token_hash(secret), expires)


def _only(existing: Sequence[Token], identifier: str) -> Token:
    """The one token with this id or name. Raises NotFound (NO-SUCH-TOKEN)."""
    matching = [token for token in existing if identifier in (token.id, token.name)]
    if len(matching) != 1:
        why = "several tokens have this name" if matching else "no token has this id or name"
        raise NotFound(f"no token {identifier[:64]!r}", why=why, hint="comity token ls", code="NO-SUCH-TOKEN")
    return matching[0]


def _token_json(token: Token) -> dict[str, Json]:
    """`expires` is left out where there is none, so that older software reads the file."""
    listed: dict[str, Json] = {
        "id": token.id,
        "name": token.name,
        "reach": list(token.reach),
        "created": token.created,
        "sha256": token.hash,
    }
    return listed | ({"expires": token.expires} if token.expires else {})


def _checked_name(name: str) -> str:
    if not _TOKEN_NAME.match(name):
        raise Malformed("invalid token name", why="expected 1 to 64 letters, digits, '.', '_', '-' and spaces")
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
        fields.integer("expires") if fields.has("expires") else 0,
    )
    fields.done()
    return token


class TokenUses:
    """Not thread-safe for one object: `seen` on the event loop, `write` one at a time."""

    def __init__(self, path: Path) -> None:
        """Blocking."""
        self._path = path
        self._times = read_uses(path)
        self._written = 0.0
        self._changed = False

    @property
    def times(self) -> Mapping[str, int]:
        """POSIX seconds of the last use, by the id of the token."""
        return self._times

    def seen(self, token: str, now: float) -> bool:
        """A token is used. Returns whether `write` is due."""
        minute = int(now) // MINUTE * MINUTE
        if self._times.get(token, 0) < minute:
            self._times.pop(token, None)
            self._times[token] = minute
            self._changed = True
            while len(self._times) > MAX_USES:
                del self._times[next(iter(self._times))]
        if not self._changed or abs(now - self._written) < WRITTEN_EVERY:
            return False
        self._written, self._changed = now, False
        return True

    def flush(self) -> None:
        """Write what `write` has not written yet. Blocking. Raises OutOfSpace, Unavailable."""
        if self._changed:
            self._changed = False
            self.write()

    def write(self) -> None:
        """Blocking. Raises OutOfSpace, Unavailable."""
        document = {"schema": USES_SCHEMA, "uses": dict(self._times)}
        durable.write_file(self._path, json.dumps(document).encode() + b"\n", mode=0o600, point="token-uses")


def read_uses(path: Path) -> dict[str, int]:
    """Blocking. The last uses in a file; none if it cannot be read."""
    try:
        return parse_uses(read_secret(path))
    except ComityError:
        return {}


def parse_uses(data: bytes) -> dict[str, int]:
    """Raises Malformed."""
    fields = Fields(parse_json(data, limit=MAX_SECRET, what="uses of tokens"), "uses of tokens")
    fields.constant("schema", USES_SCHEMA)
    uses = fields.take("uses")
    fields.done()
    if not isinstance(uses, Mapping) or len(uses) > MAX_USES:
        raise fields.error(f"'uses' must be an object of at most {MAX_USES} members")
    times = Fields(uses, "uses of tokens")
    return {name: times.integer(name) for name in uses}
