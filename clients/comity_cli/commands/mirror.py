"""`comity mirror rules ls|check|add`: the rules by which your node decides which artifacts it copies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.bounded_file import read_bounded
from comity.content import durable
from comity.rules.mirror_rules import (
    ACTIONS,
    ALL,
    HOUR_SECONDS,
    MAX_AGE_HOURS,
    MirrorClaim,
    MirrorContents,
    MirrorDecision,
    MirrorRules,
    QuotaUse,
    parse_mirror_rules,
)
from comity.rules.rule_file import MAX_BYTES
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen

from comity_cli.command import Group, client, examples, options_as, output
from comity_cli.commands import mirror_cost
from comity_cli.document import INLINE, document
from comity_cli.node_home import configured_rules, recorded_act
from comity_cli.node_view import span
from comity_cli.nodes import home_option
from comity_cli.output import plural, size

if TYPE_CHECKING:
    from comity.wire.node_status import NodeStatus
    from comity_client.evidence.artifact_info import ArtifactInfo

DEFAULT_FILE = "mirror.toml"


@frozen
class QuotaItem:
    """A quota and its use, in bytes: null for none, and where it is not known."""

    quota_bytes: int | None
    used_bytes: int | None


@frozen
class RuleItem:
    """A rule and its quota."""

    name: str
    do: str
    quota: QuotaItem = field(metadata=INLINE)


@document("mirror-rules")
class MirrorRulesDocument:
    """The rules of a node in their order, as `comity mirror rules ls --json` prints them."""

    file: Path
    default: str
    rules: tuple[RuleItem, ...]
    total: QuotaItem


@document("mirror-rules")
class MirrorRuleAddedDocument:
    """How many rules a file has with the new one, as `comity mirror rules add --json` prints it."""

    file: Path
    rules: int


@frozen
class DecisionItem:
    """What the rule called `rule` decides, empty for the default."""

    name: str
    artifact: Digest
    copy: bool
    rule: str
    wait_seconds: int


@document("mirror-decisions")
class MirrorDecisionsDocument:
    """What the rules decide about artifacts, as `comity mirror rules check --json` prints it."""

    file: Path
    decisions: tuple[DecisionItem, ...]


@examples(
    "comity mirror rules ls --node node-ch",
    "comity mirror rules add 'the institute' --do copy --repository 'swiss-ai/*' --node node-ch",
    "comity mirror rules check swiss-ai/tiny@v1 --node node-ch",
    "comity mirror cost --namespace swiss-ai --node node-ch",
)
@click.group(cls=Group, name="mirror", short_help="Write and check the rules by which your node copies artifacts.")
def command() -> None:
    """Decide which artifacts your node copies from others. What it publishes itself it always keeps, and a rule never
    removes a copy."""


command.add_command(mirror_cost.command)


@examples("comity mirror rules ls --node node-ch", "comity mirror rules check swiss-ai/tiny@v1 --node node-ch")
@command.group("rules", cls=Group, short_help="List, check and add mirror rules.")
def rules() -> None:
    """Ordered rules in a TOML file that `replication.rules` in node.toml names: the first that fits decides. A node
    reads them when it starts."""


@examples("comity mirror rules ls --node node-ch", "comity mirror rules ls --node node-ch --json")
@rules.command("ls", short_help="List the rules in their order.")
@home_option("Your node, by its home. Default: here.")
def list_rules(home: Path) -> None:
    """List the rules in their order, and what happens where none fits. If the node runs, the use of each quota is
    shown: bytes are charged before they are copied."""
    out = output()
    file, found = _read(home)
    status = _status(home) if found.quotas else None
    used = {quota.name: quota.used for quota in status.quotas} if status is not None else {}
    uses = {name: used.get(str(QuotaUse(name, 0, limit))) for name, limit in found.quotas.items()}
    rows: list[tuple[str, ...]] = [
        (str(at), rule.name, rule.do, *_use(uses.get(rule.name), rule.quota_bytes))
        for at, rule in enumerate(found.rules, 1)
    ]
    rows.append(("", "where no rule fits", found.default, "-", "-"))
    if found.quota_bytes is not None:
        rows.append(("", "all together", "", *_use(uses[ALL], found.quota_bytes)))
    out.table(("", "rule", "does", "used", "quota"), rows)
    for warning in (text for text in (status.warnings if status else ()) if "mirror" in text):
        out.warn(warning)
    listed = (RuleItem(rule.name, rule.do, QuotaItem(rule.quota_bytes, uses.get(rule.name))) for rule in found.rules)
    total = QuotaItem(found.quota_bytes, uses.get(ALL))
    out.answer(MirrorRulesDocument(file, found.default, tuple(listed), total))


@examples(
    "comity mirror rules check swiss-ai/tiny@v1 --node node-ch",
    "comity mirror rules check hf:org/name@6c1277e6c1277e6c1277e6c1277e6c1277e6c127 --node node-ch --json",
)
@rules.command("check", short_help="Say which rule decides about artifacts; nothing is changed.")
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@click.option(
    "--age-hours", type=click.IntRange(0, MAX_AGE_HOURS), default=0, metavar="HOURS",
    help="Decide as if your node had known it for so long. Default: it is new.",
)  # fmt: skip
@home_option("Your node, by its home. Default: here.")
def check(references: tuple[str, ...], age_hours: int, home: Path) -> None:
    """Say for each REF which rule decides, and whether your node copies it. Only the file is read: a node that runs
    uses the rules that it read when it started."""
    out = output()
    file, found = _read(home)
    decided = list[DecisionItem]()
    for reference in references:
        info = client().show(reference)
        for claim in _claims(info):
            decision = found.decide(claim, MirrorContents.of(info.manifest), age_hours * HOUR_SECONDS)
            assert decision is not None  # the contents are given
            name = f"{claim.repository}@{claim.version}"
            out.say(f"{name}: {_outcome(decision)}, by {_by(decision)}")
            wait = round(decision.wait)
            decided.append(DecisionItem(name, info.artifact, decision.copy, decision.rule, wait))
    out.answer(MirrorDecisionsDocument(file, tuple(decided)))


@frozen
class NewRule:
    """A rule to add. Further fields are the conditions of a rule, by their keys in the file."""

    name: str
    action: str
    repositories: tuple[str, ...]
    versions: tuple[str, ...]
    publishers: tuple[str, ...]
    organisations: tuple[str, ...]
    licences: tuple[str, ...]
    formats: tuple[str, ...]
    min_bytes: int | None
    max_bytes: int | None
    min_age_hours: int | None
    max_age_hours: int | None
    quota_bytes: int | None

    @property
    def toml(self) -> str:
        lines = ["", "[[rule]]", f"name = {_quoted(self.name)}", f"do = {_quoted(self.action)}"]
        for key in (each.name for each in fields(self)[2:]):
            value = getattr(self, key)
            if isinstance(value, tuple) and value:
                lines.append(f"{key} = [{', '.join(map(_quoted, value))}]")
            elif isinstance(value, int):
                lines.append(f"{key} = {value}")
        return "\n".join(lines) + "\n"


@examples(
    "comity mirror rules add 'the institute' --do copy --repository 'swiss-ai/*' --node node-ch",
    "comity mirror rules add 'nothing above 200 GB' --do skip --min-bytes 200000000000 --node node-ch",
)
@rules.command("add", short_help="Add a rule at the end.")
@click.argument("name", metavar="NAME")
@click.option("--do", "action", type=click.Choice(ACTIONS), required=True, help="What happens where the rule fits.")
@click.option("--repository", "repositories", multiple=True, metavar="PATTERN", help="namespace/name, with * and ?.")
@click.option("--version", "versions", multiple=True, metavar="PATTERN", help="The version, with * and ?.")
@click.option("--publisher", "publishers", multiple=True, metavar="ID", help="64 hex digits.")
@click.option("--organisation", "organisations", multiple=True, help="The organisation of a mirrored repository.")
@click.option("--licence", "licences", multiple=True, metavar="SPDX", help="The claimed licence.")
@click.option("--format", "formats", multiple=True, metavar="SUFFIX", help="A suffix that one of the files has.")
@click.option("--min-bytes", type=int, help="The smallest sum of the sizes of the files.")
@click.option("--max-bytes", type=int, help="The largest sum of the sizes of the files.")
@click.option("--min-age-hours", type=int, help="Copied only when your node has known it for so long.")
@click.option("--max-age-hours", type=int, help="Fits only while your node has not known it for longer.")
@click.option("--quota-bytes", type=int, help="The most bytes that the rule may copy; others wait.")
@options_as("rule", NewRule)
@home_option("Your node, by its home. Default: here.")
def add(rule: NewRule, home: Path) -> None:
    """Add a rule at the end of your node's file of rules. A new file gets `default = "skip"`: what no rule names is not
    copied. The file is checked before it is written; the node reads it when it starts."""
    out = output()
    file, text = _file(home), ""
    try:
        text = read_bounded(file, MAX_BYTES).decode("utf-8")
    except NotFound:
        text = 'default = "skip"   # what no rule decides: "copy" or "skip"\n'
    data = (text.rstrip("\n") + "\n" + rule.toml).encode()
    found = parse_mirror_rules(data)
    with recorded_act(home, "mirror.rule", rule.name, f"{rule.action} {' '.join(rule.repositories)}".strip()):
        durable.write_file(file, data, mode=0o644, point="home")
    out.done(f"{file} has {plural(len(found.rules), 'rule')}; the new one is the last")
    if configured_rules(home) is None:
        out.hint(f'set rules = "{DEFAULT_FILE}" in [replication] of node.toml, and restart the node: comity serve')
    else:
        out.hint("restart the node, so that it reads them: comity serve")
    out.answer(MirrorRuleAddedDocument(file, len(found.rules)))


def _claims(info: ArtifactInfo) -> Iterator[MirrorClaim]:
    """What is claimed about an artifact: its publication, or the commits from which it was mirrored."""
    if info.current is not None:
        yield MirrorClaim.of(info.current.published)
    yield from dict.fromkeys(MirrorClaim.of(seen.observed) for seen in info.mirroring.seen)


def _use(used: int | None, quota: int | None) -> tuple[str, str]:
    if quota is None:
        return "-", "-"
    return "unknown" if used is None else size(used), size(quota)


def _status(home: Path) -> NodeStatus | None:
    """The status of the node, if it runs and has quotas of rules: what is not known is not shown as 0."""
    from comity_client.own_node import operator_status, own_socket

    try:
        return operator_status(own_socket(str(home)))
    except ComityError:
        return None


def _outcome(decision: MirrorDecision) -> str:
    if decision.wait:
        return f"copied in {span(decision.wait)}"
    return "copied" if decision.copy else "not copied"


def _by(decision: MirrorDecision) -> str:
    return f"rule {decision.rule!r}" if decision.rule else "the default"


def _read(home: Path) -> tuple[Path, MirrorRules]:
    file = _file(home)
    try:
        return file, parse_mirror_rules(read_bounded(file, MAX_BYTES))
    except NotFound as error:
        hint = f"comity mirror rules add NAME --do copy --node {home}"
        raise NotFound(f"no mirror rules in {file}", why=error.why, hint=hint) from error


def _file(home: Path) -> Path:
    return home / (configured_rules(home) or DEFAULT_FILE)


def _quoted(text: str) -> str:
    """A TOML basic string. JSON escapes are TOML escapes for what may occur here."""
    return json.dumps(text, ensure_ascii=False)
