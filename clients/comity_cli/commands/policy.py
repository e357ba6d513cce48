"""`comity policy new|check|explain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.evidence import OK, POLICY_NOT_MET

from comity_cli.command import Group, client, examples, output
from comity_cli.files import FILE, out_option

if TYPE_CHECKING:
    from comity.trust.policy import Policy


@examples(
    "comity policy new --out ministry.toml",
    "comity policy check ministry.toml",
    "comity policy explain ministry.toml",
)
@click.group(cls=Group, name="policy", short_help="Write, check and explain what you demand of a model.")
def command() -> None:
    """A policy is a TOML file under your own change control. `comity verify DIR --policy FILE` judges by it."""


@examples("comity policy new", "comity policy new --out ministry.toml")
@command.command("new", short_help="Write a commented policy to start from.")
@out_option("policy.toml")
def new(target: Path) -> None:
    """Write a policy with your pinned federations in it and their files beside it: carry them together."""
    from comity_client.policy_text import write_policy

    out, pins = output(), client().pins()
    written = write_policy(target, pins)
    for path in written:
        out.say(f"Written: {path}")
    if not pins:
        out.warn("no federation is pinned yet, so nothing could pass under it")
        out.hint(f"comity trust pin FILE, then write it again: comity policy new --out OTHER{target.suffix}")
    else:
        out.hint(f"comity policy check {target}")
    out.document("policy-new", {"files": [str(path) for path in written]})


@examples("comity policy check ministry.toml", "comity policy check ministry.toml --json")
@command.command("check", short_help="Check that a policy holds together, and that it can be met.")
@click.argument("file", type=FILE)
def check(file: Path) -> int:
    """Read FILE and the federation files that it pins, and say what under it could never pass and what does nothing.

    Exit status: 0 it can be met, 2 it cannot be read, 3 a pin does not hold, 4 a required row could never pass.
    """
    from comity_client.policy_text import findings

    out, policy = output(), client().policy(file)
    found = findings(policy)
    never = [each for each in found if each.kind == "never"]
    out.say(f"{file}  sha256:{policy.digest}")
    out.fact("pins", ", ".join(f"{body.digest[:16]} (epoch {body.epoch})" for body in policy.pins) or "none")
    out.fact("requires", ", ".join(policy.require))
    for each in found:
        out.warn(f"{'could never pass' if each.kind == 'never' else 'does nothing'}: {each.row}: {each.text}")
    if never:
        out.say("No model could be accepted under this policy.", sign=f"{out.mark('✗', 'red')} ")
    else:
        out.done("it holds together: its pins prove themselves, and what it requires can be met")
    out.hint(f"correct that in {file}, then: comity policy check {file}" if never else f"comity policy explain {file}")
    listed = [asdict(each) for each in found]
    out.document("policy-check", {**_about(policy), "can_be_met": not never, "findings": listed})
    return POLICY_NOT_MET if never else OK


@examples("comity policy explain ministry.toml", "comity policy explain ministry.toml --json")
@command.command("explain", short_help="Say in plain words what a policy demands.")
@click.argument("file", type=FILE)
def explain(file: Path) -> None:
    """Say what FILE demands, rule by rule, and what it leaves open."""
    from comity_client.policy_text import explain as tell

    out, policy = output(), client().policy(file)
    rules = tell(policy)
    out.say(f"{file}  sha256:{policy.digest}")
    for rule in rules:
        out.say(f"\n{rule.title}  [{rule.table}]")
        for sentence in rule.says:
            out.say(f"  {sentence}")
    out.document("policy-explained", {**_about(policy), "rules": [asdict(rule) for rule in rules]})


def _about(policy: Policy) -> dict[str, object]:
    pins = [{"federation": body.federation, "body": body.digest, "epoch": body.epoch} for body in policy.pins]
    return {"policy": policy.digest, "pins": pins, "required": list(policy.require)}
