"""Webhooks, as their file says: who is told of what. `webhooks.file` in node.toml names the file.

    [[webhook]]
    name = "ops"                          # each once
    url = "https://chat.example.org/comity"
    secret_file = "keys/webhook-ops.secret"     # relative to the home, mode 0600: whsec_ and base64
    events = ["alert", "copies-short"]    # all, if it is left out

The operator chooses each URL, and nothing else has a say in where a request goes: no redirect is followed, no proxy of
the environment is used, no event contains an address that is called. `http://` is for a receiver on this machine only.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from comity.bounded_file import read_bounded
from comity.content.secrets import read_secret
from comity.trust.encoding import b64decode
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen

EVENTS: Final = ("version", "advisory", "alert", "copies-short", "proposal-waiting")
MAX_HOOKS: Final = 20
MAX_HOOKS_FILE: Final = 64 * 1024
SECRET_PREFIX: Final = "whsec_"
LEAST_SECRET: Final = 24
MOST_SECRET: Final = 64
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9.\-]+\Z")


@frozen
class Webhook:
    """A receiver. `secret_file` is relative to the home."""

    name: str
    url: str
    secret_file: str
    events: tuple[str, ...] = EVENTS

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise _malformed("a name has 1 to 32 small letters, digits and '-'")
        check_url(self.url)
        if not self.secret_file or len(self.secret_file) > 255 or "\0" in self.secret_file:
            raise _malformed(f"{self.name} needs a secret_file")
        if not self.events or set(self.events) - set(EVENTS):
            raise _malformed(f"the events of {self.name} must be of {', '.join(EVENTS)}")

    def secret(self, home: Path) -> bytes:
        """The key of its signatures. Blocking. Raises Refused (SECRET-EXPOSED), Malformed, Unavailable."""
        return parse_secret(read_secret(home / self.secret_file))


def parse_secret(data: bytes) -> bytes:
    """The key in a secret of the Standard Webhooks form. Raises Malformed; the error has no part of the secret."""
    try:
        text = data.decode("ascii").strip()
        if not text.startswith(SECRET_PREFIX):
            raise ValueError
        key = b64decode(text.removeprefix(SECRET_PREFIX))
    except (ValueError, ComityError):
        raise _malformed(f"a secret is {SECRET_PREFIX} and base64") from None
    if not LEAST_SECRET <= len(key) <= MOST_SECRET:
        raise _malformed(f"the key of a secret has {LEAST_SECRET} to {MOST_SECRET} bytes")
    return key


def check_url(url: str) -> None:
    """Raises Malformed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _malformed(f"the URL is not usable: {error}") from error
    if len(url) > 2_000 or not url.isascii() or not url.isprintable() or " " in url:
        raise _malformed("a URL has at most 2000 printable ASCII characters, without spaces")
    if parts.scheme not in ("https", "http") or parts.username is not None or parts.fragment or port == 0:
        raise _malformed("the URL must be https://host[:port]/path, without a user and a fragment")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        if not _HOST.match(host):
            raise _malformed("the URL has no host") from None
        loopback = host == "localhost"
    if parts.scheme == "http" and not loopback:
        raise _malformed("http:// is only for a receiver on this machine: others could read and change what is sent")


def parse_hooks(data: bytes) -> tuple[Webhook, ...]:
    """Read a file of webhooks. Raises Malformed (WEBHOOKS)."""
    if len(data) > MAX_HOOKS_FILE:
        raise _malformed(f"the file has more than {MAX_HOOKS_FILE} bytes")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it is not TOML: {error}") from error
    listed = document.pop("webhook", [])
    if document or not isinstance(listed, list) or len(listed) > MAX_HOOKS:
        raise _malformed(f"a file has [[webhook]] tables and nothing else, at most {MAX_HOOKS}")
    hooks = tuple(map(_hook, listed))
    if len({hook.name for hook in hooks}) < len(hooks):
        raise _malformed("two webhooks have one name")
    return hooks


def read_hooks(file: Path) -> tuple[Webhook, ...]:
    """Blocking. Raises NotFound, Unavailable, Malformed (WEBHOOKS)."""
    return parse_hooks(read_bounded(file, MAX_HOOKS_FILE))


def _hook(table: Any) -> Webhook:
    if not isinstance(table, dict) or set(table) - {"name", "url", "secret_file", "events"}:
        raise _malformed("a webhook has name, url, secret_file and events, and nothing else")
    events = table.get("events", list(EVENTS))
    name, url, secret_file = (table.get(key) for key in ("name", "url", "secret_file"))
    if not isinstance(events, list) or not all(isinstance(text, str) for text in (name, url, secret_file, *events)):
        raise _malformed("name, url and secret_file are texts, and events is a list of texts")
    return Webhook(str(name), str(url), str(secret_file), tuple(dict.fromkeys(events)))


def _malformed(why: str) -> Malformed:
    hint = "comity config check --node HOME"
    return Malformed("the webhooks are not usable", why=why, hint=hint, code="WEBHOOKS")
