"""Posts an event to a receiver that the user names: one signed CloudEvent. What commands do that run from a timer.

A receiver that does not answer costs a bounded time. Whether what was not delivered is told again is for the caller.
The same event can come twice; `webhook-id` is the same for the same event.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from comity.content.secrets import read_secret
from comity.trust.encoding import format_time, sha256
from comity.trust.errors import Unavailable
from comity.trust.frozen import frozen
from comity.webhook_requests import Poster, check_url, message_id, parse_secret, signed_headers

PAUSES: Final = (0.0, 2.0, 10.0)
"""Seconds before each attempt."""
SECONDS: Final = 20.0
"""Seconds that one attempt takes at most, however slowly the receiver answers."""


@frozen
class WebhookReceiver:
    """Where events are posted, and the key of the signatures."""

    url: str
    key: bytes

    @classmethod
    def of(cls, url: str, secret: Path) -> WebhookReceiver:
        """Blocking. Raises Malformed (WEBHOOKS), Refused (SECRET-EXPOSED), Unavailable."""
        check_url(url)
        return cls(url, parse_secret(read_secret(secret)))


def cloud_event(kind: str, source: str, subject: str, at: int, data: Mapping[str, Any]) -> bytes:
    """The CloudEvent `kind` of `source` about `subject`; `at` in POSIX seconds. Its id follows from what it says."""
    listed = json.dumps(data, ensure_ascii=False, sort_keys=True)
    document = {
        "specversion": "1.0",
        "id": sha256(f"{source}\n{at}\n{listed}".encode())[:32],
        "source": source,
        "type": kind,
        "subject": subject,
        "time": format_time(at),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(document, ensure_ascii=False).encode()


def deliver(receiver: WebhookReceiver, event: bytes, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Post an event, at most as often as `PAUSES` has items. Blocking. Raises Unavailable (WEBHOOK)."""
    failure = Unavailable("the event was not delivered", code="WEBHOOK")
    for pause in PAUSES:
        sleep(pause)
        try:
            status = _post(receiver, event)
        except Unavailable as error:
            failure = error
            continue
        if 200 <= status < 300:
            return
        failure = Unavailable("the webhook refused the event", why=f"status {status}", code="WEBHOOK")
    raise failure


def _post(receiver: WebhookReceiver, event: bytes) -> int:
    poster = Poster()
    limit = threading.Timer(SECONDS, poster.close)
    limit.start()
    try:
        headers = signed_headers(receiver.key, message_id(event), int(time.time()), event)
        return poster.post(receiver.url, headers, event)
    finally:
        limit.cancel()
