"""Webhooks, as their file says: who is told of what. `webhooks.file` in node.toml names the file.

    [[webhook]]
    name = "ops"                          # each once
    url = "https://chat.example.org/comity"
    secret_file = "keys/webhook-ops.secret"     # relative to the home, mode 0600: whsec_ and base64
    events = ["alert", "copies-short"]    # all, if it is left out

    [[webhook]]
    name = "us"
    url = "https://chat.example.org/us"
    secret_file = "keys/webhook-us.secret"
    publisher = "5f1c…"                   # an identity: told is what concerns it, and nothing else

The operator chooses each URL, and nothing else has a say in where a request goes: no redirect is followed, no proxy of
the environment is used, no event contains an address that is called. `http://` is for a receiver on this machine only.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from comity.bounded_file import read_bounded
from comity.content.secrets import read_secret
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.webhook_requests import check_url, not_usable, parse_secret

EVENTS: Final = ("version", "advisory", "alert", "copies-short", "proposal-waiting")
OF_PUBLISHER: Final = ("publisher",)
"""The event of a webhook that names a publisher (`comity.node.publisher_watch`)."""
MAX_HOOKS: Final = 20
MAX_HOOKS_FILE: Final = 64 * 1024
_ID: Final = re.compile(r"[0-9a-f]{64}\Z")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")


@frozen
class Webhook:
    """A receiver. `secret_file` is relative to the home. `publisher`: the identity of which it is told, or empty."""

    name: str
    url: str
    secret_file: str
    events: tuple[str, ...] = EVENTS
    publisher: str = ""

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise _malformed("a name has 1 to 32 small letters, digits and '-'")
        check_url(self.url)
        if not self.secret_file or len(self.secret_file) > 255 or "\0" in self.secret_file:
            raise _malformed(f"{self.name} needs a secret_file")
        if self.publisher:
            if not _ID.match(self.publisher):
                raise _malformed(f"the publisher of {self.name} must be an id of 64 hexadecimal digits")
            if self.events != OF_PUBLISHER:
                raise _malformed(f"{self.name} names a publisher, so it has no events")
        elif not self.events or set(self.events) - set(EVENTS):
            raise _malformed(f"the events of {self.name} must be of {', '.join(EVENTS)}")

    def secret(self, home: Path) -> bytes:
        """The key of its signatures. Blocking. Raises Refused (SECRET-EXPOSED), Malformed, Unavailable."""
        return parse_secret(read_secret(home / self.secret_file))


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
    if not isinstance(table, dict) or set(table) - {"name", "url", "secret_file", "events", "publisher"}:
        raise _malformed("a webhook has name, url, secret_file, and events or a publisher, and nothing else")
    publisher = table.get("publisher", "")
    events = table.get("events", list(OF_PUBLISHER if publisher else EVENTS))
    texts = [table.get(key) for key in ("name", "url", "secret_file")] + [publisher]
    if not isinstance(events, list) or not all(isinstance(text, str) for text in (*texts, *events)):
        raise _malformed("name, url, secret_file and publisher are texts, and events is a list of texts")
    name, url, secret_file, publisher = map(str, texts)
    return Webhook(name, url, secret_file, tuple(dict.fromkeys(events)), publisher)


def _malformed(why: str) -> Malformed:
    return not_usable(why, hint="comity config check --node HOME")
