"""`comity policy new|check|explain`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import Digest, syllables
from comity.trust.errors import NotFound
from comity.trust.exit_statuses import OK, POLICY_NOT_MET
from comity.trust.frozen import frozen

from comity_cli.command import Group, client, examples, output, resolving
from comity_cli.document import INLINE, document
from comity_cli.files import FILE, out_option

if TYPE_CHECKING:
    from comity.trust.claims import Publication
    from comity.trust.policy import Policy
    from comity_client.policy_text import Finding, Rule

    from comity_cli.output import Output


@document("policy-new")
class PolicyNewDocument:
    """The files of a new policy, as `comity policy new --json` prints them.

    `files`: the policy, and the federation files that it pins.
    """

    files: tuple[Path, ...]


@frozen
class PinItem:
    """A charter body that a policy pins."""

    federation: Digest
    body: Digest
    epoch: int


@frozen
class PolicyItem:
    """What documents say of a policy."""

    policy: Digest
    pins: tuple[PinItem, ...]
    required: tuple[str, ...]

    @classmethod
    def of(cls, policy: Policy) -> PolicyItem:
        assert policy.digest is not None  # it was read from a file
        pins = (PinItem(body.federation, body.digest, body.epoch) for body in policy.pins)
        return cls(policy.digest, tuple(pins), tuple(policy.require))


@document("policy-check")
class PolicyCheckDocument:
    """What is wrong with a policy, as `comity policy check --json` prints it.

    `policy`: the digest of the file. `pins`: the charter bodies that it pins. `required`: the rows that must pass.
    `can_be_met`: whether some evidence may pass. `findings`: `never` names a required row that can never pass, `idle` a
    line of the policy that has no effect.
    """

    policy: PolicyItem = field(metadata=INLINE)
    can_be_met: bool
    findings: tuple[Finding, ...]


@document("policy-explained")
class PolicyExplainedDocument:
    """A policy in words, as `comity policy explain --json` prints it.

    `policy`, `pins`, `required`: as in policy-check. `rules`: for each table of the file, what it demands.
    """

    policy: PolicyItem = field(metadata=INLINE)
    rules: tuple[Rule, ...]


@examples(
    "comity policy new --out ministry.toml",
    "comity policy check ministry.toml",
    "comity policy explain ministry.toml",
)
@click.group(cls=Group, name="policy", short_help="Write, check and explain your verification policy.")
def command() -> None:
    """A policy is a TOML file under your own control. `comity verify DIR --policy FILE` applies it."""


@examples("comity policy new", "comity policy new --for swiss-ai/apertus-8b --out ministry.toml")
@command.command("new", short_help="Write a commented policy to start from.")
@click.option("--for", "reference", metavar="REF", help="Accept the publisher of this artifact, and nobody else.")
@out_option("policy.toml")
def new(reference: str | None, target: Path) -> None:
    """Write a policy that pins your federations, and their federation files beside it. Copy these files together."""
    from comity_client.policy_text import write_policy

    out, pins = output(), client().pins()
    publication = _publication(reference) if reference else None
    written = write_policy(target, pins, publication)
    for path in written:
        out.say(f"Written: {path}")
    if publication is not None:
        _say_decisions(out, publication)
        out.hint(f"comity policy check {target}   then   comity pull {reference} --policy {target}")
    elif not pins:
        out.warn("no federation is pinned yet, so no artifact can pass this policy")
        out.hint(f"comity trust pin FILE, then write it again: comity policy new --out OTHER{target.suffix}")
    elif not any(pin.federation.body.namespaces for pin in pins):
        out.warn("no pinned charter gives a name to a publisher: list a publisher in [publishers] accept first")
        out.hint(f"comity show NAME   then   comity policy check {target}")
    else:
        out.hint(f"comity policy check {target}")
    out.answer(PolicyNewDocument(tuple(written)))


def _publication(reference: str) -> Publication:
    """Raises as `Client.resolve` does; NotFound for an artifact that nobody published."""
    with resolving("policy new --for"), output().waiting("asking the nodes"):
        found = client().resolve(reference)
    if found.current is None:
        why = "no publisher signed it, so a policy can accept none"
        raise NotFound(f"{reference} has no publisher", why=why, hint="comity policy new")
    return found.current


def _say_decisions(out: Output, publication: Publication) -> None:
    """Say what only a person can decide about a policy for one publication."""
    publisher = publication.publisher
    out.say("Decide, and change the file where you disagree:")
    out.fact("publisher", f"{publisher.display}: compare by telephone {syllables(publisher.id)}")
    out.fact("licence", f"the publisher says {publication.published.licence.spdx}; no licence is required")
    out.fact("time", "evidence may be of any age: set as_of and max_age_days in [time]")


@examples("comity policy check ministry.toml", "comity policy check ministry.toml --json")
@command.command("check", short_help="Check that a policy is consistent and can be met.")
@click.argument("file", type=FILE)
def check(file: Path) -> int:
    """Read FILE and the federation files that it pins, and list rules that can never pass and rules without effect.

    Exit status: 0 it can be met, 2 it cannot be read, 3 a pin is not valid, 4 a required row can never pass.
    """
    from comity_client.policy_text import findings

    out, policy = output(), client().policy(file)
    found = findings(policy)
    never = [each for each in found if each.kind == "never"]
    out.prose(f"{file}  sha256:{policy.digest}")
    out.fact("pins", ", ".join(f"{body.digest[:16]} (epoch {body.epoch})" for body in policy.pins) or "none")
    out.fact("requires", ", ".join(policy.require))
    for each in found:
        out.warn(f"{'can never pass' if each.kind == 'never' else 'has no effect'}: {each.row}: {each.text}")
    if never:
        out.say("This policy can accept no model.", sign=f"{out.mark('✗', 'red')} ")
    else:
        out.done("the policy is consistent: its pins are valid, and what it requires can be met")
    out.hint(f"correct that in {file}, then: comity policy check {file}" if never else f"comity policy explain {file}")
    out.answer(PolicyCheckDocument(PolicyItem.of(policy), not never, found))
    return POLICY_NOT_MET if never else OK


@examples("comity policy explain ministry.toml", "comity policy explain ministry.toml --json")
@command.command("explain", short_help="Explain a policy in plain words.")
@click.argument("file", type=FILE)
def explain(file: Path) -> None:
    """Explain each rule of FILE, and what FILE does not restrict."""
    from comity_client.policy_text import explain as explain_rules

    out, policy = output(), client().policy(file)
    rules = explain_rules(policy)
    out.prose(f"{file}  sha256:{policy.digest}")
    for rule in rules:
        out.say(f"\n{rule.title}  [{rule.table}]")
        for sentence in rule.says:
            out.prose(sentence, first="  ")
    out.answer(PolicyExplainedDocument(PolicyItem.of(policy), rules))
