"""Print the events of a running client call: progress, warnings and alarms."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from comity_cli.copies_view import date
from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity.trust.encoding import Digest
    from comity_client.cache_basis import CacheBasis
    from comity_client.events import Event


def binding_command(title: str, basis: str, publisher: Digest | None) -> str:
    """How a reader makes a name that is only claimed its own decision; empty where the name is decided, or no publisher
    signed the artifact."""
    from comity.trust.resolution import NOT_BOUND

    if publisher is None or not basis.endswith(NOT_BOUND):
        return ""
    return f"compare the id with its publisher: comity trust bind {title.partition('/')[0]} {publisher[:16]}"


@contextlib.contextmanager
def follow(out: Output, what: str) -> Iterator[Callable[[Event], None]]:
    """Yield a handler that prints a client call's events on `out` until the block ends."""
    from comity_client import events

    with out.progress(what, 0) as progress:

        def handle(event: Event) -> None:
            match event:
                case events.Resolved():
                    out.prose(f"{event.title}  sha256:{event.artifact}  (by {event.basis})")
                    if binding := binding_command(event.title, event.basis, event.publisher):
                        out.fact("to bind it", binding)
                case events.Started():
                    progress.restart(event.work)
                    here = f", {size(event.here)} of them already here" if event.here else ""
                    out.say(f"  {plural(event.files, 'file')}, {size(event.bytes)}{here}")
                case events.Progress():
                    progress.advance(event.count)
                case events.Advised():
                    out.warn(str(event))
                case events.MisbehaviourFound():
                    out.warn(f"ALERT {event.text}" + (f"  Next: {event.hint}" if event.hint else ""))
                case events.SourceDropped():
                    out.warn(f"{event.node} is no longer used for {event.path}: {event.why}")
                case events.NodeAtFault():
                    out.warn(f"{event.node} gave no usable answer: {event.why}")
                case events.Waiting():
                    out.warn(f"another pull is fetching {event.path}; waiting for it")
                case events.Note():
                    out.warn(event.text)
                case events.FileDone() | events.PolicyJudged() | events.SourceFailed():
                    pass

        yield handle


def show_cache_basis(out: Output, cache: CacheBasis, how: str, now: float) -> None:
    """Say that no node gave it, how the copy here was verified, and how old its evidence is."""
    out.warn(f"{cache.text}, {how}")
    if cache.cosigned_at is None:
        out.fact("log heads", "no cosigned head is in the evidence, so its age is unknown")
    else:
        days = max(0, int(now - cache.cosigned_at)) // 86_400
        seen = date(cache.cosigned_at // 86_400)
        out.fact("log heads", f"last cosigned on {seen}, {plural(days, 'day')} ago by the clock here")
    out.fact("not known", "later corrections, advisories and withdrawals; run it again when a node can be reached")
