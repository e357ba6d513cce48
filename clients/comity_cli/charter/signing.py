"""A plan is shown, agreed to, signed, and handed over. Nothing is signed before its plan was on the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comity.content import durable
from comity.trust.encoding import plain

from comity_cli.command import agree, output
from comity_cli.charter.office import Office
from comity_cli.charter.rendering import changes_json, show_changes, show_turns, turns_json
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.charter.proposals import Plan
    from comity_client.charter.state import CharterMaterial, DeliveredLine
    from comity_client.signing.votes import GovernanceKey

PARTIAL = 8
WIDTH = 80
"""Columns of a terminal that nobody made wider."""


def show_plan(plan: Plan) -> None:
    """What would be signed, in words made from the payload itself."""
    out = output()
    out.say(textwrap.fill(plain(plan.title), WIDTH))
    for name, value in (*plan.facts, *([("they say", plan.text)] if plan.text else [])):
        line, value = f"  {name:<18} {plain(value)}", plain(value)
        out.say(line if len(line) <= WIDTH else f"  {name}\n      {value}")
    show_changes(out, plan.changes)
    for warning in plan.warnings:
        out.warn(warning)


def sign_and_deliver(office: Office, plan: Plan, keys: Sequence[GovernanceKey]) -> None:
    """Show `plan`, ask, sign with `keys`, and hand the line over; or write the ceremony file for the next signer."""
    from comity_client.charter import proposals as acts

    show_plan(plan)
    if sum(wanted.count for wanted in plan.ceremony.wanted) <= len(keys):
        office.check_destination()
    names = ", ".join(key.path.name for key in keys)
    agree(f"Sign this with {names}?", yes=office.yes)
    signed = acts.sign_plan_with_all(plan, keys)
    if signed.ceremony.complete:
        deliver(office, signed)
    else:
        pass_on(signed)


def pass_on(plan: Plan, file: Path | None = None) -> Path:
    """Write the ceremony file, for the next signer or, where nobody is missing, for whoever hands the line on."""
    from comity.trust.encoding import sha256

    out, ceremony = output(), plan.ceremony
    where = file or Path(f"{ceremony.statement.predicate}-{sha256(ceremony.payload)[:8]}.ceremony.json")
    durable.write_file(where, ceremony.encode(where.name), mode=0o644, point="ceremony")
    lacking = [f"{wanted.count} more of the {wanted.role} keys" for wanted in ceremony.wanted]
    if lacking:
        out.done(f"signed here; {' and '.join(lacking)} must sign: {where}")
        out.hint(f"carry {where} to the next signer: comity keys sign {where} --key THEIR-KEY.pem")
    else:
        out.done(f"signed by all that must: {where}")
        out.hint(_handing_on(plan, where))
    done = ceremony.complete
    out.document("ceremony", {"title": plan.title, "complete": done, "file": str(where), "missing": lacking})
    return where


def _handing_on(plan: Plan, where: Path) -> str:
    if plan.ceremony.statement.predicate == "rotated":
        return f"where the node's home is: comity keys rotate --signed {where} --dir HOME"
    return f"comity keys sign {where} --to NODE; or --out FOLDER, to carry the line on"


def deliver(office: Office, plan: Plan, more: CharterMaterial | None = None) -> None:
    """Write the signed line, and `more` beside it, into the folder that was named, or have a node log it; then say
    whose turn it is."""
    from comity_client.charter.state import CharterMaterial, turns, write_folder

    out, material = output(), plan.material | (more or CharterMaterial())
    if office.out is not None:
        durable.make_folders(office.out)
        write_folder(office.out, material)
        where = str(office.out)
        out.done(f"signed: its line is in {where}")
        out.hint(f"carry it; whoever gets it: comity proposal load {where}")
    else:
        where = office.target
        report(office.chamber.deliver(material, where), where)
    after = plan.sitting.adding(material)
    if after.current.epoch > plan.sitting.current.epoch:
        out.done(f"decided: this is the charter of epoch {after.current.epoch}, by the signatures at hand")
    due = turns(after)
    show_turns(out, due)
    out.document(
        "signed",
        {
            "title": plan.title,
            "complete": True,
            "predicate": plan.entry.statement.predicate,
            "subject": plan.entry.statement.subject,
            "line": plan.entry.digest,
            "where": where,
            "changes": changes_json(plan.changes),
            "epoch": after.current.epoch,
            "next": turns_json(due),
        },
    )


def report(delivered: Sequence[DeliveredLine], where: str) -> None:
    """Say what a node took. Raises the first refusal where it took nothing that it was meant to take."""
    out = output()
    refused = [item.refusal for item in delivered if item.refusal is not None]
    taken = len(delivered) - len(refused)
    for refusal in refused:
        out.warn(f"not taken: {refusal}")
    if refused:
        refused[0].exit_status = PARTIAL if taken else refused[0].exit_status
        raise refused[0]
    out.done(f"{plural(taken, 'line')} logged at {where}")
