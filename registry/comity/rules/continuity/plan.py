"""Continuity plans: which services an organisation uses, and what replaces each one on the day it is cut off. Pure.

A plan is a TOML file that a person writes. All keys:

schema = "comity/continuity-plan/v1"
owner = "51aa…"                        # the identity whose plan it is: its id with all 64 digits
name = "Ministry of the Interior"
until = 2027-06-30                     # the last day on which the plan counts
stale_after_days = 2                   # optional: then what is shown of the last check is stale
[policy]                               # the policy by which kits are judged; without it, the pins of the user who asks
file = "policy.toml"                   # relative to the plan
sha256 = "9f2c…"                       # its SHA-256, so that the signature of the plan covers it
[[service]]
name = "chat"
in_use = { kind = "external", vendor = "Example AI Inc.", jurisdiction = "US", base_url = "https://…" }
                                       # or { kind = "kit", name = "org/chat@v1", artifact = "9f2c…" }
used_by = ["letters to citizens"]
must_survive = ["reach:US", "dns", "package-index"]     # parties, as `comity drill` and `comity impact` name them
longest_outage = 60                    # minutes
[[service.fallback]]                   # what replaces it, in this order
kit = { name = "org/smollm2-chat@v1", artifact = "77c0…" }
evaluation = { by = "51aa…", suite = "letters", metric = "pass_rate", at_least = "0.9", within_days = 180 }
approval = { scope = "ministry-interior", by = ["3c00…"], at_least = 1 }
machines = { own = { memory_gib = 8, disk_gib = 20, accelerators = 0, platform = "linux/x86_64" } }
                                       # or { offer = "…" }, { grant = "…" }, { pact = "…" }: the digest of the record
copies = { outside = 2, tested_within_days = 7 }
checked_within_days = 7                # a passed `comity kit check` that is at most so old
drilled_within_days = 90               # a passed `comity continuity drill` that is at most so old

Nothing here says whether any of it holds: `comity.rules.continuity.check` does. An identity signs the SHA-256 of the
file (`PlanStatement`), and the signature lies beside the file. Source: docs/continuity.md.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Annotated, ClassVar, Final, Literal, TypeAlias, cast

from comity.rules.parties import JURISDICTION, MEMBER, PUBLISHER, REACH, UNNAMED_KINDS, Party, parse_party
from comity.rules.toml_table import TomlTable, read_toml
from comity.trust.approvals import check_scope
from comity.trust.codec import JsonTime
from comity.trust.content import ById, Content, Label, SubjectDigest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.eval_result import DECIMAL
from comity.trust.frozen import frozen
from comity.trust.identity import check_jurisdiction
from comity.trust.names import Reference, parse_id
from comity.trust.statement_kinds import CONTINUITY_PLAN

SCHEMA: Final = "comity/continuity-plan/v1"
WHAT: Final = "continuity plan"
MAX_SERVICES: Final = 200
MAX_FALLBACKS: Final = 16
MAX_PARTIES: Final = 64
MAX_USERS: Final = 64
MAX_APPROVERS: Final = 64
MAX_DAYS: Final = 3650
STALE_AFTER_DAYS: Final = 2
"""Where a plan says nothing: it is checked every day."""
MAX_COPIES: Final = 100
MAX_MINUTES: Final = 1_000_000
MAX_ACCELERATORS: Final = 1_000_000
MAX_GIB: Final = 1_000_000_000

_FILE_NAME: Final = re.compile(r"[^/\\]{1,200}\Z")
_PLATFORM: Final = re.compile(r"[a-z0-9_]{1,32}/[a-z0-9_]{1,32}\Z")
_URL: Final = re.compile(r"https?://[^\s@?#]{1,400}\Z")
_SERVICE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


@frozen
class KitReference:
    """A kit, by digest. `name` is for people; the digest decides."""

    name: str
    artifact: Digest


@frozen
class ExternalService:
    """A service of somebody else, that runs at their place."""

    vendor: str
    jurisdiction: str
    base_url: str = ""


@frozen
class DemandedEvaluation:
    """An evaluation that the kit must have met: announced before its result, by `by`, at most `within_days` old."""

    by: Digest
    suite: str
    metric: str
    at_least: str
    within_days: int


@frozen
class DemandedApproval:
    """Approvals that must be in force: by `at_least` of these identities, for exactly this scope."""

    scope: str
    by: tuple[Digest, ...]
    at_least: int = 1


@frozen
class OwnMachine:
    """A machine of the owner. Memory and disk are in bytes; `platform` is as `linux/x86_64`."""

    memory: int
    disk: int
    accelerators: int
    platform: str


@frozen
class AgreedMachines:
    """Machines of somebody else, by the digest of the record."""

    record: Literal["offer", "grant", "pact"]
    digest: Digest


Machines: TypeAlias = OwnMachine | AgreedMachines


@frozen
class DemandedCopies:
    """Copies that must be with `outside` members that none of the parties takes, each tested within so many days."""

    outside: int
    tested_within_days: int


@frozen
class Fallback:
    """What replaces a service. What is None is not asked for."""

    kit: KitReference
    machines: Machines
    copies: DemandedCopies
    checked_within_days: int
    drilled_within_days: int
    evaluation: DemandedEvaluation | None = None
    approval: DemandedApproval | None = None


@frozen
class Service:
    """A service in use. `longest_outage` is in minutes."""

    name: str
    in_use: ExternalService | KitReference
    used_by: tuple[str, ...]
    must_survive: tuple[Party, ...]
    longest_outage: int
    fallbacks: tuple[Fallback, ...]


@frozen
class PlanPolicy:
    """The policy of the plan: a file beside it, by digest."""

    name: str
    sha256: Digest


@frozen
class ContinuityPlan:
    """A plan. `digest` is the SHA-256 of the file, which its signature covers. A check that is older than
    `stale_after_days` says nothing any more."""

    owner: Digest
    name: str
    until: date
    services: tuple[Service, ...]
    digest: Digest
    policy: PlanPolicy | None = None
    stale_after_days: int = STALE_AFTER_DAYS

    @property
    def ends(self) -> int:
        """The end of its last day (UTC), in seconds since 1970."""
        return int(datetime.combine(self.until, time(23, 59, 59), UTC).timestamp())

    def service(self, name: str) -> Service | None:
        return next((service for service in self.services if service.name == name), None)


def parse_plan(data: bytes) -> ContinuityPlan:
    """Read a plan. Raises Malformed, which names the place in the file and what would be right there."""
    table = read_toml(data, WHAT)
    table.one_of("schema", (SCHEMA,))
    owner = _digest(table, "owner", "the id of the identity whose plan it is")
    name, until = table.text("name"), table.day("until")
    stale = table.number("stale_after_days", 1, MAX_DAYS, STALE_AFTER_DAYS)
    policy = _policy(table.table("policy")) if table.has("policy") else None
    services = tuple(map(_service, table.tables("service", most=MAX_SERVICES, name="service")))
    table.done()
    names = [service.name for service in services]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise table.error(f"two services have the name {twice!r}; each needs its own")
    return ContinuityPlan(owner, name, until, services, sha256(data), policy, stale)


def _policy(table: TomlTable) -> PlanPolicy:
    name = table.parsed("file", _file_name, "the name of a file beside the plan, without slashes")
    policy = PlanPolicy(name, _digest(table, "sha256", "the SHA-256 of the policy file"))
    table.done()
    return policy


def _service(table: TomlTable) -> Service:
    service = Service(
        name=table.parsed("name", _service_name, "1 to 64 small letters, digits and ._-"),
        in_use=_in_use(table.table("in_use")),
        used_by=table.texts("used_by", most=MAX_USERS),
        must_survive=_parties(table),
        longest_outage=table.number("longest_outage", 1, MAX_MINUTES),
        fallbacks=tuple(map(_fallback, table.tables("fallback", most=MAX_FALLBACKS, name="fallback"))),
    )
    table.done()
    return service


def _in_use(table: TomlTable) -> ExternalService | KitReference:
    if table.one_of("kind", ("external", "kit")) == "kit":
        return _kit(table)
    external = ExternalService(
        vendor=table.text("vendor"),
        jurisdiction=table.parsed("jurisdiction", check_jurisdiction, 'a country code, such as "US"'),
        base_url=table.parsed("base_url", _url, "an http(s) URL without user, query or #")
        if table.has("base_url")
        else "",
    )
    table.done()
    return external


def _parties(table: TomlTable) -> tuple[Party, ...]:
    texts = table.texts("must_survive", most=MAX_PARTIES)
    if not texts:
        raise table.wrong("must_survive", f"1 to {MAX_PARTIES} parties, such as {_PARTY_FORMS}", None)
    return tuple(dict.fromkeys(table.parse("must_survive", text, _party, _PARTY_FORMS) for text in texts))


_PARTY_FORMS: Final = (
    '"reach:US", "jurisdiction:US", "member:ID", "publisher:ID", "cloud:NAME", "hub:NAME", '
    + ", ".join(f'"{kind}"' for kind in sorted(UNNAMED_KINDS))
)


def _party(text: str) -> Party:
    """A party; members and publishers by all digits of their ids."""
    party = parse_party(text)
    if party.kind in (MEMBER, PUBLISHER):
        return Party(party.kind, parse_id(party.name))
    if party.kind in (JURISDICTION, REACH):
        check_jurisdiction(party.name)
    return party


def _fallback(table: TomlTable) -> Fallback:
    fallback = Fallback(
        kit=_kit(table.table("kit")),
        machines=_machines(table.table("machines")),
        copies=_copies(table.table("copies")),
        checked_within_days=table.number("checked_within_days", 1, MAX_DAYS),
        drilled_within_days=table.number("drilled_within_days", 1, MAX_DAYS),
        evaluation=_evaluation(table.table("evaluation")) if table.has("evaluation") else None,
        approval=_approval(table.table("approval")) if table.has("approval") else None,
    )
    table.done()
    return fallback


def _kit(table: TomlTable) -> KitReference:
    name = table.parsed("name", _kit_name, 'the name of a publication, such as "org/chat@v1"')
    kit = KitReference(name, _digest(table, "artifact", "the digest of the kit's manifest"))
    table.done()
    return kit


def _evaluation(table: TomlTable) -> DemandedEvaluation:
    evaluation = DemandedEvaluation(
        by=_digest(table, "by", "the id of the evaluator"),
        suite=table.text("suite"),
        metric=table.text("metric"),
        at_least=table.parsed("at_least", _decimal, 'a decimal number in quotes, such as "0.9"'),
        within_days=table.number("within_days", 1, MAX_DAYS),
    )
    table.done()
    return evaluation


def _approval(table: TomlTable) -> DemandedApproval:
    by = tuple(table.parse("by", text, parse_id, _ID) for text in table.texts("by", most=MAX_APPROVERS))
    if not by or len(set(by)) != len(by):
        raise table.wrong("by", "a list of at least one officer's id, each once", list(by) or None)
    scope = table.parsed("scope", check_scope, 'a scope as `comity approve` takes it, such as "hospital-bern"')
    at_least = table.number("at_least", 1, len(by), 1)
    table.done()
    return DemandedApproval(scope, by, at_least)


def _machines(table: TomlTable) -> Machines:
    kinds = [kind for kind in ("own", "offer", "grant", "pact") if table.has(kind)]
    if len(kinds) != 1:
        raise table.error("give one of own = {…}, offer, grant and pact")
    (kind,) = kinds
    machines: Machines
    if kind == "own":
        machines = _own(table.table("own"))
    else:
        record = cast(Literal["offer", "grant", "pact"], kind)
        machines = AgreedMachines(record, _digest(table, kind, f"the digest of the {kind}"))
    table.done()
    return machines


def _own(table: TomlTable) -> OwnMachine:
    own = OwnMachine(
        memory=table.number("memory_gib", 1, MAX_GIB) << 30,
        disk=table.number("disk_gib", 1, MAX_GIB) << 30,
        accelerators=table.number("accelerators", 0, MAX_ACCELERATORS, 0),
        platform=table.parsed("platform", _platform, 'system and processor, such as "linux/x86_64"'),
    )
    table.done()
    return own


def _copies(table: TomlTable) -> DemandedCopies:
    copies = DemandedCopies(
        outside=table.number("outside", 1, MAX_COPIES),
        tested_within_days=table.number("tested_within_days", 1, MAX_DAYS),
    )
    table.done()
    return copies


_ID: Final = "an id with all its 64 digits"


def _digest(table: TomlTable, key: str, what: str) -> Digest:
    return table.parsed(key, parse_id, f"{what}: 64 hex digits")


def _file_name(text: str) -> str:
    return _fits(_FILE_NAME, text)


def _service_name(text: str) -> str:
    return _fits(_SERVICE, text)


def _url(text: str) -> str:
    return _fits(_URL, text)


def _platform(text: str) -> str:
    return _fits(_PLATFORM, text)


def _fits(form: re.Pattern[str], text: str) -> str:
    if not form.match(text):
        raise Malformed(f"{text[:60]!r} has another form")
    return text


def _kit_name(text: str) -> str:
    reference = Reference.parse(text)
    if not reference.version:
        raise Malformed(f"{text[:60]!r} has no version")
    return text


def _decimal(text: str) -> str:
    return _fits(DECIMAL, text)


@frozen
class PlanStatement(Content):
    """An identity signs its continuity plan. The subject is the SHA-256 of the file, which is not a side object.

        {"by":{"identity":"51aa…"},"time":"2026-11-27T09:30:00Z","until":"2027-06-30T23:59:59Z"}

    `time` and `until`, the end of the plan's last day, are in seconds since 1970. Source: protocol, section 5.
    """

    predicate: ClassVar = CONTINUITY_PLAN
    by: ById
    plan: SubjectDigest
    time: Annotated[int, JsonTime(), "The time of signing, as the signer claims."]
    until: Annotated[int, JsonTime(), "The end of the plan's last day."]
    name: Label = ""

    @classmethod
    def of(cls, plan: ContinuityPlan, time: int) -> PlanStatement:
        """What its owner signs at `time`."""
        return cls(plan.owner, plan.digest, time, plan.ends, plan.name)
