"""The report: a verdict as a document. RFC 8785 JSON, the same bytes for the same evidence and policy.

    {"accepted":true,"artifact":"9f2c…","exit_status":0,"inputs":["0a1b…"],"name":"swiss-ai/apertus-8b@v1",
     "policy":"77c0…","required":["artifact","bytes"],"rows":[{"cause":"","facts":[{"basis":"verified here","by":"",
     "evidence":"…","text":"…"}],"hint":"","row":"artifact","state":"pass","step":1,"summary":"…"}],
     "schema":"comity.dev/report/v1","tool":{"name":"comity","version":"0.1.0"}}

A report contains no time, path or host. The `verified` statement that signs it has the time and the signer. Source:
protocol, section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from comity.trust.encoding import Digest, Fields, Json, bare_digest, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.evidence import BASES, CAUSES, OK, STATES, Row, RowFact, Verdict

Choice = TypeVar("Choice", bound=str)

SCHEMA: Final = "comity.dev/report/v1"
TOOL: Final = "comity"
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_ROWS: Final = 64
MAX_FACTS_PER_ROW: Final = 200
MAX_TEXT: Final = 1000
MAX_FACTS: Final = 100_000
MAX_INPUTS: Final = 10_000
MAX_STATUS: Final = 255


@dataclass(frozen=True, slots=True)
class VerdictReport:
    """A verdict, and the version of the program that made it."""

    version: str
    verdict: Verdict

    @classmethod
    def of(cls, verdict: Verdict, version: str) -> VerdictReport:
        """Build a report that always fits the limits, whatever an attacker put into the evidence. Per row at most
        `MAX_FACTS_PER_ROW` facts are kept, verified facts before claims, and `MAX_TEXT` characters per text. Bytes
        of file names that are not Unicode are escaped."""
        rows = tuple(_bounded(row) for row in verdict.rows)
        return cls(version, replace(verdict, name=_text(verdict.name), rows=rows))

    def encode(self) -> bytes:
        """Raises Malformed if the report is larger than 16 MiB."""
        document = self.verdict.to_json() | {"schema": SCHEMA, "tool": {"name": TOOL, "version": self.version}}
        data = canonical(document)
        if len(data) > MAX_BYTES:
            raise Malformed("report is too large", why=f"{len(data)} bytes, at most {MAX_BYTES} are allowed")
        return data

    @classmethod
    def parse(cls, data: bytes) -> VerdictReport:
        """Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_BYTES, what="report"), "report")
        fields.constant("schema", SCHEMA)
        tool = fields.object("tool")
        tool.constant("name", TOOL)
        version = tool.text("version", most=64)
        tool.done()
        verdict = Verdict(
            artifact=_optional(fields, "artifact"),
            name=_string(fields, "name"),
            rows=tuple(_row(item) for item in fields.items("rows", most=MAX_ROWS)),
            exit_status=fields.integer("exit_status", most=MAX_STATUS),
            policy=_optional(fields, "policy"),
            required=tuple(_row_name(item) for item in fields.items("required", most=MAX_ROWS)),
            inputs=fields.digests("inputs", most=MAX_INPUTS),
        )
        if fields.take("accepted") is not (verdict.exit_status == OK):
            raise fields.error("'accepted' must be true exactly if 'exit_status' is 0")
        fields.done()
        return cls(version, verdict)


def _row(item: Json) -> Row:
    fields = Fields(item, "report row")
    row = Row(
        name=fields.text("row", most=64),
        state=_one_of(fields, "state", STATES),
        summary=_string(fields, "summary"),
        step=fields.integer("step", most=MAX_ROWS),
        cause=_one_of(fields, "cause", CAUSES),
        facts=tuple(_fact(each) for each in fields.items("facts", most=MAX_FACTS)),
        hint=_string(fields, "hint"),
    )
    fields.done()
    return row


def _fact(item: Json) -> RowFact:
    fields = Fields(item, "report fact")
    basis = _one_of(fields, "basis", BASES)
    fact = RowFact(_string(fields, "text"), basis, _string(fields, "by"), _optional(fields, "evidence"))
    fields.done()
    return fact


def _one_of(fields: Fields, name: str, choices: Sequence[Choice]) -> Choice:
    value = fields.take(name)
    for choice in choices:
        if value == choice:
            return choice
    raise fields.error(f"member {name!r} must be one of {', '.join(map(repr, choices))}")


def _string(fields: Fields, name: str) -> str:
    """Any string. The caller escapes it for display."""
    value = fields.take(name)
    if not isinstance(value, str):
        raise fields.error(f"member {name!r} must be a string")
    return value


def _optional(fields: Fields, name: str) -> Digest | None:
    value = fields.take(name)
    return None if value is None else bare_digest(value)


def _row_name(item: Json) -> str:
    if not isinstance(item, str):
        raise Malformed("report is malformed", why="names of required rows must be strings")
    return item


def _bounded(row: Row) -> Row:
    indexes = sorted(range(len(row.facts)), key=lambda index: row.facts[index].basis == "claimed")
    kept = set(indexes[:MAX_FACTS_PER_ROW])
    listed = (fact for index, fact in enumerate(row.facts) if index in kept)
    facts = tuple(replace(fact, text=_text(fact.text), by=_text(fact.by)) for fact in listed)
    if (more := len(row.facts) - len(facts)) > 0:
        facts += (RowFact(f"{more} more are not listed", "verified here"),)
    return replace(row, summary=_text(row.summary), facts=facts, hint=_text(row.hint))


def _text(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
