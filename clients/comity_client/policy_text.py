"""Policy files for people: an explanation in plain words, a check for rules that can never pass, and a template.

`explain` gives one paragraph per table of the file, including defaults of absent tables. `findings` reads the policy
alone, without an artifact. `write_policy` writes a template with comments: the owner's pins are filled in, and what one
publication needs if it is for one; open decisions are commented out. The pinned federation files are copied next to the
policy for use without a network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from comity.bounded_file import read_chunks
from comity.content import durable
from comity.federation_file import Federation
from comity.trust.charter.document import Body
from comity.trust.charter.federation import MAX_BYTES
from comity.trust.claims import Publication
from comity.trust.encoding import Digest, format_time
from comity.trust.errors import Conflict
from comity.trust.evidence import KINDS
from comity.trust.frozen import frozen
from comity.trust.policy import PUBLISHER, ROWS, CosignerRule, LineageRule, Policy, most_cosigners

from comity_client.reports import QUESTIONS
from comity_client.trust_store import TrustPin


@frozen
class Finding:
    """`never`: `row` is required but can never pass. `idle`: a line of the policy that has no effect."""

    kind: Literal["never", "idle"]
    row: str
    text: str


def findings(policy: Policy) -> tuple[Finding, ...]:
    never = (Finding("never", row, text) for row, text in _never(policy) if row in policy.require)
    return (*never, *(Finding("idle", row, text) for row, text in _idle(policy)))


def _never(policy: Policy) -> Iterator[tuple[str, str]]:
    if not policy.pins:
        yield "transparency", "no charter is pinned by [[pin]], so no log has a known owner"
        yield "cosigners", "no charter is pinned by [[pin]], so no cosigner counts"
    elif (most := most_cosigners(policy.cosigners, policy.pins)) is not None:
        counted, jurisdictions = most
        wanted = f"{policy.cosigners.at_least} cosigners in {max(policy.cosigners.jurisdictions, 1)} jurisdictions"
        have = f"the pinned charters have at most {counted} in {jurisdictions} after exclusions"
        yield "cosigners", f"{wanted} are required, but {have}"
    named = policy.publishers or policy.bindings or any(body.namespaces for body in policy.pins)
    if not named:
        yield (
            "key policy",
            "no publisher is named by [publishers] accept, by [publishers] names, or by a pinned charter",
        )


def _idle(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.publishers:
        for name, who in sorted(policy.bindings.items()):
            if who not in policy.publishers:
                yield (
                    "key policy",
                    f"publishers.names binds {name!r} to a publisher that publishers.accept does not list",
                )
    known = policy.publishers | set(policy.bindings.values()) | _namespaces(policy)
    for who in sorted(set(policy.rotations) - known):
        if known:
            yield "key policy", f"publishers.rotations lists {who[:16]}, which is not accepted"
    for name in sorted(policy.approvals.officers):
        if not any(policy.approvals.officers[name] in ids for ids in policy.approvals.places.values()):
            yield "approvals", f"approvals.officers names {name!r}, who is neither in of nor in a role of it"
    codes = {seat.jurisdiction for body in policy.pins for seat in body.active}
    for code in policy.cosigners.outside:
        if policy.pins and code != PUBLISHER and code not in codes:
            yield "cosigners", f"cosigners.outside names {code}, which has no pinned member"
    if policy.licences and "licence" not in policy.require:
        yield "licence", "licences.accept is shown but has no effect: rows.require does not list licence"
    if policy.lineage != LineageRule() and "lineage" not in policy.require:
        yield "lineage", "lineage is shown but has no effect: rows.require does not list lineage"
    if policy.freshness is not None and "time" not in policy.require:
        yield "time", "time.as_of is shown but has no effect: rows.require does not list time"


def _namespaces(policy: Policy) -> set[str]:
    return {who for body in policy.pins for who in body.namespaces.values()}


_HEAD: Final = """\
# The conditions for using a model. Keep this file under change control: a report names its SHA-256.
#   comity policy check FILE      checks it, and lists rules that can never pass
#   comity policy explain FILE    explains it in plain words
schema = "comity/policy/v1"

# The members that count. A federation file, and its charter body, which you compared with two members by telephone.
"""
_NO_PIN: Final = """\
# [[pin]]
# file = "federation.json"
# body = "…"
"""
_REST: Final = """
# Accepted publishers. Empty: those that the names here, or the pinned charters, give.
[publishers]
{publishers}
# names = {{ swiss-ai = "51aa…" }}
# lost_keys = "report"           # show what was signed after a publisher lost its key, and do not refuse it

# How many other members must have cosigned, and where. "publisher" excludes its jurisdiction and that of its log.
[cosigners]
at_least = {at_least}
jurisdictions = {jurisdictions}
outside = ["publisher"]
declared = false
post_quantum = false

# Accepted licences, as SPDX expressions. Takes effect if rows.require lists "licence".
[licences]
# accept = [{licence}]

# Lineage. Takes effect if rows.require lists "lineage".
[lineage]
# parents_by_digest = true
# refuse_licence_conflicts = true

# Executable content that is allowed: kinds, paths, sha256:…. The row "file safety" refuses all other.
[safety]
allow = ["chat-template"]
# formats = ["safetensors", "gguf", "json", "text"]

# Documents that must be present. Takes effect if rows.require lists "documents".
[documents]
# require = ["card"]

# Who must approve a model for which use, and how many of them. Remove the #: the table then applies.
# [approvals]
# scope = "hospital-bern"
# at_least = 2
# four_eyes = true
# max_days = 180
# [approvals.officers]
# Anna = "51aa…"
# Ben = "77c0…"

# Publishers whose advisories refuse an artifact. All other advisories are only shown.
[advisories]
# refuse_from = ["51aa…"]

# How recent the evidence must be. No clock is read: update as_of when you review this file.
[time]
# as_of = 2026-01-01T00:00:00Z
# max_age_days = 30

# Rows of the report that must pass. The others are only shown.
[rows]
require = ["artifact", "bytes", "signatures", "key policy", "transparency", "cosigners", "file safety"]
"""


def _rest(pins: Sequence[TrustPin], publication: Publication | None) -> str:
    """The tables after the pins. A policy for one publication asks for as many cosigners as the pinned charters can
    have, where these are fewer than the usual two in two jurisdictions."""
    publishers, licence, rule = '# accept = ["51aa…"]', '"apache-2.0", "mit"', CosignerRule(jurisdictions=2)
    if publication is not None:
        who = publication.publisher
        publishers = f'accept = ["{who.id}"]  # says: {who.display}; compare the id by telephone'
        licence = json.dumps(publication.published.licence.spdx)
        most = most_cosigners(rule, [pin.federation.body for pin in pins])
        rule = rule if most is None else replace(rule, at_least=min(2, most[0]), jurisdictions=min(2, most[1]))
    return _REST.format(
        publishers=publishers, at_least=rule.at_least, jurisdictions=rule.jurisdictions, licence=licence
    )


def write_policy(path: Path, pins: Sequence[TrustPin], publication: Publication | None = None) -> tuple[Path, ...]:
    """Write a policy to `path` and the federation files that it pins to the same folder. Returns the paths that were
    written; an identical federation file that exists is reused.

    Args:
        publication: the policy accepts its publisher only.

    Raises Conflict if the policy exists, or another file has the name of a federation file; OutOfSpace, Unavailable.
    """
    files = {path.parent / f"federation-{pin.id[:8]}.json": pin for pin in pins}
    if path.exists():
        hint = f"comity policy new --out OTHER{path.suffix}"
        raise Conflict(f"{path} exists", why="a policy is not overwritten", hint=hint)
    new = {file: pin for file, pin in files.items() if not _has_copy(file, pin.federation)}
    for file, pin in new.items():
        durable.write_pieces(file, pin.federation.encoded(), mode=0o644, point="policy")
    pinned = (f'[[pin]]\nfile = "{file.name}"\nbody = "{pin.body}"\n' for file, pin in files.items())
    text = _HEAD + ("\n".join(pinned) or _NO_PIN) + _rest(pins, publication)
    durable.write_file(path, text.encode(), mode=0o644, point="policy")
    return (path, *new)


def _has_copy(file: Path, federation: Federation) -> bool:
    """Return whether the same file exists there already. Raises Conflict if it is another file."""
    if not file.exists():
        return False
    if _digest(read_chunks(file, MAX_BYTES)) != _digest(federation.encoded()):
        why = "its content differs from the pinned federation file, so it is not overwritten"
        raise Conflict(f"{file} exists", why=why, hint="write the policy into another folder")
    return True


def _digest(chunks: Iterable[bytes]) -> bytes:
    made = hashlib.sha256()
    for chunk in chunks:
        made.update(chunk)
    return made.digest()


@frozen
class Rule:
    """The meaning of one table of the policy (`pin`, `cosigners`), in sentences."""

    table: str
    title: str
    says: tuple[str, ...]


def explain(policy: Policy) -> tuple[Rule, ...]:
    """Return all rules, in the order of the rows of the report."""
    return tuple(Rule(table, title, sentences) for table, title, render in _TABLES if (sentences := render(policy)))


def _pins(policy: Policy) -> tuple[str, ...]:
    if not policy.pins:
        return ("No federation is pinned: no log and no cosignature counts.",)
    return tuple(_pin(body) for body in policy.pins)


def _pin(body: Body) -> str:
    seats = ", ".join(f"{seat.name} ({seat.jurisdiction})" for seat in body.active)
    return (
        f"Only these members count, as epoch {body.epoch} of federation {body.federation[:16]} lists them: {seats}. "
        f"The charter is pinned to body {body.digest[:16]}; charters that come with an artifact are ignored."
    )


def _publishers(policy: Policy) -> tuple[str, ...]:
    sentences = [f"Only models of these publishers are accepted, under any name: {_ids(policy.publishers)}."]
    if not policy.publishers:
        sentences = [
            "No publisher is listed here: the pinned charters and the names decide who may publish under a name."
        ]
    sentences += [f"{name}/… belongs to publisher {who[:16]}." for name, who in sorted(policy.bindings.items())]
    if policy.publishers and policy.bindings:
        sentences.append("The names do not affect acceptance while accept lists publishers.")
    sentences += [
        f"For publisher {who[:16]} rotation {rotation[:16]} is pinned: signatures of older keys count only if they "
        "were logged before it."
        for who, rotation in sorted(policy.rotations.items())
    ]
    if policy.refuse_lost_keys:
        sentences.append("What a publisher signed after its key was lost, as it says itself, is refused.")
    else:
        sentences.append("What a publisher signed after its key was lost, as it says itself, is shown and not refused.")
    return tuple(sentences)


def _cosigners(policy: Policy) -> tuple[str, ...]:
    rule = policy.cosigners
    if rule.at_least == 0:
        return ("No cosignature by another member is required.",)
    what = f"{rule.at_least} members" if rule.at_least > 1 else "1 member"
    sentences = [f"At least {what} other than the operator of the log must have cosigned the log with the statement."]
    if rule.jurisdictions > 1:
        sentences.append(f"They must be in at least {rule.jurisdictions} jurisdictions.")
    if PUBLISHER in rule.outside:
        sentences.append("Members in the jurisdiction of the publisher, or of the operator of the log, do not count.")
    if codes := [code for code in rule.outside if code != PUBLISHER]:
        sentences.append(
            "Members in these jurisdictions, or that declare to be in reach of their law, do not count: "
            f"{', '.join(codes)}."
        )
    if rule.declared:
        sentences.append("Only members that declare where their machines are count; nobody verifies the declaration.")
    if rule.post_quantum:
        sentences.append("Only signatures that are secure without classical cryptography count.")
    return tuple(sentences)


def _model_signing(policy: Policy) -> tuple[str, ...]:
    rule = policy.model_signing
    sentences = [f"A model.sig counts if it is signed by key {key.hint[:16]}." for key in rule.keys]
    sentences += (
        [f"A model.sig counts if its certificates chain to one of {len(rule.roots)} roots."] if rule.roots else []
    )
    sentences += [f"A keyless model.sig counts if it is signed as {identity}." for identity in rule.identities]
    if rule.unsigned:
        sentences.append(f"These need not be signed in it: {', '.join(rule.unsigned)}.")
    if rule.require:
        sentences.append("Without a model.sig that counts, the row signatures does not pass.")
    return tuple(sentences)


def _licences(policy: Policy) -> tuple[str, ...]:
    if not policy.licences:
        return ("Any licence, or none, is accepted: the licence is only shown.",)
    return (f"The licence that the publisher claims must be one of: {', '.join(sorted(policy.licences))}.",)


def _lineage(policy: Policy) -> tuple[str, ...]:
    sentences = []
    if policy.lineage.by_digest:
        sentences.append("A parent that is named without a digest fails the row lineage.")
    if policy.lineage.no_conflicts:
        sentences.append("Licences that conflict along the lineage, as claimed, fail the row lineage.")
    return tuple(sentences) or ("The lineage is only shown.",)


def _safety(policy: Policy) -> tuple[str, ...]:
    rule = policy.safety
    sentences = ["Files with executable content, or with invalid headers, are refused."]
    sentences += [f"Accepted nevertheless: {kind}, {KINDS[kind]}." for kind in sorted(rule.kinds)]
    if exempt := [*rule.paths, *(f"the file {digest[:16]}" for digest in sorted(rule.files))]:
        sentences.append(f"Accepted with any content: {', '.join(exempt)}.")
    if rule.formats:
        sentences.append(f"Only files of these formats are accepted: {', '.join(sorted(rule.formats))}.")
    return tuple(sentences)


def _documents(policy: Policy) -> tuple[str, ...]:
    if not policy.documents:
        return ("No document is required; those that the publisher names are shown.",)
    return (f"The publisher must name these documents, and they must be here: {', '.join(policy.documents)}.",)


def _approvals(policy: Policy) -> tuple[str, ...]:
    rule = policy.approvals
    if not rule.at_least:
        return ("No approval is required.",)
    sentences = [
        f"At least {rule.at_least} of these must approve the artifact for the scope {rule.scope}: "
        f"{', '.join(rule.places)}. One person counts once.",
        f"An approval counts if it is in force at {format_time(rule.as_of)}; no clock is read, and an end that is not "
        "in the evidence is not seen.",
    ]
    sentences += [f"{name} signs as {identity[:16]}." for name, identity in rule.officers.items()]
    sentences += [
        f"{place} is filled by one of {', '.join(sorted(rule.names[each] for each in ids))}."
        for place, ids in rule.places.items()
        if place not in rule.officers
    ]
    if rule.four_eyes:
        sentences.append("An officer who published the artifact, or has a key of its publisher, does not count.")
    if rule.max_time:
        sentences.append(f"An approval for more than {rule.max_time // 86_400} days does not count.")
    if rule.logged:
        sentences.append("An approval counts only if it is in a log of a pinned member.")
    if rule.conditions:
        sentences.append("An approval counts only under conditions whose text is here.")
    return tuple(sentences)


def _upstream(policy: Policy) -> tuple[str, ...]:
    if not policy.upstream.corroborated:
        return ()
    return (
        f"An artifact that no accepted publisher published counts if nodes of {policy.upstream.corroborated} members "
        "mirrored the same bytes from one commit of its upstream.",
    )


def _advisories(policy: Policy) -> tuple[str, ...]:
    if not policy.refuse_from:
        return ("Advisories are only shown.",)
    return (f"An advisory by one of these refuses the artifact: {_ids(policy.refuse_from)}. Others are only shown.",)


def _time(policy: Policy) -> tuple[str, ...]:
    if policy.freshness is None:
        return ("The age of the evidence is not limited.",)
    days = policy.freshness.max_age // 86_400
    return (
        f"Evaluated as of {format_time(policy.freshness.as_of)}: cosignatures must be from the {days} days before. "
        "No clock is read: update this date when you review the policy.",
    )


def _rows(policy: Policy) -> tuple[str, ...]:
    asked = [f"{row} ({QUESTIONS[row].rstrip('?')})" for row in policy.require]
    shown = [row for row in ROWS[:-1] if row not in ("artifact", *policy.require)]
    sentences = [f"Required to pass: {'; '.join(asked) or 'only a manifest'}."]
    if shown:
        sentences.append(f"Only shown: {', '.join(shown)}.")
    return tuple(sentences)


def _ids(identities: frozenset[Digest]) -> str:
    return ", ".join(identity[:16] for identity in sorted(identities))


_TABLES: Final[tuple[tuple[str, str, Callable[[Policy], tuple[str, ...]]], ...]] = (
    ("pin", "Pinned members", _pins),
    ("publishers", "Accepted publishers", _publishers),
    ("model_signing", "OpenSSF model signatures", _model_signing),
    ("cosigners", "Required cosigners", _cosigners),
    ("licences", "Licences", _licences),
    ("lineage", "Lineage", _lineage),
    ("safety", "Executable content", _safety),
    ("documents", "Documents", _documents),
    ("approvals", "Approvals of officers", _approvals),
    ("upstream", "Mirrored artifacts without a publication", _upstream),
    ("advisories", "Advisories", _advisories),
    ("time", "Freshness", _time),
    ("rows", "Rows that must pass", _rows),
)
