#!/usr/bin/env python3
"""Write the parts of the documentation that follow from the source: `docs/generate.py` rewrites them in place.

A test calls `rendered` and compares, so that neither can drift.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import comity_cli
from comity.formats.loaders import FORMATS, LOADERS
from comity.node.config import PREFIX, NodeConfig
from comity.node.metrics import Metrics
from comity.node.settings import S3
from comity.rules.continuity.drill_report import DrillReport
from comity.rules.kits.cases import KitCases
from comity.rules.kits.description import Kit
from comity.rules.statement_readers import FORMS
from comity.trust.content import Content
from comity.trust.copies import MAX_LABEL
from comity.trust.exit_statuses import MEANINGS
from comity.trust.statement_kinds import HOLDS, STATEMENT_KINDS, AuthorRule, StatementKind
from comity.v1 import access_pb2
from comity.wire.services import CALL_RULES
from comity_cli.commands.explain import explanations
from comity_cli.document import KINDS
from comity_cli.main import COMMANDS
from comity_client.inventory.inventory import Inventory
from comity_client.release_parts import ProductRelease
from document_schemas import document_schema
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from statement_schemas import file_schema, predicate_schema, summary

DOCS: Final = Path(__file__).resolve().parent
LINE_LENGTH: Final = 120
FILE_SCHEMAS: Final = {
    "drill-report.json": DrillReport,
    "inventory.json": Inventory,
    "kit.json": Kit,
    "kit-cases.json": KitCases,
    "release.json": ProductRelease,
}
"""Files whose schemas are derived from the classes of what they describe."""

_ERRORS: Final = """\
# Error codes

Generated from `clients/comity_cli/explanations.toml`; do not edit. `comity explain CODE` prints an entry.

A code is the word in brackets after an error, the `code` in `--json`, and the reason in gRPC's ErrorInfo. It is API: a
code is never given another meaning. The exit status says whose turn it is:

| exit | meaning |
|---|---|
{statuses}
| code | means | do |
|---|---|---|
"""


def rendered() -> Mapping[Path, str]:
    """The generated files, and the files with a generated part, as they should be."""
    names = ("operations/settings", "operations/watch", "security", "file-safety")
    settings, watch, security, safety = (DOCS / f"{name}.md" for name in names)
    return {
        security: _between(security.read_text(encoding="utf-8"), "calls", calls_table()),
        DOCS / "errors.md": _ERRORS.format(statuses=statuses_table())
        + "".join(f"| `{code}` | {entry.means} | {entry.do} |\n" for code, entry in explanations().items()),
        settings: _between(settings.read_text(encoding="utf-8"), "configuration", configuration_table()),
        watch: _between(watch.read_text(encoding="utf-8"), "metrics", metrics_table()),
        safety: _between(
            _between(safety.read_text(encoding="utf-8"), "loaders", loaders_table()), "formats", formats_table()
        ),
        **document_schemas(),
        **statement_schemas(),
        **{DOCS / "schemas" / name: f"{_json_text(file_schema(kind))}\n" for name, kind in FILE_SCHEMAS.items()},
        DOCS / "protocol.md": with_kinds((DOCS / "protocol.md").read_text(encoding="utf-8")),
    }


def statuses_table() -> str:
    """The rows of the exit statuses."""
    return "".join(f"| {status} | {meaning} |\n" for status, meaning in MEANINGS.items())


def document_schemas() -> Mapping[Path, str]:
    """The schema of each kind of document that commands print, and the table of these files."""
    for module in pkgutil.walk_packages(comity_cli.__path__, "comity_cli."):
        importlib.import_module(module.name)
    for command in COMMANDS.values():
        importlib.import_module(command.module, "comity_cli.commands")
    ours = (made for made in KINDS if made.__module__.startswith(("comity_cli.", "comity.addons.")))
    folder = DOCS / "schemas"
    kinds: dict[str, list[type]] = {}
    for made in sorted(ours, key=lambda made: (KINDS[made], made.__name__)):
        kinds.setdefault(KINDS[made], []).append(made)
    found = {kind: document_schema(*classes) for kind, classes in kinds.items()}
    table = "| schema | command, with `--json` |\n|---|---|\n" + "".join(
        f"| [{kind}](commands/{kind}.json) | {commands} |\n"
        for kind, each in found.items()
        if (commands := ", ".join(f"`{command}`" for command in _commands(each["title"])))
    )
    readme = folder / "README.md"
    return {
        readme: _between(readme.read_text(encoding="utf-8"), "commands", table),
        **{
            folder / ("commands" if _commands(each["title"]) else "") / f"{kind}.json": f"{_json_text(each)}\n"
            for kind, each in found.items()
        },
    }


def statement_schemas() -> Mapping[Path, str]:
    """The schema of what each kind of statement says, and the part of the statement's schema that names these."""
    folder = DOCS / "schemas"
    statement = json.loads((folder / "statement.json").read_text(encoding="utf-8"))
    statement["allOf"] = [_predicate_of_statement(*each) for each in sorted(FORMS.items())]
    return {
        folder / "statement.json": f"{_json_text(statement)}\n",
        **{
            folder / "predicates" / f"{predicate}.json": f"{_json_text(predicate_schema(forms))}\n"
            for predicate, forms in FORMS.items()
        },
    }


def with_kinds(page: str) -> str:
    """The page of the protocol with a row for each kind of statement: the rows that say more than the classes do are
    written there, the others follow from these."""
    head = "| predicate | by | content |\n|---|---|---|\n"
    before, _, rest = page.partition(head)
    table, _, after = rest.partition("\n\n")
    written = [row for row in table.splitlines() if "[schema](schemas/predicates/" not in row]
    named = {name for row in written for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    rows = written + [
        _kind_row(kind) for kind in STATEMENT_KINDS.values() if kind.logged and kind.predicate not in named
    ]
    order = list(STATEMENT_KINDS)
    rows.sort(key=lambda row: order.index(re.findall(r"`([a-z-]+)`", row)[0]))
    return before + head + "\n".join(rows) + "\n\n" + after


def _kind_row(kind: StatementKind) -> str:
    by = {AuthorRule.ANYONE: "anyone", AuthorRule.NODE: "node", AuthorRule.MEMBER: "member"}.get(kind.by, "identity")
    said = "; ".join(summary(form) for form in FORMS[kind.predicate])
    return f"| `{kind.predicate}` | {by} | {said} ([schema](schemas/predicates/{kind.predicate}.json)) |"


def _predicate_of_statement(predicate: str, forms: Sequence[type[Content]]) -> Mapping[str, Any]:
    fewest, most = min(each.subject_count[0] for each in forms), max(each.subject_count[1] for each in forms)
    kind = {"properties": {"predicateType": {"const": f"urn:comity:{predicate}:v1"}}, "required": ["predicateType"]}
    label = {"items": {"properties": {"name": {"maxLength": MAX_LABEL}}}} if predicate == HOLDS else {}
    subjects = {"minItems": fewest, "maxItems": most, **label}
    members = {"predicate": {"$ref": f"predicates/{predicate}.json"}, "subject": subjects}
    return {"if": kind, "then": {"properties": members, "required": ["predicate"]}}


def _commands(title: str) -> list[str]:
    """The commands that the title of a schema names; none for a document of every command."""
    return [named.removesuffix(" --json") for named in re.findall(r"`(comity [^`]+)`", title)]


def _json_text(value: Any, depth: int = 0, name: str = "") -> str:
    """JSON in which every list and object that fits is on one line, after its name; the whole is never on one."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, list | dict) or not value or (depth and depth + len(name) + len(line) <= LINE_LENGTH):
        return f"{name}{line}"
    named = value.items() if isinstance(value, dict) else (("", item) for item in value)
    inner = [
        _json_text(item, depth + 1, f"{json.dumps(key)}: " if isinstance(value, dict) else "") for key, item in named
    ]
    ends = "{}" if isinstance(value, dict) else "[]"
    parts = ",\n".join(f"{' ' * (depth + 1)}{each}" for each in inner)
    return f"{name}{ends[0]}\n{parts}\n{' ' * depth}{ends[1]}"


def configuration_table() -> str:
    """Every setting of node.toml with its type, default and environment variable."""
    rows = [
        f"| `{path}` | {_kind(field)} | {_default(field)} | `{PREFIX}{path.replace('.', '_').upper()}` |\n"
        for path, field in _settings()
    ]
    return "| setting | value | default | environment |\n|---|---|---|---|\n" + "".join(rows)


def calls_table() -> str:
    """Who may make each call, as the contract declares it."""
    who = {
        access_pb2.WHO_ANYONE: "everybody",
        access_pb2.WHO_MEMBER: "nodes of the federation",
        access_pb2.WHO_OPERATOR: "operators",
        access_pb2.WHO_SOCKET: "operators, over the Unix socket",
    }
    rows = [
        f"| `{path.rpartition('.')[2]}` | {who[rule.who]} | {rule.cost} | {rule.request_bytes // 1024} KiB |\n"
        for path, rule in sorted(CALL_RULES.items(), key=lambda item: item[0])
    ]
    return "| call | for | counts as calls | largest request |\n|---|---|---|---|\n" + "".join(rows)


def metrics_table() -> str:
    """Every metric of a node, by its exported name."""
    rows = []
    for metric in Metrics().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        rows.append(f"| `{name}` | {metric.type} | {metric.documentation} |\n")
    return "| metric | type | counts |\n|---|---|---|\n" + "".join(sorted(rows))


def loaders_table() -> str:
    """Every loader, the names of files that people give it, and the readings that it tries."""
    rows = [
        f"| {loader.name} | {', '.join(f'`{name}`' for name in loader.files)} | {', '.join(loader.readings)} |\n"
        for loader in LOADERS
    ]
    return "| loader | names | readings, in its order |\n|---|---|---|\n" + "".join(rows)


def formats_table() -> str:
    """Every format: what is read of it, what a clean answer means, where this ends."""
    rows = [
        f"| `{name}` | {rule.read} | {rule.clean or 'never clean'} | {rule.ends} |\n" for name, rule in FORMATS.items()
    ]
    return "| format | what is read | what clean means | where this ends |\n|---|---|---|---|\n" + "".join(rows)


def _settings() -> Iterator[tuple[str, FieldInfo]]:
    for section, field in NodeConfig.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            for key, setting in model.model_fields.items():
                if key != "s3":
                    yield f"{section}.{key}", setting
    for key, setting in S3.model_fields.items():
        yield f"storage.s3.{key}", setting


def _kind(field: FieldInfo) -> str:
    if field.annotation in (int, float):
        return "number"
    if field.annotation is str:
        return "text"
    if field.annotation is bool:
        return "true or false"
    if field.annotation in (Path, Path | None):
        return "path"
    return "word or list" if "Literal" in str(field.annotation) else "list"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = "" if field.default is None else field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    text = "[]" if value == () else f'"{value}"' if isinstance(value, str | Path) else str(value)
    return f"`{text}`"


def _between(text: str, part: str, new: str) -> str:
    pattern = rf"(<!-- generated: {part} -->\n).*?(<!-- end -->)"
    found, count = re.subn(pattern, lambda match: match[1] + new + match[2], text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"no single generated part {part!r}")
    return found


def main() -> None:
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
