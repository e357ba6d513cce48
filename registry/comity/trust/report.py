"""The report: a verdict as a document that is filed. RFC 8785 JSON, the same bytes for the same evidence and policy.

    {"accepted":true,"artifact":"9f2c…","exit_status":0,"inputs":["0a1b…"],"name":"swiss-ai/apertus-8b@v1",
     "policy":"77c0…","required":["artifact","bytes"],"rows":[{"cause":"","facts":[{"basis":"verified here","by":"",
     "evidence":"…","text":"…"}],"hint":"","row":"artifact","state":"pass","step":1,"summary":"…"}],
     "schema":"comity.dev/report/v1","tool":{"name":"comity","version":"0.1.0"}}

No time, no path and no host is in it: when it was checked, and by whom, is said by the statement that signs it
(`verified`). Source: protocol, section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from comity.trust.encoding import Digest, Fields, Json, bare_digest, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.evidence import BASES, CAUSES, OK, STATES, Row, RowFact, Verdict

W = TypeVar("W", bound=str)

SCHEMA: Final = "comity.dev/report/v1"
TOOL: Final = "comity"
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_ROWS: Final = 64
MOST_FACTS: Final = 250
MOST_TEXT: Final = 1000
MAX_FACTS: Final = 100_000
MAX_INPUTS: Final = 10_000
MAX_STATUS: Final = 255


@dataclass(frozen=True, slots=True)
class VerdictReport:
    """A verdict, and the version of the program that came to it."""

    version: str
    verdict: Verdict

    @classmethod
    def of(cls, verdict: Verdict, version: str) -> VerdictReport:
        """File names that no encoding knows are spelled out: a document has Unicode only. Of a row that somebody
        flooded `MOST_FACTS` are kept, claims after what is verified here, and `MOST_TEXT` characters of each text, so
        that nobody can keep a report from being written."""
        rows = tuple(_bounded(row) for row in verdict.rows)
        return cls(version, replace(verdict, name=_text(verdict.name), rows=rows))

    def encode(self) -> bytes:
        """Raises Malformed for a report that nobody would read back."""
        document = self.verdict.to_json() | {"schema": SCHEMA, "tool": {"name": TOOL, "version": self.version}}
        data = canonical(document)
        if len(data) > MAX_BYTES:
            raise Malformed("report is too large", why=f"{len(data)} bytes, at most {MAX_BYTES} are read")
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
            required=tuple(_word(item) for item in fields.items("required", most=MAX_ROWS)),
            inputs=fields.digests("inputs", most=MAX_INPUTS),
        )
        if fields.take("accepted") is not (verdict.exit_status == OK):
            raise fields.error("it is accepted if its exit status is 0, and only then")
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


def _one_of(fields: Fields, name: str, words: Sequence[W]) -> W:
    value = fields.take(name)
    for word in words:
        if value == word:
            return word
    raise fields.error(f"member {name!r} must be one of {', '.join(map(repr, words))}")


def _string(fields: Fields, name: str) -> str:
    """Any string: whoever shows it makes it harmless."""
    value = fields.take(name)
    if not isinstance(value, str):
        raise fields.error(f"member {name!r} must be a string")
    return value


def _optional(fields: Fields, name: str) -> Digest | None:
    value = fields.take(name)
    return None if value is None else bare_digest(value)


def _word(item: Json) -> str:
    if not isinstance(item, str):
        raise Malformed("report is malformed", why="required rows are named by strings")
    return item


def _bounded(row: Row) -> Row:
    kept = set(sorted(range(len(row.facts)), key=lambda at: row.facts[at].basis == "claimed")[:MOST_FACTS])
    listed = (fact for at, fact in enumerate(row.facts) if at in kept)
    facts = tuple(replace(fact, text=_text(fact.text), by=_text(fact.by)) for fact in listed)
    if (more := len(row.facts) - len(facts)) > 0:
        facts += (RowFact(f"and {more} more, which are not listed", "verified here"),)
    return replace(row, summary=_text(row.summary), facts=facts, hint=_text(row.hint))


def _text(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"
