"""The JSON Schemas of statements, derived from what their classes declare. `docs/generate.py` writes them to
docs/schemas. Source: JSON Schema 2020-12.

A schema says what a reader accepts but for what members must be to each other, which `check` of a class says and only
few schemas can. The first sentence of a class's docstring is the title, or the description of one of two forms.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from comity.rules.kits.cases import Expectation, KitCase
from comity.rules.offers.offer import Offer, Window
from comity.trust import codec
from comity.trust.codec import JsonObject, MemberRule, Path, shape_of
from comity.trust.content import Content, SideFile
from comity.trust.encoding import MAX_INTEGER, MAX_TEXT
from comity.trust.identity import Inception
from comity.trust.keys import VerifyingKey
from comity.trust.statement import SideObject
from comity.trust.statement_kinds import STATEMENT_KINDS, AuthorRule
from comity.trust.statements import KEY_COMPROMISE, Advisory, Derived
from comity.trust.upstream import Upstream

Schema = dict[str, Any]

_COMMON: Final = "../common.json#/$defs/"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_CONTROLS: Final = r"[\u0000-\u001f\u007f-\u009f\u2028\u2029]"
_CONTROLS_IN_LINES: Final = r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029]"
_BETWEEN: Final[Mapping[type, Schema]] = {
    Advisory: {
        "dependentRequired": {"key": ["since"], "since": ["key"]},
        "if": {"required": ["key"]},
        "then": {"properties": {"kind": {"const": KEY_COMPROMISE}}},
    },
    Derived: {
        "if": {"properties": {"result": {"const": "share"}}},
        "then": {"properties": {"relation": {"const": "overlap"}}},
        "else": {"properties": {"relation": {"not": {"const": "overlap"}}}},
    },
    Expectation: {
        "oneOf": [{"required": ["contains"]}, {"required": ["equals"]}, {"required": ["close_to"]}],
        "dependentRequired": {"close_to": ["cosine"], "cosine": ["close_to"]},
    },
    KitCase: {
        "if": {"properties": {"method": {"const": "POST"}}},
        "then": {"properties": {"body": {"type": "object"}}, "required": ["body"]},
        "else": {"properties": {"body": False}},
    },
}
"""Rules between members that a schema can say."""
_BASE64_OF: Final = {"allOf": [{"$ref": f"{_COMMON}base64"}]}
_COMMON_FORMS: Final[Mapping[type, Schema]] = {
    SideObject: {"$ref": f"{_COMMON}sideObject"},
    VerifyingKey: {"$ref": f"{_COMMON}key"},
    Upstream: {"$ref": f"{_COMMON}upstream"},
    Window: {"$ref": f"{_COMMON}window"},
    Offer: {"$ref": "../offer.json"},
    Inception: {"$ref": "../inception.json"},
}

_COMMON_TEXTS: Final = {(0, True, 4000): "statementText", (0, True, 1000): "recordText"}


def predicate_schema(forms: Sequence[type[Content]]) -> Schema:
    """The schema of the predicate of which these classes are the forms."""
    first, *others = forms
    if not others:
        return {"$schema": _DIALECT, "title": f"{first.predicate}: {summary(first)}", **_form(first)}
    shapes = [{"description": _sentence(each), **_form(each)} for each in forms]
    did = STATEMENT_KINDS[first.predicate].did
    return {"$schema": _DIALECT, "title": f"{first.predicate}: {did[0].lower()}{did[1:]}", "oneOf": shapes}


def file_schema(kind: type[JsonObject]) -> Schema:
    """The schema of the files of a class, beside the parts that several schemas share."""
    title, _, about = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0].partition(". ")
    made = {"$schema": _DIALECT, "title": title, "description": " ".join(about.split()), **object_schema(kind)}
    beside: Schema = json.loads(json.dumps(made).replace('"../', '"'))
    return beside


def summary(kind: type[Content]) -> str:
    """The first sentence of the docstring, in the middle of a line."""
    first = _sentence(kind)
    return f"{first[0].lower()}{first[1:-1]}"


def _sentence(kind: type[Content]) -> str:
    first = " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())
    return f"{first.partition('. ')[0].partition(': ')[0].rstrip('.')}."


def _form(kind: type[Content]) -> Schema:
    rule = STATEMENT_KINDS[kind.predicate].by
    by = kind.author or {AuthorRule.NODE: "node", AuthorRule.ANYONE: ""}.get(rule, "identity")
    made = object_schema(kind)
    made["properties"] = {"by": _common(f"by{by.capitalize()}"), **made["properties"]}
    made["required"] = ["by", *made["required"]]
    places = list(_places(kind))
    least = sum(always for _, always in places) + kind.named_objects
    if most := len(places) + kind.named_objects:
        fewest = kind.named_objects or 1
        made["properties"]["objects"] = {"allOf": [_common("objects")], "minItems": fewest, "maxItems": most}
    if least:
        made["required"].append("objects")
    elif most:
        absent = {"properties": {name: {"type": "null"} for name in {path[0] for path, _ in places}}}
        made |= {"if": absent, "then": {"properties": {"objects": False}}, "else": {"required": ["objects"]}}
    return made


def object_schema(kind: type[JsonObject]) -> Schema:
    """The schema of the objects of a class."""
    shape, root = shape_of(kind), _empty()
    parts: dict[Path, Schema] = {(): root}
    for path, optional in shape.inner.items():
        parts[path] = _add(parts[path[:-1]], path[-1], _empty(), optional)
    for member in (*shape.constants, *shape.members):
        found = {"description": member.about} if member.about else {}
        optional = isinstance(member.rule, codec.OrAbsent)
        _add(parts[member.path[:-1]], member.path[-1], found | rule_schema(member.rule), optional)
    return root | _BETWEEN.get(kind, {})


def _empty() -> Schema:
    return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def _add(outer: Schema, name: str, inner: Schema, optional: bool) -> Schema:
    outer["properties"][name] = inner
    if not optional:
        outer["required"].append(name)
    return inner


def rule_schema(rule: MemberRule) -> Schema:
    """The schema of a member. Raises TypeError for a rule that has none."""
    form = getattr(rule, "form", None)
    if isinstance(form, str):
        return _common(form)
    match rule:
        case codec.JsonText():
            return _text(rule)
        case codec.JsonNumber(least=0, most=most) if most == MAX_INTEGER:
            return _common("integer")
        case codec.JsonNumber():
            return {"type": "integer", "minimum": rule.least, "maximum": rule.most}
        case codec.JsonWord():
            return {"enum": list(rule.words)}
        case codec.JsonConstant():
            return {"const": rule.word}
        case codec.JsonFollows():
            return {"type": "string", "pattern": _pattern(rule.form)}
        case codec.JsonFlag():
            return {"type": "boolean"}
        case codec.JsonAny():
            return {"not": {"type": "null"}}
        case codec.JsonDigest():
            return _common("digest")
        case codec.JsonTime():
            return _common("utc")
        case codec.JsonBytes():
            return _data(rule)
        case codec.JsonRead():
            return _read(rule)
        case codec.JsonItems():
            bounds = {"minItems": rule.least, "maxItems": rule.most} | ({"uniqueItems": True} if rule.once else {})
            return {"type": "array", "items": rule_schema(rule.of), **bounds}
        case codec.JsonRow():
            items = [rule_schema(each) for each in rule.of]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        case codec.JsonMap():
            return _named(rule)
        case SideFile():
            size = {"properties": {"size": {"maximum": rule.most}}}
            return {"allOf": [_common("sideObject")], **size}
        case codec.JsonInner() if rule.kind in _COMMON_FORMS:
            return dict(_COMMON_FORMS[rule.kind])
        case codec.JsonInner():
            return object_schema(rule.kind)
        case codec.OrAbsent():
            return rule_schema(rule.of)
        case codec.OrNull():
            return {"oneOf": [{"type": "null"}, rule_schema(rule.of)]}
    raise TypeError(f"no schema for {rule}")


def _common(name: str) -> Schema:
    return {"$ref": f"{_COMMON}{name}"}


def _text(rule: codec.JsonText) -> Schema:
    if (rule.least, rule.lines, rule.most) in _COMMON_TEXTS:
        return _common(_COMMON_TEXTS[rule.least, rule.lines, rule.most])
    controls = _CONTROLS_IN_LINES if rule.lines else _CONTROLS
    return {"type": "string", "minLength": rule.least, "maxLength": rule.most, "not": {"pattern": controls}}


def _read(rule: codec.JsonRead) -> Schema:
    assert not isinstance(rule.form, str)
    bounds = {"minLength": rule.least, "maxLength": rule.most} if rule.most < MAX_TEXT else {}
    controls = {} if rule.controls else {"not": {"pattern": _CONTROLS}}
    return {"type": "string", **bounds, "pattern": _pattern(rule.form), **controls}


def _data(rule: codec.JsonBytes) -> Schema:
    if rule.size is not None:
        return {**_BASE64_OF, "minLength": (size := -(-rule.size // 3) * 4), "maxLength": size}
    if rule.most == MAX_INTEGER:
        return _common("base64")
    return {**_BASE64_OF, "minLength": -(-rule.least // 3) * 4, "maxLength": -(-rule.most // 3) * 4}


def _named(rule: codec.JsonMap) -> Schema:
    each = rule_schema(rule.of)
    if isinstance(rule.names, re.Pattern):
        names = {"pattern": _pattern(rule.names)}
        return {"type": "object", "maxProperties": rule.most, "propertyNames": names, "additionalProperties": each}
    return {"type": "object", "properties": dict.fromkeys(rule.names, each), "additionalProperties": False}


def _pattern(form: re.Pattern[str]) -> str:
    return f"^{form.pattern.removesuffix(chr(92) + 'Z')}$"


def _places(kind: type[JsonObject], always: bool = True) -> list[tuple[Path, bool]]:
    """Where side objects are named, and whether every value has one there."""
    found: list[tuple[Path, bool]] = []
    for member in shape_of(kind).members:
        rule, here = member.rule, always and not isinstance(member.rule, codec.OrNull)
        while isinstance(rule, codec.OrNull):
            rule = rule.of
        if isinstance(rule, codec.JsonMap) and isinstance(rule.of, codec.JsonInner) and rule.of.kind is SideObject:
            found += [(member.path, False)] * rule.most
        elif isinstance(rule, codec.JsonInner) and rule.kind is SideObject:
            found.append((member.path, here))
        elif isinstance(rule, codec.JsonInner) and issubclass(rule.kind, JsonObject):
            found += [((*member.path, *path), each) for path, each in _places(rule.kind, here)]
    return found
