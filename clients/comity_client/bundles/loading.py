"""Has a node on this machine load a bundle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.wire.bundle import LoadedArtifact, LoadedCharter, LoadedLog, LoadEnded
from comity.wire.client import NodeClient
from comity_client.bundles.folder import BundleFolder
from comity_client.bundles.serving import served
from comity_client.events import OnEvent, Progress, Started, ignore_event


@dataclass(slots=True)
class LoadResult:
    """What the node took, and what it did not, each with the node's reason.

    Attributes:
        disks: disks that were read, and those of the bundle.
        damaged: why a disk that was named was not read, by its folder.
        restored: whether a disk was restored from parity.
    """

    disks: tuple[int, int]
    damaged: dict[str, str]
    restored: bool
    charter: LoadedCharter | None = None
    logs: list[LoadedLog] = field(default_factory=list)
    artifacts: list[LoadedArtifact] = field(default_factory=list)
    not_listed: int = 0

    @property
    def changed(self) -> bool:
        """Whether the node has anything that it did not have before."""
        grown = self.charter is not None and self.charter.now > self.charter.before
        return grown or any(log.now > log.before for log in self.logs) or any(not item.code for item in self.artifacts)

    @property
    def refused(self) -> list[LoadedCharter | LoadedLog | LoadedArtifact]:
        """What was not taken."""
        every: list[LoadedCharter | LoadedLog | LoadedArtifact] = [*self.logs, *self.artifacts]
        if self.charter is not None:
            every.insert(0, self.charter)
        return [item for item in every if item.code]


async def load_bundle(
    folders: Sequence[Path],
    socket: Path,
    *,
    check: bool = False,
    on_event: OnEvent = ignore_event,
) -> LoadResult:
    """Have the node with this operator socket load the bundle in `folders`. Repeat it to continue.

    Args:
        check: read every file first, and compare it with the list of contents.

    Raises NotFound (NO-BUNDLE), Malformed and Untrusted (BUNDLE, WRONG-FEDERATION) before the node is asked to take
    anything; Conflict (LOADING); Unavailable.
    """
    bundle = await asyncio.to_thread(BundleFolder.open, folders)
    async with NodeClient.operator(socket) as client:
        await _require_federation(client, bundle)
        if check:
            await _check(bundle, on_event)
        code = bundle.index.code
        here = sum(number < code.data for number in bundle.disks)
        result = LoadResult((len(bundle.disks), code.total), bundle.damaged, bundle.whole and here < code.data)
        on_event(Started(len(bundle.layout.files), bundle.index.size, 0, bundle.index.size))
        async with served(bundle, socket, lambda count: on_event(Progress("", count))) as source:
            while not await _pass(client, source, result):
                pass
    return result


async def _pass(client: NodeClient, source: Path, result: LoadResult) -> bool:
    """One call. Returns whether the node has finished."""
    artifacts = {item.artifact: item for item in result.artifacts}
    logs = {log.log: log for log in result.logs}
    async with aclosing(client.bundles.load(source)) as events:
        async for event in events:
            match event:
                case LoadedCharter():
                    before = result.charter.before if result.charter else event.before
                    result.charter = LoadedCharter(before, event.now, event.why, event.code)
                case LoadedLog():
                    begun = logs[event.log].before if event.log in logs else event.before
                    logs[event.log] = replace(event, before=begun)
                case LoadedArtifact():
                    artifacts[event.artifact] = event
                case LoadEnded():
                    result.logs, result.artifacts = list(logs.values()), list(artifacts.values())
                    result.not_listed = event.not_listed
                    return event.finished
    raise Malformed("the node ended the load without a result", why="its last event is missing")


async def _require_federation(client: NodeClient, bundle: BundleFolder) -> None:
    """Raises Untrusted (WRONG-FEDERATION)."""
    try:
        federation: str = sha256((await client.charter(0)).body)
    except NotFound:
        federation = ""
    if federation != bundle.index.federation:
        why = f"it says {bundle.index.federation[:16] or 'none'}, the node follows {federation[:16] or 'none'}"
        raise Untrusted("this bundle is of another federation", why=why, hint="comity status", code="WRONG-FEDERATION")


async def _check(bundle: BundleFolder, on_event: OnEvent) -> None:
    """Raises Untrusted (BUNDLE)."""
    on_event(Started(len(bundle.layout.files), bundle.index.size, 0, bundle.index.size))
    bad = await asyncio.to_thread(bundle.check, lambda count: on_event(Progress("", count)))
    if bad:
        why = f"{len(bad)} files are not as listed, such as {bad[0]}"
        raise Untrusted("this bundle is damaged", why=why, hint="copy it again from where it was made", code="BUNDLE")
