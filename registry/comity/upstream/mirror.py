"""A whole commit into a folder: pinned once, listed once, several files at once, each whole and compared, or nothing.

The folder is the importer's own. Files lie in it under numbers, in the order of the listing, so that no name of a
stranger ever touches this disk. What a killed import left is taken up by the next one of the same commit.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from comity.content.durable import disk_errors
from comity.trust.digest import Digest
from comity.trust.errors import OutOfSpace, Unavailable
from comity.trust.upstream.comparing import Listed, Observation
from comity.trust.upstream.naming import Wanted
from comity.upstream.audience import NOBODY, Audience
from comity.upstream.download import Downloads, Patience, Work
from comity.upstream.listing import MAX_TOTAL, HubApi, Listing, Standing, gated
from comity.upstream.reach import Reach
from comity.upstream.session import MAX_RETRY_AFTER, Later

FILES_AT_ONCE: Final = 4
AWAITED_AT_ONCE: Final = 24
"""Of files that somebody waits for: a stock client asks for eight of them at once, and takes a refusal for an end."""
LOOK: Final = 0.2
"""Seconds after which it is asked again which files are waited for."""
SPARE: Final = 256 * 1024 * 1024
"""Bytes of the disk that an import leaves free."""
TRIES: Final = 5
SLICE: Final = 1.0
"""Seconds of waiting in one go."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """What to mirror, from where, and on which conditions: `terms` is the text of those that the operator accepted,
    `most` the bytes that the repository may have."""

    wanted: Wanted
    reach: Reach
    terms: bytes = b""
    patience: Patience = field(default_factory=Patience)
    most: int = MAX_TOTAL


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A commit that is here whole: each file's observation and where its bytes lie, in the order of the listing."""

    listing: Listing
    observations: tuple[Observation, ...]
    paths: tuple[Path, ...]
    tls: Digest | None


class _Together(Work):
    """The work of several downloads, of which none goes on when one has failed."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._turn = threading.Lock()
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def progress(self, path: str, count: int) -> None:
        if self._ended.is_set():
            raise CancelledError
        with self._turn:
            self._work.progress(path, count)

    def wait(self, seconds: float, why: str) -> None:
        while seconds > 0:
            self._work.wait(min(seconds, SLICE), why)
            if self._ended.is_set():
                raise CancelledError
            seconds -= SLICE


def stands(order: Order, work: Work) -> Standing:
    """What is wanted, as it stands now. Raises as `HubApi` does."""
    api = HubApi(order.reach, patience=order.patience.silence)
    return _patiently(order, work, lambda: api.standing(order.wanted))


def pin(order: Order, work: Work) -> Standing:
    """The same, on conditions that are met: Refused (UPSTREAM-GATED) where terms would have to be accepted first."""
    standing = stands(order, work)
    if standing.gated and not order.terms:
        raise gated(standing.upstream.name, order.reach.origin)
    return standing


def listed(order: Order, standing: Standing, work: Work) -> Listing:
    """Raises as `HubApi` does."""
    api = HubApi(order.reach, patience=order.patience.silence)
    return _patiently(order, work, lambda: api.listing(standing))


def fetch(order: Order, listing: Listing, folder: Path, work: Work, audience: Audience = NOBODY) -> Mirrored:
    """Have every file of the listing in `folder`. Raises as `Downloads.fetch` does, and OutOfSpace."""
    upstream = listing.standing.upstream
    paths = tuple(folder / f"{number:06d}" for number in range(len(listing.files)))
    if listing.size > order.most:
        why = f"it has {listing.size} bytes, and at most {order.most} are taken in"
        hint = f"its operator can import it: comity import {upstream.name}"
        raise OutOfSpace(f"{upstream.name} is too large here", why=why, hint=hint, code="UPSTREAM-TOO-LARGE")
    with disk_errors(f"{upstream.name} was not mirrored"):
        require_room(folder, listing, paths)
    audience.expected(listing, paths)
    together = _Together(work)
    downloads = Downloads(order.reach, upstream.repository, upstream.commit, order.patience, together)
    try:
        observations = _all(downloads, listing.files, paths, together, audience)
    finally:
        downloads.close()
    shown = downloads.tls - {None}
    tls = next(iter(shown)) if len(shown) == 1 and None not in downloads.tls else None
    return Mirrored(listing, observations, paths, tls)


def _all(
    downloads: Downloads, files: Sequence[Listed], paths: Sequence[Path], together: _Together, audience: Audience
) -> tuple[Observation, ...]:
    """The first failure ends all the others."""
    turns = _Turns(files, audience)
    running: dict[Future[Observation], int] = {}
    found: dict[int, Observation] = {}
    with ThreadPoolExecutor(AWAITED_AT_ONCE, thread_name_prefix="import") as pool:
        try:
            while len(found) < len(files):
                for number in turns.take(len(running)):
                    given = files[number], paths[number], audience.of(number)
                    running[pool.submit(downloads.fetch, *given)] = number
                for future in wait(running, LOOK, FIRST_COMPLETED).done:
                    number = running.pop(future)
                    found[number] = future.result()
                    audience.whole(number, found[number])
        except BaseException:
            together.end()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return tuple(found[number] for number in range(len(files)))


class _Turns:
    """Which files are begun next: those that are waited for, then those outside LFS, whose SHA-256 nobody knows before
    they are here, then the largest."""

    def __init__(self, files: Sequence[Listed], audience: Audience) -> None:
        order = sorted(range(len(files)), key=lambda n: (files[n].lfs is not None, -files[n].size))
        self._left = dict.fromkeys(order)
        self._audience = audience

    def take(self, running: int) -> Iterator[int]:
        """The numbers of files to begin now, beside so many that are under way."""
        if not self._left:
            return
        awaited = [number for number in self._audience.awaited() if number in self._left]
        for number in awaited[: max(0, AWAITED_AT_ONCE - running)]:
            del self._left[number]
            running += 1
            yield number
        while self._left and running < FILES_AT_ONCE:
            number = next(iter(self._left))
            del self._left[number]
            running += 1
            yield number


def require_room(folder: Path, listing: Listing, paths: Sequence[Path]) -> None:
    """Raises OutOfSpace where the disk below `folder` has no room for what is not at `paths` yet."""
    here = sum(path.stat().st_size for path in paths if path.exists())
    missing, free = max(0, listing.size - here), shutil.disk_usage(folder).free
    if free < missing + SPARE:
        why = f"{missing} bytes to come, {free} free"
        hint = "free some space and run the same command again"
        raise OutOfSpace(f"no room for {listing.standing.upstream.name}", why=why, hint=hint)


def _patiently(order: Order, work: Work, ask: Callable[[], T]) -> T:
    """Ask, and ask again where the upstream says when, or may be better off in a moment."""
    for number in range(TRIES):
        try:
            return ask()
        except Later as later:
            pause = order.patience.pause * 2**number if later.seconds is None else later.seconds
            if pause > min(order.patience.later, MAX_RETRY_AFTER):
                break
            work.wait(pause, str(later))
        except Unavailable as error:
            if error.code != "UPSTREAM-UNREACHABLE" or number == TRIES - 1:
                raise
            work.wait(order.patience.pause * 2**number, error.what)
    hint = "try again later"
    raise Unavailable(f"{order.reach.origin} asks to come back later", hint=hint, code="UPSTREAM-BUSY")
