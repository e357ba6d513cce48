"""Files of a home, for its operator, whether the node runs or not: a new webhook with its secret, what waits for each
webhook, and the counts of pulls."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.content.durable import disk_errors
from comity.node.config import NodeConfig
from comity.node.pull_counts import PULLS_FILE, WeekCount, counted_file, read_weeks
from comity.node.webhook_deliveries import QUEUE_FILE, EventQueue
from comity.node.webhooks import EVENTS, MAX_HOOKS_FILE, OF_PUBLISHER, Webhook, parse_hooks
from comity.trust.artifact import Manifest
from comity.trust.errors import Conflict, NotFound
from comity.trust.frozen import frozen
from comity.webhook_requests import SECRET_PREFIX

DEFAULT_FILE: Final = "webhooks.toml"
SECRET_BYTES: Final = 32


@frozen
class NewWebhook:
    """A webhook that was added: its secret is shown once. `named`: node.toml names the file."""

    hook: Webhook
    file: Path
    secret: str
    named: bool


@frozen
class WaitingHook:
    """A webhook, and how many events wait for it."""

    hook: Webhook
    waiting: int


def add_webhook(
    file: Path,
    name: str,
    url: str,
    events: tuple[str, ...],
    environ: Mapping[str, str] = os.environ,
    *,
    publisher: str = "",
) -> NewWebhook:
    """Add a webhook to the file that a `node.toml` names, and make its secret, mode 0600. With a publisher, it is told
    of that one alone, and has no events. Blocking.

    Raises Malformed (WEBHOOKS), Conflict (WEBHOOK-EXISTS), OutOfSpace, Unavailable, and as `NodeConfig.load`.
    """
    config = NodeConfig.load(file, environ)
    target = config.webhooks.file or config.home / DEFAULT_FILE
    hook = Webhook(
        name, url, f"keys/webhook-{name}.secret", events or (OF_PUBLISHER if publisher else EVENTS), publisher
    )
    text = _text(target)
    if any(known.name == name for known in parse_hooks(text)):
        hint = "choose another name, or change the file"
        raise Conflict(f"there is a webhook {name}", why=f"in {target}", hint=hint, code="WEBHOOK-EXISTS")
    lines = [b"", b"[[webhook]]"]
    last = ("publisher", publisher) if publisher else ("events", list(hook.events))
    for key, value in (("name", name), ("url", url), ("secret_file", hook.secret_file), last):
        lines.append(f"{key} = {json.dumps(value)}".encode())
    data = (text.rstrip(b"\n") + b"\n".join(lines)).lstrip(b"\n") + b"\n"
    parse_hooks(data)
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    with disk_errors("the secret was not written"):
        durable.make_folders((config.home / hook.secret_file).parent, mode=0o700)
    durable.write_file(config.home / hook.secret_file, f"{secret}\n".encode(), mode=0o600, point="home")
    durable.write_file(target, data, mode=0o644, point="home")
    return NewWebhook(hook, target, secret, named=config.webhooks.file is not None)


def waiting_hooks(file: Path, environ: Mapping[str, str] = os.environ) -> list[WaitingHook]:
    """The webhooks that a `node.toml` names, and what waits. Blocking. Raises as `add_webhook`."""
    config = NodeConfig.load(file, environ)
    folder = config.storage.ledger.parent
    waiting = dict[str, int]()
    if (folder / QUEUE_FILE).exists():
        with closing(EventQueue(folder)) as queue:
            waiting = queue.waiting()
    hooks = parse_hooks(_text(config.webhooks.file or config.home / DEFAULT_FILE))
    return [WaitingHook(hook, waiting.get(hook.name, 0)) for hook in hooks]


def pull_weeks(
    file: Path, manifest: Manifest | None, most: int, environ: Mapping[str, str] = os.environ
) -> list[WeekCount]:
    """The newest weeks in which an artifact was pulled from the node of a `node.toml`; without a manifest, the files of
    which clients got the end. Blocking. Raises Unavailable, and as `NodeConfig.load`."""
    path = NodeConfig.load(file, environ).storage.ledger.with_name(PULLS_FILE)
    return read_weeks(path, counted_file(manifest) if manifest else None, most)


def _text(file: Path) -> bytes:
    try:
        return read_bounded(file, MAX_HOOKS_FILE)
    except NotFound:
        return b""
