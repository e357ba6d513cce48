"""Print the events of a running client call: progress, warnings and alarms."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity_client.events import Event


@contextlib.contextmanager
def follow(out: Output, what: str) -> Iterator[Callable[[Event], None]]:
    """Yield a handler that prints a client call's events on `out` until the block ends."""
    from comity_client import events

    with out.progress(what, 0) as progress:

        def handle(event: Event) -> None:
            match event:
                case events.Resolved():
                    out.prose(f"{event.title}  sha256:{event.artifact}  (by {event.basis})")
                case events.Started():
                    progress.restart(event.work)
                    here = f", {size(event.here)} of them already here" if event.here else ""
                    out.say(f"  {plural(event.files, 'file')}, {size(event.bytes)}{here}")
                case events.Progress():
                    progress.advance(event.count)
                case events.Advised():
                    who = "its publisher" if event.own else f"{event.advisory.by.kind} {event.advisory.by.id[:12]}"
                    advisory = event.advisory
                    out.warn(f"{advisory.kind} ({advisory.severity}) by {who}: {advisory.text}")
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
