"""What in its files would run when somebody loads it, and whether they are what they seem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from comity.trust.evidence import FoundFile, Inspection
from comity.trust.policy import SafetyRule
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import here
from comity.trust.safety import KINDS, kind_of
from comity.trust.verdict import Cause, Fact, Row

NAME = "file safety"
STEP = 10


def safety_row(found: Findings) -> Row:
    """It fails for what the policy does not allow; nothing in a file makes it a failed verification."""
    if found.evidence.files is None:
        return Row(NAME, "not-checked", "nobody looked at the files", STEP, "missing")
    files, rule = [file for file in found.evidence.files if file.kind == "file"], found.policy.safety
    looked = [(file, file.inspection) for file in files if file.inspection is not None]
    refusals = tuple(here(f"{file.path}: {text}", file.sha256) for file, _ in looked for text in refused(rule, file))
    allowed = tuple(fact for file, seen in looked for fact in _allowed(rule, file, seen))
    census = _census([seen for _, seen in looked])
    strange = tuple(here(f"{file.path}: its format is not known here", file.sha256) for file in _strange(looked))
    facts = (*refusals, *allowed, *strange, here(census))
    if refusals:
        return Row(
            NAME, "fail", f"{refusals[0].text}; {len(refusals)} in all", STEP, "short", facts, hint="comity scan DIR"
        )
    if len(looked) < len(files):
        text = f"{len(files) - len(looked)} of {len(files)} files were not looked into"
        return Row(NAME, "unknown", text, STEP, "missing", facts)
    if missing := {entry.path for entry in found.manifest.files} - {file.path for file in files}:
        cause: Cause = "partial" if found.evidence.partial else "missing"
        return Row(NAME, "unknown", f"{census}; {len(missing)} files are not here", STEP, cause, facts)
    shown = f"; allowed: {', '.join(dict.fromkeys(_kinds(looked)))}" if allowed else "; nothing active"
    return Row(NAME, "pass", f"{census}{shown}", STEP, facts=facts)


def refused(rule: SafetyRule, file: FoundFile) -> Iterator[str]:
    """What the rule refuses about a file that was looked into."""
    seen = file.inspection
    if seen is None or rule.exempts(file.path, file.sha256):
        return
    for active in seen.active:
        if not rule.accepts(active):
            yield f"{active} ({KINDS.get(kind_of(active), 'not known here')})"
    yield from seen.malformed
    if not rule.accepts_format(seen.format):
        yield f"{seen.format}, a format that the policy does not name"


def _allowed(rule: SafetyRule, file: FoundFile, seen: Inspection) -> Iterator[Fact]:
    exempt = rule.exempts(file.path, file.sha256)
    for text in (*seen.active, *(seen.malformed if exempt else ())):
        if exempt or rule.accepts(text):
            yield here(f"{file.path}: {text}, which the policy allows", file.sha256)


def _strange(looked: list[tuple[FoundFile, Inspection]]) -> Iterator[FoundFile]:
    return (file for file, seen in looked if seen.format == "unknown")


def _kinds(looked: list[tuple[FoundFile, Inspection]]) -> Iterator[str]:
    return (kind_of(active) for _, seen in looked for active in seen.active)


def _census(inspections: list[Inspection]) -> str:
    counts = Counter(seen.format for seen in inspections)
    return ", ".join(f"{counts[name]} {name}" for name in sorted(counts)) or "no files"
