"""On which line of a policy file something stands, for errors. TOML's own parser does not say.

Reading a TOML table key by key: each is asked for, typed, and nothing is left over.

`[cosigners]`: how many other members must have seen the statement in its log, and where.

`[time]`: the moment to judge, and how old the cosignatures may be then.

`[lineage]`: what the owner asks of what a model is made from.

The names of the rows, in the order in which a verdict shows them.

`[documents]`: which documents a publisher has to put beside an artifact. Their words are nobody's business here.

`[model_signing]`: whose `model.sig` counts, and what in a folder need not be signed.

`[[pin]]`: a charter body of a federation file, which decides who counts.

`[publishers]`: whose models are accepted, under which names, by which keys.

`[safety]`: what may be active in files. Refused is everything else, and headers that make no sense.

`[upstream]`: what nobody whom the owner named has published, and nodes mirrored from elsewhere.

A policy as a value: what its owner pins, and what they demand.

`[rows]`: which rows have to pass. What is no row, or could not pass under this very policy, is refused at once.

A policy file: its tables, each read by the file of its topic.

The policy of whoever verifies: what they pin, and what they demand. TOML, under the owner's change control.

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
[lineage]
parents_by_digest = true         # refuse a parent that is named without a digest
refuse_licence_conflicts = true  # refuse licences that conflict along the lineage, by a table of well-known ones
[upstream]
corroborated = 2                 # of what nobody named published: how many members must have mirrored the same bytes
[model_signing]                  # whose OpenSSF model.sig counts as a signature
keys = ["lab.pub"]               # public keys, PEM files relative to the policy
certificates = ["roots.pem"]     # authorities for certificates, judged at as_of or when cosigners had seen it
sigstore_root = "trusted_root.json"
unsigned = [".gitattributes"]    # files and folders that need not be signed
require = false                  # true: nothing else will do for the row
[[model_signing.identity]]       # keyless signers, by the extra [sigstore]
identity = "release@lab.example"
issuer = "https://accounts.example"
[safety]
allow = ["chat-template"]        # kinds of active content, paths, or sha256:… of files; these by default
formats = ["safetensors"]        # no files but of these formats; absent: any
[documents]
require = ["card"]               # what the publisher has to put beside it: card, training-summary, evaluation
[rows]
require = ["artifact", "bytes", "signatures", "transparency", "cosigners"]
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import fnmatch
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from comity.trust.charter.document import Body, Member
from comity.trust.charter.federation import prove_bodies
from comity.trust.encoding import Digest, parse_digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.evidence import DEFAULT_ALLOW, FORMATS, KINDS, kind_of
from comity.trust.jurisdictions import COUNTRIES, meant
from comity.trust.model_signing.certificates import ModelKey, parse_roots
from comity.trust.model_signing.judging import KeylessIdentity, ModelSigningRule
from comity.trust.names import check_segment
from comity.trust.statements import DOCUMENTS

_HEADER: Final = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.\"-]+)\s*\]\]?\s*(?:#.*)?\Z")


class PolicyLines:
    """The lines of a policy. A search and never more: what it does not find has no number."""

    def __init__(self, text: str = "") -> None:
        self._lines = text.splitlines()

    def find(self, table: str, key: str, value: str | None = None) -> int | None:
        """The line, from 1 on, of `key` in `[table]`, or of `value` in what follows it; None where it is not found."""
        inside, found = not table, None
        for number, line in enumerate(self._lines, 1):
            if (header := _HEADER.match(line)) is not None:
                if found is not None:
                    break
                inside = header[1] == table
            if inside and re.match(rf"\s*\"?{re.escape(key)}\"?\s*[=.]", line):
                found = number
            if found is not None and (value is None or json.dumps(value, ensure_ascii=False) in line):
                return number
        return found


T = TypeVar("T")


class PolicyTable:
    """A TOML table of which every key has to be asked for.

    Args:
        value: the parsed TOML.
        what: the table's name, for errors.
        lines: where errors look up their line.

    Every reader raises Malformed for a value of another type, `done` for a key that nobody asked for.
    """

    def __init__(self, value: object, what: str, lines: PolicyLines | None = None) -> None:
        if not isinstance(value, dict):
            raise wrong(what, "expected a table")
        self._rest = dict(value)
        self._asked: list[str] = []
        self.what = what
        self.lines = lines or PolicyLines()

    def take(self, key: str, kind: type[Any] | tuple[type[Any], ...], default: Any) -> Any:
        self._asked.append(key)
        value = self._rest.pop(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"{key!r} has the wrong type")
        return value

    def table(self, key: str) -> PolicyTable:
        return PolicyTable(self.take(key, dict, {}), f"{self.what}.{key}", self.lines)

    def strings(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        value = self.take(key, list, list(default))
        if not all(isinstance(item, str) for item in value):
            raise self.wrong(key, f"{key!r} must be strings")
        return tuple(value)

    def each(self, key: str, read: Callable[[str], T], default: Sequence[str] = ()) -> tuple[T, ...]:
        """The strings called `key`, each as `read` understands it."""
        return tuple(self._read(key, item, read) for item in self.strings(key, default))

    def wrong(self, key: str, why: str, hint: str = "", value: str | None = None) -> Malformed:
        """The error that `key`, or `value` in it, is; with the line where it stands."""
        line = self.lines.find(self.what.partition(".")[2], key, value)
        return wrong(self.what, f"line {line}: {why}" if line else why, hint)

    def _read(self, key: str, item: str, read: Callable[[str], T]) -> T:
        try:
            return read(item)
        except Malformed as error:
            raise self.wrong(key, f"{key!r}: {error}", error.hint, item) from error

    def done(self) -> None:
        for key in self._rest:
            close = difflib.get_close_matches(key, self._asked, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(self._asked)}"
            raise Malformed(f"{self.what} has an unknown key {key!r}", why=hint, code="POLICY-SYNTAX")


def wrong(what: str, why: str, hint: str = "") -> Malformed:
    return Malformed(f"{what} is malformed", why=why, hint=hint, code="POLICY-SYNTAX")


@contextlib.contextmanager
def naming(what: str, key: str) -> Iterator[None]:
    """A value that is malformed is the policy's defect, at this key."""
    try:
        yield
    except Malformed as error:
        raise wrong(what, f"{key!r}: {error}") from error


PUBLISHER: Final = "publisher"


@dataclass(frozen=True, slots=True)
class CosignerRule:
    """`at_least` distinct members, in `jurisdictions` distinct jurisdictions, none of them in `outside`."""

    at_least: int = 2
    jurisdictions: int = 0
    outside: tuple[str, ...] = (PUBLISHER,)
    post_quantum: bool = False


def read_cosigners(table: PolicyTable, pins: Sequence[Body]) -> CosignerRule:
    """Raises Malformed (POLICY-SYNTAX), also for a code that is no country's and that no pinned body uses: it would
    exclude nobody."""
    known = {member.jurisdiction for body in pins for member in body.members}
    default = CosignerRule()
    rule = CosignerRule(
        at_least=table.take("at_least", int, default.at_least),
        jurisdictions=table.take("jurisdictions", int, default.jurisdictions),
        outside=table.each("outside", lambda code: _excluded(code, known), default.outside),
        post_quantum=table.take("post_quantum", bool, default.post_quantum),
    )
    table.done()
    if rule.at_least < 0 or rule.jurisdictions < 0:
        raise wrong(table.what, "a count is negative")
    return rule


def _excluded(code: str, known: Set[str]) -> str:
    if code == PUBLISHER or code in COUNTRIES or code in known:
        return code
    guess = meant(code, (*known, PUBLISHER))
    raise Malformed(
        f"{code[:40]!r} is no jurisdiction",
        why="neither a country's code of ISO 3166-1, nor a name that a pinned charter uses",
        hint=f'write "{guess}"'
        if guess
        else 'write two capital letters, such as "CH", or pin the charter that uses it',
    )


def check_reachable(rule: CosignerRule, pins: Sequence[Body], table: PolicyTable) -> None:
    """Raises Malformed where the pinned charters have not so many members that count, whatever the evidence."""
    best = most_cosigners(rule, pins)
    if not pins or best is None:
        return
    wanted = f"{rule.at_least} cosigners in {max(rule.jurisdictions, 1)} jurisdictions"
    raise table.wrong(
        "at_least" if rule.at_least > best[0] else "jurisdictions",
        f"it can never match: {wanted} are asked for, and the pinned charters have at most {best[0]} in {best[1]}, "
        "outside of what is excluded and without the log's own member",
        f"set at_least to {best[0]} and jurisdictions to {best[1]} or less, or exclude fewer in outside",
    )


def most_cosigners(rule: CosignerRule, pins: Sequence[Body]) -> tuple[int, int] | None:
    """The best that could be had where it is too little: members that count, and their jurisdictions; else None.

    Tried for the log of each member, and for a publisher in no member's jurisdiction.
    """
    seats = _seats(pins)
    found = [_countable(rule, writer, seats) for writer in seats] or [()]
    sizes = [(len(countable), len({seat.jurisdiction for seat in countable})) for countable in found]
    enough = any(count >= rule.at_least and codes >= rule.jurisdictions for count, codes in sizes)
    return None if enough else max(sizes)


def _seats(pins: Sequence[Body]) -> list[Member]:
    """Each active member once, over all pinned bodies."""
    return list({seat.lineage: seat for body in pins for seat in body.active}.values())


def _countable(rule: CosignerRule, writer: Member, seats: list[Member]) -> tuple[Member, ...]:
    excluded = {code for code in rule.outside if code != PUBLISHER}
    excluded |= {writer.jurisdiction} if PUBLISHER in rule.outside else set()
    return tuple(seat for seat in seats if seat is not writer and seat.jurisdiction not in excluded)


DEFAULT_MAX_AGE_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Freshness:
    """Seconds since 1970 of the moment to judge, and how old the newest cosignature may be then."""

    as_of: int
    max_age: int


def read_freshness(table: PolicyTable) -> Freshness | None:
    as_of = table.take("as_of", (datetime.datetime, type(None)), None)
    days = table.take("max_age_days", (int, type(None)), None)
    table.done()
    if days is not None and (days < 0 or as_of is None):
        raise wrong(table.what, "'max_age_days' is a count of days before 'as_of'")
    if as_of is None:
        return None
    if as_of.tzinfo is None:
        raise wrong(table.what, "'as_of' needs an offset, such as Z")
    return Freshness(int(as_of.timestamp()), (DEFAULT_MAX_AGE_DAYS if days is None else days) * 86_400)


@dataclass(frozen=True, slots=True)
class LineageRule:
    """Whether each parent has to be named by its digest, and whether licences along the lineage may conflict."""

    by_digest: bool = False
    no_conflicts: bool = False


def read_lineage(table: PolicyTable) -> LineageRule:
    default = LineageRule()
    rule = LineageRule(
        by_digest=table.take("parents_by_digest", bool, default.by_digest),
        no_conflicts=table.take("refuse_licence_conflicts", bool, default.no_conflicts),
    )
    table.done()
    return rule


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
DEFAULT_REQUIRED: Final = ("artifact", "bytes", "signatures", "transparency", "cosigners", "file safety")


def read_documents(table: PolicyTable) -> tuple[str, ...]:
    """Raises Malformed (POLICY-SYNTAX)."""
    required = table.each("require", _kind)
    table.done()
    return tuple(dict.fromkeys(required))


def _kind(text: str) -> str:
    if text not in DOCUMENTS:
        raise Malformed(f"{text[:40]!r} is no document", why=f"kinds are {', '.join(DOCUMENTS)}")
    return text


def read_model_signing(table: PolicyTable, read: Callable[[str], bytes]) -> ModelSigningRule:
    """Read the table; its files come from `read`, whose errors pass through. Raises Malformed."""
    keys = table.each("keys", lambda name: ModelKey.parse(read(name)))
    with naming(table.what, "certificates"):
        roots = tuple(root for name in table.strings("certificates") for root in parse_roots(read(name)))
    identities = tuple(
        _identity(PolicyTable(item, f"{table.what}.identity")) for item in table.take("identity", list, [])
    )
    trusted = table.take("sigstore_root", str, "")
    unsigned, require = table.each("unsigned", _path), table.take("require", bool, False)
    table.done()
    if bool(identities) != bool(trusted):
        raise wrong(table.what, "identities are checked by a 'sigstore_root', and it serves for nothing else")
    root = read(trusted) if trusted else None
    rule = ModelSigningRule(keys, roots, identities, root, unsigned, require)
    if require and not rule.believes_anybody:
        raise wrong(table.what, "'require' could not be met: it lists no keys, certificates or identities")
    return rule


def _identity(table: PolicyTable) -> KeylessIdentity:
    identity, issuer = table.take("identity", str, ""), table.take("issuer", str, "")
    table.done()
    if not identity or not issuer:
        raise wrong(table.what, "it needs 'identity' and 'issuer': without the second, anybody could vouch for it")
    return KeylessIdentity(identity, issuer)


def _path(text: str) -> str:
    if any(segment in ("", ".", "..") for segment in text.rstrip("/").split("/")):
        raise wrong("policy.model_signing", f"{text[:80]!r} is no path below the model's folder")
    return text


def read_pin(table: PolicyTable, read: Callable[[str], bytes]) -> Body:
    """Raises Malformed, Untrusted where the file nowhere has the body, and what `read` raises."""
    file, expected = table.take("file", str, ""), table.take("body", str, "")
    table.done()
    if not file:
        raise wrong(table.what, "it names no file")
    with naming(table.what, "body"):
        pinned = parse_digest(expected) if expected else None
    bodies = prove_bodies(read(file))
    body = next((each for each in bodies if each.digest == pinned), None) if pinned else bodies[-1]
    if body is None:
        why = f"{file} ends with charter body {bodies[-1].digest[:16]} and nowhere has {expected[:16]}"
        raise Untrusted("pin refused", why=why, code="PIN")
    return body


@dataclass(frozen=True, slots=True)
class Publishers:
    """Accepted identities (empty: any), owners of namespaces, and rotations that identities are held to."""

    accept: frozenset[Digest] = frozenset()
    names: Mapping[str, Digest] = field(default_factory=dict)
    rotations: Mapping[Digest, Digest] = field(default_factory=dict)


def read_publishers(table: PolicyTable) -> Publishers:
    made = Publishers(
        accept=frozenset(table.each("accept", parse_digest)), names=_names(table), rotations=_rotations(table)
    )
    table.done()
    return made


def _names(table: PolicyTable) -> dict[str, Digest]:
    names = table.take("names", dict, {}).items()
    with naming(table.what, "names"):
        return {check_segment(name, "namespace"): parse_digest(item) for name, item in names}


def _rotations(table: PolicyTable) -> dict[Digest, Digest]:
    pinned = table.take("rotations", dict, {}).items()
    with naming(table.what, "rotations"):
        return {parse_digest(identity): parse_digest(rotation) for identity, rotation in pinned}


_DIGEST: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class SafetyRule:
    """Active content of these `kinds` is accepted, and all that is in files whose path matches one of `paths` or whose
    bytes are among `files`. With `formats`, files of other formats are refused as well."""

    kinds: frozenset[str] = frozenset(DEFAULT_ALLOW)
    paths: tuple[str, ...] = ()
    files: frozenset[Digest] = frozenset()
    formats: frozenset[str] = frozenset()

    def exempts(self, path: str, digest: Digest | None) -> bool:
        return digest in self.files or any(fnmatch.fnmatchcase(path, pattern) for pattern in self.paths)

    def accepts(self, active: str) -> bool:
        """Whether what an inspection found may be there."""
        return kind_of(active) in self.kinds

    def accepts_format(self, name: str) -> bool:
        return not self.formats or name in self.formats


def read_safety(table: PolicyTable) -> SafetyRule:
    """Raises Malformed (POLICY-SYNTAX)."""
    allowed = table.strings("allow", DEFAULT_ALLOW)
    formats = frozenset(table.each("formats", _format))
    table.done()
    with naming(table.what, "allow"):
        files = frozenset(parse_digest(item) for item in allowed if item.startswith(_DIGEST))
    kinds = frozenset(item for item in allowed if item in KINDS)
    paths = tuple(item for item in allowed if item not in kinds and not item.startswith(_DIGEST))
    for path in paths:
        if not set(path) & set("/.*"):
            close = difflib.get_close_matches(path, KINDS, 1)
            guess = f"did you mean {close[0]!r}?" if close else f"kinds are {', '.join(KINDS)}"
            raise wrong(table.what, f"{path[:80]!r} is no kind, path or sha256:…; {guess}")
    return SafetyRule(kinds, paths, files, formats)


def _format(name: str) -> str:
    if name in FORMATS:
        return name
    close = difflib.get_close_matches(name, FORMATS, 1)
    hint = f'write "{close[0]}"' if close else f"formats are {', '.join(sorted(FORMATS))}"
    raise Malformed(f"{name[:40]!r} is no format", why="no file is ever found to have it", hint=hint)


MOST: Final = 100


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """With `corroborated` above 0, the artifact has to be published by somebody whom the owner's trust names, or
    fetched from its upstream by nodes of so many members, who got the same bytes under one commit."""

    corroborated: int = 0


def read_upstream(table: PolicyTable, pins: Sequence[Body]) -> UpstreamRule:
    """Raises Malformed (POLICY-SYNTAX), also for more members than the pinned charters have."""
    corroborated = table.take("corroborated", int, 0)
    table.done()
    if isinstance(corroborated, bool) or not 0 <= corroborated <= MOST:
        raise wrong(table.what, f"corroborated is a number of members, at most {MOST}")
    members = len({seat.lineage for body in pins for seat in body.active})
    if pins and corroborated > members:
        why = f"it can never match: {corroborated} members are asked for, and the pinned charters have {members}"
        raise table.wrong("corroborated", why, f"set corroborated to {members} or less")
    return UpstreamRule(corroborated)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the verifier's owner pins and demands. `digest` names the exact text for the report."""

    pins: tuple[Body, ...] = ()
    publishers: frozenset[Digest] = frozenset()
    bindings: Mapping[str, Digest] = field(default_factory=dict)
    rotations: Mapping[Digest, Digest] = field(default_factory=dict)
    cosigners: CosignerRule = field(default_factory=CosignerRule)
    licences: frozenset[str] = frozenset()
    refuse_from: frozenset[Digest] = frozenset()
    freshness: Freshness | None = None
    lineage: LineageRule = field(default_factory=LineageRule)
    model_signing: ModelSigningRule = field(default_factory=ModelSigningRule)
    safety: SafetyRule = field(default_factory=SafetyRule)
    upstream: UpstreamRule = field(default_factory=UpstreamRule)
    documents: tuple[str, ...] = ()
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


_SIGNED: Final = frozenset({"signatures", "key policy", "transparency", "cosigners", "licence", "documents", "time"})
"""Rows that pass only for what somebody signed."""


def read_required(table: PolicyTable) -> tuple[str, ...]:
    required = table.strings("require", DEFAULT_REQUIRED)
    table.done()
    return required


def check_required(policy: Policy, table: PolicyTable) -> None:
    """Raises Malformed for a required row that does not exist, or that could not pass, and for rows that an unsigned
    folder passes."""
    never = hopeless(policy)
    for row in policy.require:
        if row in never:
            why = f"{_at(table, row)}it could not pass: {never[row]}"
            hint = f"take {row!r} out of rows.require, or write the other"
            raise Malformed(f"policy cannot require {row!r}", why=why, hint=hint, code="POLICY-SYNTAX")
        if row not in ROWS[:-1]:
            close = difflib.get_close_matches(row, ROWS, 1)
            why = f"did you mean {close[0]!r}?" if close else f"rows are {', '.join(ROWS[:-1])}"
            why = f"{_at(table, row)}{why}"
            raise Malformed(f"policy requires an unknown row {row!r}", why=why, code="POLICY-SYNTAX")
    if not (set(policy.require) & _SIGNED or ("artifact" in policy.require and policy.upstream.corroborated)):
        raise table.wrong(
            "require",
            "nothing that it requires proves a signature, so a model that nobody signed would be accepted",
            'add "signatures" to rows.require',
        )


def _at(table: PolicyTable, row: str) -> str:
    line = table.lines.find("rows", "require", row)
    return f"line {line}: " if line else ""


def hopeless(policy: Policy) -> Mapping[str, str]:
    """The rows that could not pass whatever the evidence, and why."""
    reasons = {
        "disputes and advisories": "nobody can prove that there is none; name issuers in advisories.refuse_from",
    }
    if not policy.documents:
        reasons["documents"] = "documents.require names none"
    if not policy.licences:
        reasons["licence"] = "licences.accept names none"
    nobody = not (policy.publishers or policy.bindings or any(body.namespaces for body in policy.pins))
    if policy.pins and nobody:
        reasons["key policy"] = "publishers.accept and publishers.names name nobody, nor does a pinned charter"
    if policy.freshness is None:
        reasons["time"] = "time.as_of names no moment"
    return reasons


SCHEMA: Final = "comity/policy/v1"
MAX_BYTES: Final = 1024 * 1024


def parse_policy(text: bytes, read: Callable[[str], bytes]) -> Policy:
    """Read a policy file.

    Args:
        text: the TOML.
        read: gives the bytes of a file that the policy names: a federation file, keys; may raise NotFound.

    Raises Malformed for unknown keys (with a guess what was meant) and values; Untrusted for a pin that does not hold.
    """
    if len(text) > MAX_BYTES:
        raise wrong("policy", f"more than {MAX_BYTES} bytes")
    try:
        decoded = text.decode("utf-8")
        document = PolicyTable(tomllib.loads(decoded), "policy", PolicyLines(decoded))
    except (ValueError, RecursionError) as error:
        raise wrong("policy", f"not TOML: {str(error)[:200]}") from error
    if document.take("schema", str, SCHEMA) != SCHEMA:
        raise wrong("policy", f"schema must be {SCHEMA!r}")
    publishers = read_publishers(document.table("publishers"))
    pinned = document.take("pin", list, [])
    pins = tuple(read_pin(PolicyTable(item, "policy.pin", document.lines), read) for item in pinned)
    cosigners, rows = document.table("cosigners"), document.table("rows")
    policy = Policy(
        pins=pins,
        publishers=publishers.accept,
        bindings=publishers.names,
        rotations=publishers.rotations,
        cosigners=read_cosigners(cosigners, pins),
        licences=_licences(document.table("licences")),
        refuse_from=_issuers(document.table("advisories")),
        freshness=read_freshness(document.table("time")),
        lineage=read_lineage(document.table("lineage")),
        model_signing=read_model_signing(document.table("model_signing"), read),
        safety=read_safety(document.table("safety")),
        upstream=read_upstream(document.table("upstream"), pins),
        documents=read_documents(document.table("documents")),
        require=read_required(rows),
        digest=sha256(text),
    )
    document.done()
    check_required(policy, rows)
    if "cosigners" in policy.require:
        check_reachable(policy.cosigners, pins, cosigners)
    return policy


def _licences(table: PolicyTable) -> frozenset[str]:
    accepted = frozenset(item.lower() for item in table.strings("accept"))
    table.done()
    return accepted


def _issuers(table: PolicyTable) -> frozenset[Digest]:
    issuers = frozenset(table.each("refuse_from", parse_digest))
    table.done()
    return issuers
