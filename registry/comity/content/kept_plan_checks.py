"""The last check of each continuity plan that an operator gave to a node, for the console.

`comity continuity check PLAN --keep HOME` writes one file for each plan, mode 0600, because a plan says where a state
is weak. The newest check of a plan replaces the one before:

    HOME/continuity/<SHA-256 of owner and name of the plan>.json

    {"at":"2026-12-01T04:12:09Z","missing":[],"name":"Ministry of the Interior","owner":"51aa…","plan":"77c0…",
     "schema":"comity/kept-plan-check/v1","services":[{"dropped":0,"fallback":1,"longest_outage":60,"minutes":2,
     "missing":[],"name":"chat","replaced_by":"org/smollm2-chat@v1","state":"green","used_by":["letters to citizens"],
     "where":"own machine, 8 GiB …"}],"signer":"51aa…","stale_after_days":2,"until":"2027-06-30T23:59:59Z"}

It says what the machine that checked found then. Nothing in it is signed, and it counts for nobody but the operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.content.durable import disk_errors
from comity.rules.continuity.check import PlanChecked, ServiceChecked
from comity.rules.continuity.links import STATES, Link, State, worst
from comity.rules.continuity.plan import (
    MAX_DAYS,
    MAX_FALLBACKS,
    MAX_MINUTES,
    MAX_SERVICES,
    MAX_USERS,
    ContinuityPlan,
)
from comity.trust.codec import JsonItems, JsonNumber, JsonObject, JsonText, JsonTime, JsonWord
from comity.trust.encoding import Digest, canonical, parse_canonical, printable, sha256
from comity.trust.errors import ComityError, Malformed, OutOfSpace
from comity.trust.frozen import frozen

SCHEMA: Final = "comity/kept-plan-check/v1"
FOLDER: Final = "continuity"
"""In the node's home."""
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_PLANS: Final = 16
"""Plans of one node."""
MAX_LINKS: Final = 32
"""Links of one service that are kept; the others are counted."""
MAX_TEXT: Final = 300
MAX_NAME: Final = 200
DAY: Final = 86_400
_FILE: Final = re.compile(r"[0-9a-f]{64}\.json\Z")


@frozen
class MissingLink(JsonObject):
    """A link that does not hold, and how that is known. `by`: who says it; `hint`: the next command."""

    kind: Annotated[str, JsonText(64)]
    state: Annotated[State, JsonWord(STATES)]
    text: Annotated[str, JsonText(MAX_TEXT)]
    basis: Annotated[str, JsonText(64)]
    by: Annotated[str, JsonText(MAX_NAME, 0)]
    hint: Annotated[str, JsonText(MAX_TEXT, 0)]

    @classmethod
    def of(cls, link: Link) -> MissingLink:
        by, hint = _cut(link.by, MAX_NAME), _cut(link.hint, MAX_TEXT)
        return cls(link.kind, link.state, _cut(link.text, MAX_TEXT), link.basis, by, hint)


@frozen
class KeptService(JsonObject):
    """A service. `replaced_by` is the kit of fallback number `fallback`, which would be used; `minutes` what its last
    passed drill took; `dropped` counts links that are missing and were not kept."""

    name: Annotated[str, JsonText(64)]
    state: Annotated[State, JsonWord(STATES)]
    used_by: Annotated[tuple[str, ...], JsonItems(MAX_USERS, of=JsonText(MAX_NAME))]
    longest_outage: Annotated[int, JsonNumber(1, MAX_MINUTES)]
    replaced_by: Annotated[str, JsonText(MAX_NAME)]
    fallback: Annotated[int, JsonNumber(1, MAX_FALLBACKS)]
    where: Annotated[str, JsonText(MAX_TEXT)]
    minutes: int | None
    missing: Annotated[tuple[MissingLink, ...], JsonItems(MAX_LINKS)]
    dropped: int

    @classmethod
    def of(cls, checked: ServiceChecked) -> KeptService:
        used, service = checked.chosen, checked.service
        missing = [link for link in checked.problems if link.subject != "plan"]
        return cls(
            name=service.name,
            state=checked.state,
            used_by=service.used_by,
            longest_outage=service.longest_outage,
            replaced_by=_cut(used.fallback.kit.name, MAX_NAME),
            fallback=used.number,
            where=_cut(checked.where, MAX_TEXT),
            minutes=used.minutes,
            missing=tuple(map(MissingLink.of, missing[:MAX_LINKS])),
            dropped=max(0, len(missing) - MAX_LINKS),
        )


@frozen
class KeptPlanCheck(JsonObject):
    """The last check of a plan.

    Attributes:
        plan: SHA-256 of its file.
        signer: None where nobody signed it validly.
        until: the end of the plan's last day; like `at` in POSIX seconds.
        stale_after_days: for how long the plan lets a check count.
        missing: what is wrong with the plan itself, and so with each service.
    """

    constants: ClassVar = {"schema": SCHEMA}
    plan: Digest
    owner: Digest
    name: Annotated[str, JsonText(MAX_NAME)]
    signer: Digest | None
    until: Annotated[int, JsonTime()]
    stale_after_days: Annotated[int, JsonNumber(1, MAX_DAYS)]
    at: Annotated[int, JsonTime()]
    missing: Annotated[tuple[MissingLink, ...], JsonItems(MAX_LINKS)]
    services: Annotated[tuple[KeptService, ...], JsonItems(MAX_SERVICES, 1)]

    @classmethod
    def of(cls, checked: PlanChecked) -> KeptPlanCheck:
        plan = checked.plan
        return cls(
            plan=plan.digest,
            owner=plan.owner,
            name=plan.name,
            signer=checked.signer,
            until=plan.ends,
            stale_after_days=plan.stale_after_days,
            at=checked.at,
            missing=tuple(map(MissingLink.of, checked.of_plan[:MAX_LINKS])),
            services=tuple(map(KeptService.of, checked.services)),
        )

    @classmethod
    def parse(cls, data: bytes) -> KeptPlanCheck:
        """Raises Malformed."""
        return cls.from_json(parse_canonical(data, limit=MAX_BYTES, what="kept check of a plan"))

    @property
    def state(self) -> State:
        return worst(service.state for service in self.services)

    def stale(self, now: float) -> bool:
        """Whether it says nothing any more at `now`: it is older than the plan allows, the plan is over, or a clock is
        a day wrong."""
        return not self.at - DAY <= now <= min(self.at + self.stale_after_days * DAY, self.until)


@frozen
class UnreadPlanCheck:
    """A file that cannot be read, and why."""

    file: Path
    why: str


def keep_plan_check(home: Path, checked: PlanChecked) -> Path:
    """Keep a check in a node's home, in place of the one before of a plan with this owner and name. Blocking.

    Raises Malformed for a result that is too large, OutOfSpace (PLANS-KEPT) where others have all places, OutOfSpace,
    Unavailable.
    """
    data = canonical(KeptPlanCheck.of(checked).to_json())
    if len(data) > MAX_BYTES:
        raise Malformed("the check is not kept", why=f"it has {len(data)} bytes; at most {MAX_BYTES} are read")
    file = _file(home, checked.plan)
    with disk_errors("the check is not kept"):
        file.parent.mkdir(mode=0o700, exist_ok=True)
    others = [each for each in _files(home) if each != file]
    if len(others) >= MAX_PLANS:
        raise OutOfSpace(
            f"{home} has the checks of {len(others)} plans",
            why=f"it keeps those of {MAX_PLANS} plans",
            hint=f"remove what is not needed any more from {file.parent}",
            code="PLANS-KEPT",
        )
    durable.write_file(file, data, mode=0o600, point="continuity")
    return file


def kept_plan_checks(home: Path) -> list[KeptPlanCheck | UnreadPlanCheck]:
    """The checks in a node's home, by the names of their plans; what cannot be read comes last. Blocking. Raises
    Unavailable for a folder that cannot be read."""
    found = [_read(file) for file in _files(home)[:MAX_PLANS]]
    read = [each for each in found if isinstance(each, KeptPlanCheck)]
    unread = [each for each in found if isinstance(each, UnreadPlanCheck)]
    return [*sorted(read, key=lambda each: (each.name, each.owner)), *unread]


def _read(file: Path) -> KeptPlanCheck | UnreadPlanCheck:
    try:
        return KeptPlanCheck.parse(read_bounded(file, MAX_BYTES))
    except ComityError as error:
        return UnreadPlanCheck(file, error.why or error.what)


def _files(home: Path) -> Sequence[Path]:
    return sorted(_named(home / FOLDER))


def _named(folder: Path) -> Iterator[Path]:
    with disk_errors("the kept checks of plans were not read"):
        if not folder.is_dir():
            return
        yield from (file for file in folder.iterdir() if _FILE.match(file.name))


def _file(home: Path, plan: ContinuityPlan) -> Path:
    return home / FOLDER / f"{sha256(canonical([plan.owner, plan.name]))}.json"


def _cut(text: str, most: int) -> str:
    return printable(text)[:most]
