"""A node whose readers may have repositories of a Hub mirrored, and a block on the link from the Hub's
content server.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from support.gateway import GatewayNode, gateway_node
from support.hub_like import Answer, Asked, HubLike


@contextlib.asynccontextmanager
async def reading_through(
    folder: Path, hub: HubLike, allow: Sequence[str] = ("org/*",), *, most: int = 1 << 40, **gateway: object
) -> AsyncIterator[GatewayNode]:
    hosts = [hub.cdn.removeprefix("http://")]
    upstream = {"allow": list(allow), "endpoint": hub.url, "hosts": hosts, "largest_bytes": most}
    settings: dict[str, Any] = {"cold": "upstream", **gateway}
    async with gateway_node(folder, upstream, **settings) as node:
        yield node


@contextlib.contextmanager
def held_back(
    hub: HubLike, until: int, forge: Callable[[bytes], bytes] = lambda data: data
) -> Iterator[threading.Event]:
    """The first `until` bytes of each file of the content server pass, the rest once the event is set. `forge` changes
    the file before it passes, and keeps its length.
    """
    opened = threading.Event()

    def interfere(asked: Asked) -> Answer | None:
        data = content(hub, asked)
        if data is None:
            return None
        if asked.offset >= until:
            opened.wait()
        rest = forge(data)[asked.offset :]
        said = {"Content-Range": f"bytes {asked.offset}-{len(data) - 1}/{len(data)}", "Content-Length": str(len(rest))}
        cut = None if opened.is_set() else until - asked.offset
        return Answer(206 if asked.offset else 200, rest, said, cut=cut)

    hub.interfere = interfere
    try:
        yield opened
    finally:
        opened.set()
        hub.interfere = lambda asked: None


def content(hub: HubLike, asked: Asked) -> bytes | None:
    """The file that the content server is asked for."""
    blobs = (
        blob for repository in hub.repositories.values() for made in repository.commits for blob in made.files.values()
    )
    return next((blob.data for blob in blobs if asked.cdn and asked.path == f"/{blob.sha256}"), None)


def fetched(hub: HubLike) -> list[str]:
    """The ranges that were asked for, each as often as it was."""
    return [asked.path.rpartition("/")[2] for asked in hub.asked if "/resolve/" in asked.path]
