"""What a check of a continuity plan leaves: a page for people who decide, a file of metrics, an event when a service
has another colour than the one that was told last, and, in this user's home, which that was.

`continuity/<plan's owner and name>.json` in the home has the colour of each service that a receiver was told, so that a
receiver that did not answer is told with the next check.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.rules.continuity.check import PlanChecked, counts
from comity.rules.continuity.links import GREEN, STATES, State
from comity.trust.encoding import canonical, format_time, parse_canonical, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen

from comity_client.home import Home
from comity_client.metrics_file import file_of, gauge, labelled
from comity_client.reports import page_template
from comity_client.webhook_events import cloud_event

TYPE: Final = "dev.comity.continuity.v1"
MAX_TOLD: Final = 256 * 1024
STATE_WORDS: Final[Mapping[State, str]] = {
    "green": "replaced",
    "amber": "replaced, with gaps",
    "red": "NOT replaced",
}
"""What the colour of a service means, for people who print in black and white."""


@frozen
class ColourChange:
    """A service with another colour than was told last. `before` is green for one that was never told."""

    service: str
    before: State
    now: State


def colour_changes(told: Mapping[str, State], checked: PlanChecked) -> tuple[ColourChange, ...]:
    """The services whose colour a receiver does not know."""
    pairs = ((each.service.name, told.get(each.service.name, GREEN), each.state) for each in checked.services)
    return tuple(ColourChange(name, before, now) for name, before, now in pairs if before != now)


def read_told(home: Home, checked: PlanChecked) -> dict[str, State]:
    """The colours that were told last; none at first, or where what was kept cannot be read."""
    try:
        kept = parse_canonical(read_bounded(_told_path(home, checked), MAX_TOLD), limit=MAX_TOLD)
    except (NotFound, Malformed):
        return {}
    pairs = kept.items() if isinstance(kept, dict) else ()
    known = {state: state for state in STATES}
    return {name: known[state] for name, state in pairs if isinstance(state, str) and state in known}


def keep_told(home: Home, checked: PlanChecked) -> None:
    """Keep the colours of this check as told. Raises OutOfSpace, Unavailable."""
    home.ensure(home.continuity)
    told = {each.service.name: each.state for each in checked.services}
    durable.write_file(_told_path(home, checked), canonical(dict(told)), mode=0o600, point="continuity")


def _told_path(home: Home, checked: PlanChecked) -> Path:
    plan = checked.plan
    return home.continuity / f"{sha256(json.dumps([plan.owner, plan.name]).encode())}.json"


def event_of(checked: PlanChecked, changes: Sequence[ColourChange]) -> bytes:
    """The CloudEvent that tells of services with another colour, and what is not green of each."""
    services = {each.service.name: each for each in checked.services}
    data = {
        "basis": "here",
        "plan": checked.plan.digest,
        "counts": dict(counts(checked)),
        "services": [
            {
                "service": change.service,
                "before": change.before,
                "now": change.now,
                "links": [{"kind": link.kind, "text": link.text} for link in services[change.service].problems],
            }
            for change in changes
        ],
    }
    name = checked.plan.name
    return cloud_event(TYPE, f"urn:comity:continuity:{checked.plan.owner}", name, checked.at, data)


def metrics_text(checked: PlanChecked) -> str:
    """The counts of a check, and the colour and the last minutes of each service."""
    by_name = {each.service.name: each for each in checked.services}
    colours = {_service(name): STATES.index(each.state) for name, each in by_name.items()}
    minutes = {_service(name): each.chosen.minutes for name, each in by_name.items()}
    known = {label: value for label, value in minutes.items() if value is not None}
    at, ends = {"": checked.at}, {"": checked.plan.ends}
    numbers = counts(checked)
    lines = (
        *gauge("continuity_checked_timestamp_seconds", "When the plan was checked", at),
        *gauge("continuity_plan_ends_timestamp_seconds", "When the plan ends", ends),
        *gauge("continuity_services", "Services of the plan, by state", labelled("state", STATES, numbers)),
        *gauge("continuity_service_state", "State of a service: 0 green, 1 amber, 2 red", colours),
        *gauge("continuity_drill_minutes", "Minutes to the first verified answer in the last drill", known),
    )
    return file_of(iter(lines))


def _service(name: str) -> str:
    """The label of a service, whose name has letters, digits and `._-` only."""
    return f'{{service="{name}"}}'


def render_checked(checked: PlanChecked) -> str:
    """The page: self-contained HTML without a script."""
    return page_template("continuity.html").render(
        checked=checked,
        at=format_time(checked.at),
        counts=counts(checked),
        words=STATE_WORDS,
        missing=lambda service: [link for link in service.problems if link.subject != "plan"],
    )
