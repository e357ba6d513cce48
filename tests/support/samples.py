"""A value of each class of what statements say, made of what its fields declare: one that the rule of each allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comity.rules.statement_readers import CONTENTS
from comity.trust import codec
from comity.trust.codec import JsonObject, MemberRule, shape_of
from comity.trust.content import Content
from comity.trust.encoding import Json, sha256
from comity.trust.errors import ComityError
from comity.trust.statement import Author, SideObject, Statement, Subject
from comity.trust.statement_kinds import STATEMENT_KINDS, AuthorRule

_DIGEST = sha256(b"a sample")


def derived_samples() -> tuple[bytes, ...]:
    """The payloads of all classes whose members may have any value that their rules allow; the others need a sample by
    hand."""
    return tuple(payload for form in CONTENTS if (payload := _sample(form)) is not None)


def _sample(form: type[Content]) -> bytes | None:
    rule = STATEMENT_KINDS[form.predicate].by
    by = Author(form.author or ("node" if rule is AuthorRule.NODE else "identity"), _DIGEST)
    try:
        body, objects = sample_object(form), (SideObject.of(b"a sample"),)
        said = Statement(form.predicate, (Subject("", _DIGEST),), by, body, objects if _names_object(body) else ())
        written = form.parse(said).statement(by)
    except (ComityError, LookupError):
        return None
    return replace(written, objects=said.objects).encode()


def _names_object(body: dict[str, Json]) -> bool:
    return SideObject.of(b"a sample").to_json() in body.values()


def sample_object(kind: type[JsonObject]) -> dict[str, Json]:
    """The members of an object of this class. Raises LookupError for a text of which only a function knows the form."""
    shape, made = shape_of(kind), dict[str, Any]()
    for member in (*shape.constants, *shape.members):
        if not member.optional:
            inner = made
            for name in member.path[:-1]:
                inner = inner.setdefault(name, {})
            inner[member.path[-1]] = _value(member.rule)
    return made


def _value(rule: MemberRule) -> Json:
    match rule:
        case codec.OrNull():
            return None
        case codec.JsonText():
            return "x" * max(1, rule.least)
        case codec.JsonNumber():
            return max(1, rule.least)
        case codec.JsonWord():
            return rule.words[0]
        case codec.JsonConstant():
            return rule.word
        case codec.JsonFlag():
            return True
        case codec.JsonDigest():
            return _DIGEST
        case codec.JsonTime():
            return rule.write(1_800_000_000)
        case codec.JsonItems():
            return [_value(rule.of)] * rule.least
        case codec.JsonMap():
            return {}
        case codec.JsonInner() if rule.kind is SideObject:
            return SideObject.of(b"a sample").to_json()
        case codec.JsonInner() if issubclass(rule.kind, JsonObject):
            return sample_object(rule.kind)
    raise LookupError(f"a sample by hand has to show {rule}")
