"""Tells a receiver of differences: one signed CloudEvent for each inventory that has some.

A receiver that does not answer costs a bounded time and no difference: what was not delivered is kept in the inventory,
and is in the next event. It can come twice; `webhook-id` is the same for the same event.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from comity.content.secrets import read_secret
from comity.trust.encoding import format_time, sha256
from comity.trust.errors import Unavailable
from comity.trust.frozen import frozen
from comity.webhook_requests import Poster, check_url, message_id, parse_secret, signed_headers

from comity_client.inventory.inventory import MAX_LISTED, Inventory, InventoryDifference

TYPE: Final = "dev.comity.inventory.v1"
PAUSES: Final = (0.0, 2.0, 10.0)
"""Seconds before each attempt."""
SECONDS: Final = 20.0
"""Seconds that one attempt takes at most, however slowly the receiver answers."""


@frozen
class WebhookReceiver:
    """Where differences are posted, and the key of the signatures."""

    url: str
    key: bytes

    @classmethod
    def of(cls, url: str, secret: Path) -> WebhookReceiver:
        """Blocking. Raises Malformed (WEBHOOKS), Refused (SECRET-EXPOSED), Unavailable."""
        check_url(url)
        return cls(url, parse_secret(read_secret(secret)))


def event_of(inventory: Inventory, told: Sequence[InventoryDifference]) -> bytes:
    """The CloudEvent that tells of differences: the first `MAX_LISTED`, which are the most urgent, and the count of
    each kind of all."""
    source = f"urn:comity:inventory:{inventory.machine}"
    data = {
        "basis": "here",
        "machine": inventory.machine,
        "counts": dict(Counter(each.kind for each in told)),
        "differences": [each.to_json() for each in told[:MAX_LISTED]],
    }
    listed = json.dumps(data, ensure_ascii=False, sort_keys=True)
    document = {
        "specversion": "1.0",
        "id": sha256(f"{source}\n{inventory.taken}\n{listed}".encode())[:32],
        "source": source,
        "type": TYPE,
        "subject": inventory.machine,
        "time": format_time(inventory.taken),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(document, ensure_ascii=False).encode()


def deliver(receiver: WebhookReceiver, event: bytes, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Post an event, at most as often as `PAUSES` has items. Blocking. Raises Unavailable (WEBHOOK)."""
    failure = Unavailable("the differences were not delivered", code="WEBHOOK")
    for pause in PAUSES:
        sleep(pause)
        try:
            status = _post(receiver, event)
        except Unavailable as error:
            failure = error
            continue
        if 200 <= status < 300:
            return
        failure = Unavailable("the webhook refused the differences", why=f"status {status}", code="WEBHOOK")
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
