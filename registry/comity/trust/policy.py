"""The policy of whoever verifies: what they pin, and what they demand. TOML, under the owner's change control.

schema = "comity/policy/v1"
[[pin]]                          # charter bodies that decide who counts
file = "federation.json"         # a federation file, relative to the policy
body = "9f2c…"                   # this one of its bodies; the newest where none is named
[publishers]
accept = ["51aa…"]               # only these identities; empty or absent: any, shown by name
[publishers.rotations]           # keys retired up to this rotation of an identity count only below its cut
"51aa…" = "77c0…"
[cosigners]
at_least = 2                     # distinct members other than the log's own
jurisdictions = 2                # in at least so many jurisdictions
outside = ["publisher"]          # not counting these: codes, or "publisher" for its own and its log's
post_quantum = false
[licences]
accept = ["apache-2.0"]
[advisories]
refuse_from = ["51aa…"]          # identities or nodes whose advisories refuse
[time]
as_of = 2026-11-24T00:00:00Z     # judge freshness as of then; no clock is ever read
max_age_days = 30
[rows]
require = ["artifact", "bytes", "signatures", "transparency", "cosigners"]
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from comity.trust.charter import Body
from comity.trust.digest import Digest, parse_digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.federation import Federation
from comity.trust.identity import check_jurisdiction
from comity.trust.names import check_segment

T = TypeVar("T")

SCHEMA: Final = "comity/policy/v1"
ROWS: Final = (
    "artifact",
    "bytes",
    "signatures",
    "key policy",
    "transparency",
    "cosigners",
    "replicas",
    "lineage",
    "licence",
    "file safety",
    "documents",
    "notes",
    "disputes and advisories",
    "time",
    "crypto health",
    "policy",
)
UNJUDGED: Final = ("lineage", "file safety", "documents")
DEFAULT_REQUIRED: Final = ("artifact", "bytes", "signatures", "transparency", "cosigners")
DEFAULT_MAX_AGE_DAYS: Final = 30
PUBLISHER: Final = "publisher"
MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CosignerRule:
    """`at_least` distinct members, in `jurisdictions` distinct jurisdictions, none of them in `outside`."""

    at_least: int = 2
    jurisdictions: int = 0
    outside: tuple[str, ...] = (PUBLISHER,)
    post_quantum: bool = False


@dataclass(frozen=True, slots=True)
class Freshness:
    """Seconds since 1970 of the moment to judge, and how old the newest cosignature may be then."""

    as_of: int
    max_age: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What the verifier's owner pins and demands. `digest` names the exact text for the report."""

    pins: tuple[Body, ...] = ()
    publishers: frozenset[Digest] = frozenset()
    bindings: Mapping[str, Digest] = field(default_factory=dict)
    rotations: Mapping[Digest, Digest] = field(default_factory=dict)
    cosigners: CosignerRule = CosignerRule()
    licences: frozenset[str] = frozenset()
    refuse_from: frozenset[Digest] = frozenset()
    freshness: Freshness | None = None
    require: tuple[str, ...] = DEFAULT_REQUIRED
    digest: Digest | None = None

    def bound_publisher(self, namespace: str) -> Digest | None:
        """Who may publish under `namespace`: the owner's binding first, then the pinned bodies' (if they agree).

        However it is spelled: the Hub takes names that differ by case for one, and so do readers.
        """
        for bindings in (self.bindings.items(), [pair for body in self.pins for pair in body.namespaces.items()]):
            bound = {publisher for name, publisher in bindings if name.lower() == namespace.lower()}
            if bound:
                return bound.pop() if len(bound) == 1 else None
        return None


def parse_policy(text: bytes, read: Callable[[str], bytes]) -> Policy:
    """Read a policy file.

    Args:
        text: the TOML.
        read: gives the bytes of a federation file that `[[pin]]` names; may raise NotFound.

    Raises Malformed for unknown keys (with a guess what was meant) and values; Untrusted for a pin that does not hold.
    """
    if len(text) > MAX_BYTES:
        raise _wrong("policy", f"more than {MAX_BYTES} bytes")
    try:
        document = _Table(tomllib.loads(text.decode("utf-8")), "policy")
    except (ValueError, RecursionError) as error:
        raise _wrong("policy", f"not TOML: {str(error)[:200]}") from error
    if document.take("schema", str, SCHEMA) != SCHEMA:
        raise _wrong("policy", f"schema must be {SCHEMA!r}")
    pins = tuple(_pin(_Table(item, "policy.pin"), read) for item in document.take("pin", list, []))
    publishers = document.table("publishers")
    licences, advisories, rows = document.table("licences"), document.table("advisories"), document.table("rows")
    policy = Policy(
        pins=pins,
        publishers=frozenset(publishers.each("accept", parse_digest)),
        bindings=_bindings(publishers),
        rotations=_rotations(publishers),
        cosigners=_cosigners(document.table("cosigners")),
        licences=frozenset(item.lower() for item in licences.strings("accept")),
        refuse_from=frozenset(advisories.each("refuse_from", parse_digest)),
        freshness=_freshness(document.table("time")),
        require=rows.strings("require", DEFAULT_REQUIRED),
        digest=sha256(text),
    )
    for table in (publishers, licences, advisories, rows, document):
        table.done()
    _check_required(policy)
    return policy


class _Table:
    """A TOML table of which every key has to be asked for."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(what, "expected a table")
        self._rest = dict(value)
        self._asked: list[str] = []
        self._what = what

    def take(self, key: str, kind: type[Any] | tuple[type[Any], ...], default: Any) -> Any:
        self._asked.append(key)
        value = self._rest.pop(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _wrong(self._what, f"{key!r} has the wrong type")
        return value

    def table(self, key: str) -> _Table:
        return _Table(self.take(key, dict, {}), f"{self._what}.{key}")

    def strings(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        value = self.take(key, list, list(default))
        if not all(isinstance(item, str) for item in value):
            raise _wrong(self._what, f"{key!r} must be strings")
        return tuple(value)

    def each(self, key: str, read: Callable[[str], T], default: Sequence[str] = ()) -> tuple[T, ...]:
        """The strings called `key`, each as `read` understands it."""
        items = self.strings(key, default)
        with _naming(self._what, key):
            return tuple(read(item) for item in items)

    def done(self) -> None:
        for key in self._rest:
            close = difflib.get_close_matches(key, self._asked, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(self._asked)}"
            raise Malformed(f"{self._what} has an unknown key {key!r}", why=hint, code="POLICY-SYNTAX")


def _wrong(what: str, why: str) -> Malformed:
    return Malformed(f"{what} is malformed", why=why, code="POLICY-SYNTAX")


@contextlib.contextmanager
def _naming(what: str, key: str) -> Iterator[None]:
    """A value that is malformed is the policy's defect, at this key."""
    try:
        yield
    except Malformed as error:
        raise _wrong(what, f"{key!r}: {error}") from error


def _bindings(publishers: _Table) -> dict[str, Digest]:
    names = publishers.take("names", dict, {}).items()
    with _naming("policy.publishers", "names"):
        return {check_segment(name, "namespace"): parse_digest(item) for name, item in names}


def _rotations(publishers: _Table) -> dict[Digest, Digest]:
    pinned = publishers.take("rotations", dict, {}).items()
    with _naming("policy.publishers", "rotations"):
        return {parse_digest(identity): parse_digest(rotation) for identity, rotation in pinned}


def _pin(table: _Table, read: Callable[[str], bytes]) -> Body:
    file, expected = table.take("file", str, ""), table.take("body", str, "")
    table.done()
    if not file:
        raise _wrong("policy.pin", "it names no file")
    with _naming("policy.pin", "body"):
        pinned = parse_digest(expected) if expected else None
    federation = Federation.parse(read(file))
    body = federation.holds(pinned) if pinned else federation.body
    if body is None:
        why = f"{file} ends with charter body {federation.body.digest[:16]} and nowhere has {expected[:16]}"
        raise Untrusted("pin refused", why=why, code="PIN")
    return body


def _cosigners(table: _Table) -> CosignerRule:
    default = CosignerRule()
    rule = CosignerRule(
        at_least=table.take("at_least", int, default.at_least),
        jurisdictions=table.take("jurisdictions", int, default.jurisdictions),
        outside=table.each(
            "outside", lambda code: code if code == PUBLISHER else check_jurisdiction(code), default.outside
        ),
        post_quantum=table.take("post_quantum", bool, default.post_quantum),
    )
    table.done()
    if rule.at_least < 0 or rule.jurisdictions < 0:
        raise _wrong("policy.cosigners", "a count is negative")
    return rule


def _freshness(table: _Table) -> Freshness | None:
    as_of = table.take("as_of", (datetime.datetime, type(None)), None)
    days = table.take("max_age_days", (int, type(None)), None)
    table.done()
    if days is not None and (days < 0 or as_of is None):
        raise _wrong("policy.time", "'max_age_days' is a count of days before 'as_of'")
    if as_of is None:
        return None
    if as_of.tzinfo is None:
        raise _wrong("policy.time", "'as_of' needs an offset, such as Z")
    return Freshness(int(as_of.timestamp()), (DEFAULT_MAX_AGE_DAYS if days is None else days) * 86_400)


def _check_required(policy: Policy) -> None:
    """Refuse to require what is no row, or what could not pass under this very policy."""
    hopeless = dict.fromkeys(UNJUDGED, "this version does not judge it")
    hopeless["disputes and advisories"] = "nobody can prove that there is none; name issuers in advisories.refuse_from"
    if not policy.licences:
        hopeless["licence"] = "licences.accept names none"
    if policy.freshness is None:
        hopeless["time"] = "time.as_of names no moment"
    for row in policy.require:
        if row in hopeless:
            why = f"it could not pass: {hopeless[row]}"
            raise Malformed(f"policy cannot require {row!r}", why=why, code="POLICY-SYNTAX")
        if row not in ROWS[:-1]:
            close = difflib.get_close_matches(row, ROWS, 1)
            why = f"did you mean {close[0]!r}?" if close else f"rows are {', '.join(ROWS[:-1])}"
            raise Malformed(f"policy requires an unknown row {row!r}", why=why, code="POLICY-SYNTAX")
