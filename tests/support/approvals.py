"""Officers who approve the artifact of `support.case`, and policies that ask for them."""

from __future__ import annotations

import functools
from dataclasses import replace

from comity.rules.signing import sign_content
from comity.trust.approvals import ApprovalEnded, Approved
from comity.trust.encoding import Digest
from comity.trust.statement import Entry
from support.case import Case, case
from support.world import Identity, identity

GOOD = case()
ANNA, BEN, CARLA = identity("Anna", "CH"), identity("Ben", "CH"), identity("Carla", "CH")
STRANGER = identity("Stranger", "SG")
SCOPE = "hospital-bern"
DAY = 86_400
AS_OF = 1_795_478_400
"""2026-11-24T00:00:00Z, the time of the case's policy."""


def table(at_least: int = 2, **changed: str) -> str:
    """The table of a policy that requires approvals of Anna, Ben and Carla."""
    ids = "".join(f'{each.inception.label} = "{each.id}"\n' for each in (ANNA, BEN, CARLA))
    lines = {"scope": f'"{SCOPE}"', "at_least": str(at_least), **changed}
    keys = "".join(f"{key} = {value}\n" for key, value in lines.items() if key != "roles")
    roles = f"[approvals.roles]\n{changed['roles']}\n" if "roles" in changed else ""
    return f"[approvals]\n{keys}[approvals.officers]\n{ids}{roles}"


def asking(what: Case = GOOD, at_least: int = 2, **changed: str) -> Case:
    return replace(what, policy_text=what.policy_text + table(at_least, **changed))


@functools.cache
def entry_of(who: Identity, artifact: Digest = GOOD.artifact, **changed: object) -> Entry:
    fields = {"since": AS_OF - DAY, "until": AS_OF + 30 * DAY, "time": AS_OF - DAY, **changed}
    approved = Approved(who.id, artifact, **{"scope": SCOPE, **fields})  # type: ignore[arg-type]
    return sign_content(approved, who.signer)


def by(who: Identity, **changed: object) -> tuple[bytes, bytes]:
    """An approval, and the inception of its officer."""
    return who.entry.line, entry_of(who, **changed).line


def end_of(who: Identity, approval: Entry, since: int) -> bytes:
    ended = ApprovalEnded(who.id, GOOD.artifact, approval.statement_digest, since, "a new version")
    return sign_content(ended, who.signer).line
