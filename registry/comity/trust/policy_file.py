"""Reads a policy: a TOML file in which the owner pins charter bodies and sets requirements.

`parse_policy` reads every table and rejects unknown keys, malformed values, and requirements that no evidence could
meet. Errors name the line in the file. The owner keeps the file under version control. All keys:

schema = "comity/policy/v1"
[[pin]]                          # charter bodies whose members count
file = "federation.json"         # a federation file, relative to the policy
body = "9f2c…"                   # one of its bodies; default: the newest
[publishers]
accept = ["51aa…"]               # accept only these identities; empty or absent: any, shown by name. An id has 64
                                 # hex digits or is spelled; 8 or more digits are enough for one that a pin names
lost_keys = "refuse"             # refuse what a publisher signed after its key was lost, as it says; "report": show it
[publishers.rotations]           # keys retired up to this rotation of an identity count only below its cut
"51aa…" = "77c0…"
[cosigners]
at_least = 2                     # distinct members other than the member that owns the log
jurisdictions = 2                # minimum number of distinct jurisdictions
outside = ["publisher"]          # excluded jurisdictions: codes (by seat and by declared reach), or "publisher" for
                                 # those of publisher and log (by seat)
declared = false                 # only cosigners that declare where their machines are
post_quantum = false
[licences]
accept = ["apache-2.0"]
[advisories]
refuse_from = ["51aa…"]          # an advisory by one of these identities or nodes refuses the artifact
[time]
as_of = 2026-11-24T00:00:00Z     # time at which freshness is judged; the system clock is never read
max_age_days = 30
[lineage]
parents_by_digest = true         # refuse a parent that is named without a digest
refuse_licence_conflicts = true  # refuse licences that conflict along the lineage, by a table of well-known ones
[upstream]
corroborated = 2                 # without an accepted publisher: members that must have mirrored the same bytes
[model_signing]                  # signers whose OpenSSF model.sig counts as a signature
keys = ["lab.pub"]               # public keys, PEM files relative to the policy
certificates = ["roots.pem"]     # certificate authorities; chains are judged at as_of or at a cosigned time
sigstore_root = "trusted_root.json"
unsigned = [".gitattributes"]    # files and folders that need not be signed
require = false                  # true: the row "signatures" passes by a model.sig only
[[model_signing.identity]]       # keyless signers; needs the extra [sigstore]
identity = "release@lab.example"
issuer = "https://accounts.example"
[safety]
allow = ["chat-template"]        # accepted: kinds of active content, paths, or sha256:… of files; this is the default
formats = ["safetensors"]        # accepted file formats; absent: any
[documents]
require = ["card"]               # documents that the publisher must supply: card, training-summary, evaluation
[approvals]                      # the row "approvals" is required as soon as this table is there; needs time.as_of
scope = "hospital-bern"          # approvals for exactly this scope count
at_least = 2                     # how many of `of` must approve; one person counts once
of = ["Anna", "security"]        # officers and roles; absent: every officer
four_eyes = true                 # an officer who published the artifact does not count, under any name with their keys
max_days = 180                   # approvals for a longer time do not count
logged = false                   # true: an approval counts only if it is in a log of a pinned member
conditions = false               # true: an approval counts only under conditions whose text is here
[approvals.officers]             # the people whom the owner names, by their ids
Anna = "51aa…"
[approvals.roles]                # a role is filled by one of its officers
security = ["Ben", "Carla"]
[rows]
require = ["artifact", "bytes", "signatures", "transparency", "cosigners"]
"""

from __future__ import annotations

import datetime
import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final, TypeAlias

from comity.trust.approvals import check_scope, filled_places
from comity.trust.charter.document import Body
from comity.trust.charter.federation import in_chunks, prove_epochs
from comity.trust.encoding import Digest, parse_digest, sha256
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.evidence import DEFAULT_ALLOW, FORMATS, KINDS
from comity.trust.home_logs import OriginOwners, origin_owners
from comity.trust.model_signing.bundle import ModelKey
from comity.trust.model_signing.certificates import parse_roots
from comity.trust.model_signing.judging import KeylessIdentity, ModelSigningRule
from comity.trust.names import check_segment, find_id, parse_id
from comity.trust.places import COUNTRIES, suggest_jurisdiction
from comity.trust.policy import (
    DEFAULT_REQUIRED,
    PUBLISHER,
    ROWS,
    SIGNED_ROWS,
    ApprovalRule,
    CosignerRule,
    Freshness,
    LineageRule,
    Policy,
    SafetyRule,
    UpstreamRule,
    active_members,
    impossible_rows,
    most_cosigners,
)
from comity.trust.policy_table import PolicyLines, PolicyTable, malformed, malformed_at
from comity.trust.statements import DOCUMENTS

SCHEMA: Final = "comity/policy/v1"
MAX_POLICY_BYTES: Final = 1024 * 1024
DEFAULT_MAX_AGE_DAYS: Final = 30
LOST_KEYS: Final = ("refuse", "report")
MAX_CORROBORATED: Final = 100
MAX_OFFICERS: Final = 64
MAX_APPROVAL_DAYS: Final = 36_500
_DIGEST_PREFIX: Final = "sha256:"


def parse_policy(
    text: bytes, read: Callable[[str], bytes], read_chunks: Callable[[str], Iterable[bytes]] | None = None
) -> Policy:
    """Read a policy file.

    Args:
        text: the TOML.
        read: returns the bytes of a file that the policy names (federation file, keys); may raise NotFound.
        read_chunks: returns a federation file in pieces; default: what `read` returns.

    Raises Malformed (POLICY-SYNTAX) for unknown keys, with a suggestion, and for bad values; Untrusted (PIN) for a pin
    that does not verify.
    """
    if len(text) > MAX_POLICY_BYTES:
        raise malformed("policy", f"more than {MAX_POLICY_BYTES} bytes")
    try:
        decoded = text.decode("utf-8")
        document = PolicyTable(tomllib.loads(decoded), "policy", PolicyLines(decoded))
    except (ValueError, RecursionError) as error:
        raise malformed("policy", f"not TOML: {str(error)[:200]}") from error
    if document.take("schema", str, SCHEMA) != SCHEMA:
        raise malformed("policy", f"schema must be {SCHEMA!r}")
    pinned = document.take("pin", list, [])
    chunks_of = read_chunks or (lambda name: in_chunks(read(name)))
    found = [read_pin(PolicyTable(item, "policy.pin", document.lines), chunks_of) for item in pinned]
    pins = tuple(body for body, _ in found)
    read_id = id_reader(pins)
    publishers, bindings, rotations, refuse_lost = read_publishers(document.table("publishers"), read_id)
    cosigners, rows = document.table("cosigners"), document.table("rows")
    freshness = read_freshness(document.table("time"))
    approvals = read_approvals(document.table("approvals"), read_id, freshness)
    policy = Policy(
        pins=pins,
        origins=OriginOwners.of_all(owners for _, owners in found),
        publishers=publishers,
        bindings=bindings,
        rotations=rotations,
        cosigners=read_cosigners(cosigners, pins),
        licences=frozenset(document.list_in("licences", "accept", str.lower)),
        refuse_lost_keys=refuse_lost,
        refuse_from=frozenset(document.list_in("advisories", "refuse_from", read_id)),
        freshness=freshness,
        lineage=read_lineage(document.table("lineage")),
        model_signing=read_model_signing(document.table("model_signing"), read),
        safety=read_safety(document.table("safety")),
        upstream=read_upstream(document.table("upstream"), pins),
        documents=tuple(dict.fromkeys(document.list_in("documents", "require", _check_kind))),
        approvals=approvals,
        require=read_required(rows, approvals),
        digest=sha256(text),
    )
    document.done()
    check_required(policy, rows)
    if "cosigners" in policy.require:
        check_reachable(policy.cosigners, pins, cosigners)
    return policy


def pinned_files(text: bytes) -> tuple[str, ...]:
    """The federation files that a policy pins, by the names in it. `parse_policy` has read it without a fault."""
    return tuple(pin["file"] for pin in tomllib.loads(text.decode("utf-8")).get("pin", []))


def read_pin(table: PolicyTable, read: Callable[[str], Iterable[bytes]]) -> tuple[Body, OriginOwners]:
    """The body that is pinned, and the owners of origins by the epochs up to that body.

    Raises Malformed; Untrusted (PIN) if the federation file does not contain the body; and what `read` raises.
    """
    file, expected = table.take("file", str, ""), table.take("body", str, "")
    table.done()
    if not file:
        raise malformed(table.what, "'file' is missing")
    with malformed_at(table.what, "body"):
        pinned = parse_digest(expected) if expected else None
    bodies, identities = prove_epochs(read(file))
    body = next((known for known in bodies if known.digest == pinned), None) if pinned else bodies[-1]
    if body is None:
        why = f"{file} ends with charter body {bodies[-1].digest[:16]} and does not contain {expected[:16]}"
        raise Untrusted("pin refused", why=why, code="PIN")
    return body, origin_owners(bodies[: body.epoch + 1], identities)


ReadId: TypeAlias = Callable[[str], Digest]


def id_reader(pins: Sequence[Body]) -> ReadId:
    """Return a function that reads an id: all its digits, the spelled form, or an abbreviation of an id that the pinned
    bodies name. They are fixed by the policy, so an abbreviation has one meaning."""
    known = {member.id: member.name for body in pins for member in body.members}
    known |= {who: name for body in pins for name, who in body.namespaces.items()}

    def read(text: str) -> Digest:
        try:
            return find_id(text, known, "pinned", "write all 64 digits, as this lists them: comity show NAME")
        except NotFound as error:
            raise Malformed(error.what, why=error.why, hint=error.hint, code="BAD-ID") from error

    return read


def read_publishers(
    table: PolicyTable, read_id: ReadId
) -> tuple[frozenset[Digest], dict[str, Digest], dict[Digest, Digest], bool]:
    """The accepted identities (none: any), the publishers of namespaces, the pinned rotations by identity, and whether
    statements are refused that a lost key may have signed."""
    accepted = frozenset(table.parse_each("accept", read_id))
    bindings, rotations = _bindings(table, read_id), _rotations(table, read_id)
    lost_keys = table.take("lost_keys", str, LOST_KEYS[0])
    if lost_keys not in LOST_KEYS:
        known = " or ".join(f'"{each}"' for each in LOST_KEYS)
        raise table.error("lost_keys", f"'lost_keys' must be {known}", value=lost_keys)
    table.done()
    return accepted, bindings, rotations, lost_keys == LOST_KEYS[0]


def _bindings(table: PolicyTable, read_id: ReadId) -> dict[str, Digest]:
    names = table.take("names", dict, {}).items()
    with malformed_at(table.what, "names"):
        return {check_segment(name, "namespace"): read_id(_text(item)) for name, item in names}


def _rotations(table: PolicyTable, read_id: ReadId) -> dict[Digest, Digest]:
    pinned = table.take("rotations", dict, {}).items()
    with malformed_at(table.what, "rotations"):
        return {read_id(identity): parse_id(_text(rotation)) for identity, rotation in pinned}


def _text(item: object) -> str:
    if not isinstance(item, str):
        raise Malformed("an id must be a string", why=f"got {str(item)[:40]!r}", code="BAD-ID")
    return item


def read_cosigners(table: PolicyTable, pins: Sequence[Body]) -> CosignerRule:
    """Raises Malformed (POLICY-SYNTAX), also for an excluded code that is neither a country code nor used by a pinned
    body, because such a code would exclude no member."""
    known = {member.jurisdiction for body in pins for member in body.members}
    default = CosignerRule()
    rule = CosignerRule(
        at_least=table.take("at_least", int, default.at_least),
        jurisdictions=table.take("jurisdictions", int, default.jurisdictions),
        outside=table.parse_each("outside", lambda code: _jurisdiction(code, known), default.outside),
        post_quantum=table.take("post_quantum", bool, default.post_quantum),
        declared=table.take("declared", bool, default.declared),
    )
    table.done()
    if rule.at_least < 0 or rule.jurisdictions < 0:
        raise malformed(table.what, "a count is negative")
    return rule


def _jurisdiction(code: str, known: Set[str]) -> str:
    if code == PUBLISHER or code in COUNTRIES or code in known:
        return code
    guess = suggest_jurisdiction(code, (*known, PUBLISHER))
    raise Malformed(
        f"{code[:40]!r} is not a jurisdiction",
        why="neither an ISO 3166-1 country code nor a code that a pinned charter uses",
        hint=f'write "{guess}"'
        if guess
        else 'write two capital letters, such as "CH", or pin the charter that uses this code',
    )


def check_reachable(rule: CosignerRule, pins: Sequence[Body], table: PolicyTable) -> None:
    """Raises Malformed if the pinned charters have too few members to satisfy `rule` with any evidence."""
    best = most_cosigners(rule, pins)
    if not pins or best is None:
        return
    wanted = f"{rule.at_least} cosigners in {max(rule.jurisdictions, 1)} jurisdictions"
    raise table.error(
        "at_least" if rule.at_least > best[0] else "jurisdictions",
        f"it can never match: {wanted} are required, and the pinned charters have at most {best[0]} in {best[1]}, "
        "without the excluded jurisdictions and the member that owns the log",
        f"set at_least to {best[0]} and jurisdictions to {best[1]} or less, or exclude fewer in outside",
    )


def read_freshness(table: PolicyTable) -> Freshness | None:
    as_of = table.take("as_of", (datetime.datetime, type(None)), None)
    days = table.take("max_age_days", (int, type(None)), None)
    table.done()
    if days is not None and (days < 0 or as_of is None):
        raise malformed(table.what, "'max_age_days' must be a number of days, 0 or more, and needs 'as_of'")
    if as_of is None:
        return None
    if as_of.tzinfo is None:
        raise malformed(table.what, "'as_of' needs a time zone offset, such as Z")
    return Freshness(int(as_of.timestamp()), (DEFAULT_MAX_AGE_DAYS if days is None else days) * 86_400)


def read_lineage(table: PolicyTable) -> LineageRule:
    default = LineageRule()
    rule = LineageRule(
        by_digest=table.take("parents_by_digest", bool, default.by_digest),
        no_conflicts=table.take("refuse_licence_conflicts", bool, default.no_conflicts),
    )
    table.done()
    return rule


def read_upstream(table: PolicyTable, pins: Sequence[Body]) -> UpstreamRule:
    """Raises Malformed (POLICY-SYNTAX), also for more members than the pinned charters have."""
    corroborated = table.take("corroborated", int, 0)
    table.done()
    if not 0 <= corroborated <= MAX_CORROBORATED:
        raise malformed(table.what, f"'corroborated' must be a number of members, 0 to {MAX_CORROBORATED}")
    members = len(active_members(pins))
    if pins and corroborated > members:
        why = f"it can never match: {corroborated} members are required, and the pinned charters have {members}"
        raise table.error("corroborated", why, f"set corroborated to {members} or less")
    return UpstreamRule(corroborated)


def read_model_signing(table: PolicyTable, read: Callable[[str], bytes]) -> ModelSigningRule:
    """Read the table `[model_signing]`. Raises Malformed, and what `read` raises for the files that it names."""
    keys = table.parse_each("keys", lambda name: ModelKey.parse(read(name)))
    with malformed_at(table.what, "certificates"):
        roots = tuple(root for name in table.strings("certificates") for root in parse_roots(read(name)))
    identities = tuple(
        _identity(PolicyTable(item, f"{table.what}.identity")) for item in table.take("identity", list, [])
    )
    trusted = table.take("sigstore_root", str, "")
    unsigned, require = table.parse_each("unsigned", _check_path), table.take("require", bool, False)
    table.done()
    if bool(identities) != bool(trusted):
        raise malformed(table.what, "'identity' and 'sigstore_root' must be given together")
    root = read(trusted) if trusted else None
    rule = ModelSigningRule(keys, roots, identities, root, unsigned, require)
    if require and not rule.lists_signers:
        raise malformed(table.what, "'require' cannot be met: the table lists no keys, certificates or identities")
    return rule


def _identity(table: PolicyTable) -> KeylessIdentity:
    identity, issuer = table.take("identity", str, ""), table.take("issuer", str, "")
    table.done()
    if not identity or not issuer:
        raise malformed(table.what, "'identity' needs 'issuer', and 'issuer' needs 'identity'")
    return KeylessIdentity(identity, issuer)


def _check_path(text: str) -> str:
    if any(segment in ("", ".", "..") for segment in text.rstrip("/").split("/")):
        raise malformed("policy.model_signing", f"{text[:80]!r} is not a path inside the model's folder")
    return text


def read_safety(table: PolicyTable) -> SafetyRule:
    """Raises Malformed (POLICY-SYNTAX)."""
    allowed = table.strings("allow", DEFAULT_ALLOW)
    formats = frozenset(table.parse_each("formats", _check_format))
    table.done()
    with malformed_at(table.what, "allow"):
        files = frozenset(parse_digest(item) for item in allowed if item.startswith(_DIGEST_PREFIX))
    kinds = frozenset(item for item in allowed if item in KINDS)
    paths = tuple(item for item in allowed if item not in kinds and not item.startswith(_DIGEST_PREFIX))
    for path in paths:
        if not set(path) & set("/.*"):
            close = difflib.get_close_matches(path, KINDS, 1)
            guess = f"did you mean {close[0]!r}?" if close else f"kinds are {', '.join(KINDS)}"
            raise malformed(table.what, f"{path[:80]!r} is not a kind, a path or sha256:…; {guess}")
    return SafetyRule(kinds, paths, files, formats)


def _check_format(name: str) -> str:
    if name in FORMATS:
        return name
    close = difflib.get_close_matches(name, FORMATS, 1)
    hint = f'write "{close[0]}"' if close else f"formats are {', '.join(sorted(FORMATS))}"
    raise Malformed(f"{name[:40]!r} is not a format", why="no inspection reports this format", hint=hint)


def _check_kind(text: str) -> str:
    if text not in DOCUMENTS:
        raise Malformed(f"{text[:40]!r} is not a kind of document", why=f"kinds are {', '.join(DOCUMENTS)}")
    return text


def read_approvals(table: PolicyTable, read_id: ReadId, freshness: Freshness | None) -> ApprovalRule:
    """Raises Malformed (POLICY-SYNTAX), also for a rule that no approvals can meet."""
    if not table:
        return ApprovalRule()
    scope = table.take("scope", str, "")
    with malformed_at(table.what, "scope"):
        check_scope(scope)
    officers = _officers(table, read_id)
    places = _places(table, officers)
    rule = ApprovalRule(
        scope=scope,
        at_least=table.take("at_least", int, 0),
        officers=officers,
        places=places,
        four_eyes=table.take("four_eyes", bool, False),
        max_time=_max_days(table) * 86_400,
        logged=table.take("logged", bool, False),
        conditions=table.take("conditions", bool, False),
        as_of=freshness.as_of if freshness else 0,
    )
    table.done()
    most = len(filled_places(list(places.values()), [{identity} for identity in officers.values()]))
    if not 1 <= rule.at_least <= most:
        why = f"'at_least' must be 1 to {most}, as many of 'of' as the officers can fill, each officer once"
        raise table.error("at_least", why)
    if freshness is None:
        why = "approvals are judged at time.as_of, which is not set; no clock is read"
        raise table.error("scope", why, "set as_of in [time]")
    return rule


def _officers(table: PolicyTable, read_id: ReadId) -> dict[str, Digest]:
    named = table.take("officers", dict, {})
    with malformed_at(table.what, "officers"):
        officers = {_person(name): read_id(_text(item)) for name, item in named.items()}
    if not 1 <= len(officers) <= MAX_OFFICERS:
        raise table.error("officers", f"'officers' must name 1 to {MAX_OFFICERS} people by their ids")
    if len(set(officers.values())) != len(officers):
        raise table.error("officers", "'officers' gives two names to one id")
    return officers


def _places(table: PolicyTable, officers: Mapping[str, Digest]) -> dict[str, frozenset[Digest]]:
    given = table.take("roles", dict, {})
    with malformed_at(table.what, "roles"):
        names = [_person(role) for role in given]
    roles = {role: _role(table, role, given[role], officers) for role in names}
    if both := sorted(roles.keys() & officers.keys()):
        raise table.error("roles", f"{both[0]!r} is an officer and a role")
    known = {**{name: frozenset({identity}) for name, identity in officers.items()}, **roles}
    wanted = table.strings("of", tuple(officers))
    for name in wanted:
        if name not in known:
            raise table.error("of", f"{name[:80]!r} is neither in 'officers' nor in 'roles'", value=name)
    if len(set(wanted)) != len(wanted):
        raise table.error("of", "'of' names somebody twice")
    return {name: known[name] for name in wanted}


def _role(table: PolicyTable, role: str, who: object, officers: Mapping[str, Digest]) -> frozenset[Digest]:
    if not isinstance(who, list) or not who or not all(isinstance(name, str) and name in officers for name in who):
        raise table.error("roles", f"role {role[:80]!r} must be a list of names in 'officers'")
    return frozenset(officers[name] for name in who)


def _person(name: str) -> str:
    if not 1 <= len(name) <= 64 or not name.isprintable() or name != name.strip():
        raise Malformed("a name of an officer or role has 1 to 64 printable characters", why=f"got {name[:40]!r}")
    return name


def _max_days(table: PolicyTable) -> int:
    days: int = table.take("max_days", int, 0)
    if not 0 <= days <= MAX_APPROVAL_DAYS:
        raise table.error("max_days", f"'max_days' must be a number of days, 0 to {MAX_APPROVAL_DAYS}")
    return days


def read_required(table: PolicyTable, approvals: ApprovalRule) -> tuple[str, ...]:
    """The rows that the owner lists, and *approvals* if the owner names officers."""
    required = table.strings("require", DEFAULT_REQUIRED)
    table.done()
    return required if "approvals" in required or not approvals.at_least else (*required, "approvals")


def check_required(policy: Policy, table: PolicyTable) -> None:
    """Raises Malformed if a required row does not exist or can never pass, or if an unsigned folder would pass all
    required rows."""
    impossible = impossible_rows(policy)
    for row in policy.require:
        if row in impossible:
            why = f"{_line_prefix(table, row)}it could not pass: {impossible[row]}"
            hint = f"remove {row!r} from rows.require, or set the missing key"
            raise Malformed(f"policy cannot require {row!r}", why=why, hint=hint, code="POLICY-SYNTAX")
        if row not in ROWS[:-1]:
            close = difflib.get_close_matches(row, ROWS, 1)
            why = f"did you mean {close[0]!r}?" if close else f"rows are {', '.join(ROWS[:-1])}"
            why = f"{_line_prefix(table, row)}{why}"
            raise Malformed(f"policy requires an unknown row {row!r}", why=why, code="POLICY-SYNTAX")
    if not (set(policy.require) & SIGNED_ROWS or ("artifact" in policy.require and policy.upstream.corroborated)):
        raise table.error(
            "require",
            "no required row proves a signature, so an unsigned model would be accepted",
            'add "signatures" to rows.require',
        )


def _line_prefix(table: PolicyTable, row: str) -> str:
    line = table.lines.find("rows", "require", row)
    return f"line {line}: " if line else ""
