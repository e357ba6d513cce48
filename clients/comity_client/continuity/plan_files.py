"""Continuity plans as files: begun, and signed by their owner."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.rules.continuity.plan import ContinuityPlan, PlanStatement, parse_plan
from comity.rules.signing import sign_content
from comity.rules.toml_table import MAX_BYTES
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound, Refused
from comity.trust.policy_file import MAX_POLICY_BYTES
from comity.trust.statement import Entry

from comity_client.publishers import Publisher
from comity_client.signature_files import write_signature

TO_FILL_IN: Final = "REPLACE-THIS"
"""What stands in a new plan where its author has to decide; a plan that has it is refused."""
_NEW: Final = """\
# What replaces a service on the day it is cut off. docs: continuity.md. Replace each {fill}; then sign it:
#     comity continuity sign {file}
schema = "comity/continuity-plan/v1"
owner = "{owner}"
name = "{name}"
until = {until}                        # the last day on which this plan counts
#stale_after_days = 2                  # after so many days without a check, pages say of the last one that it is stale

# The policy by which the kits are judged: a file beside this one, and its SHA-256. Without it: your pins. The default
# refuses programs, which a kit contains, so a policy that allows them is needed: comity policy new --out policy.toml
#[policy]
#file = "policy.toml"
#sha256 = "{fill}"

[[service]]
name = "{service}"
in_use = {{ kind = "external", vendor = "{fill}", jurisdiction = "US" }}
used_by = ["{fill}"]                   # who depends on it, in words
must_survive = ["reach:US", "dns", "package-index", "hub:huggingface.co"]   # without these it must still work
longest_outage = 60                    # minutes

[[service.fallback]]                   # what replaces it; add more, in their order
kit = {{ name = "{kit}", artifact = "{artifact}" }}
# A result that this evaluator states, announced before it was known (comity evaluation):
evaluation = {{ by = "{fill}", suite = "{fill}", metric = "pass_rate", at_least = "0.9", within_days = 180 }}
# Officers who approve the kit for this use (comity approve):
approval = {{ scope = "{fill}", by = ["{fill}"], at_least = 1 }}
# Own machines, or the digest of a record of somebody else: {{ pact = "…" }}, {{ grant = "…" }}, {{ offer = "…" }}
machines = {{ own = {{ memory_gib = 8, disk_gib = 20, accelerators = 0, platform = "linux/x86_64" }} }}
copies = {{ outside = 2, tested_within_days = 7 }}   # members with a copy, outside of all that it must survive
checked_within_days = 7                # a passed check of the kit on this machine
drilled_within_days = 90               # a passed drill
"""


def new_plan(
    file: Path, owner: Publisher, service: str, until: str, kit: str = "", artifact: Digest | None = None
) -> str:
    """The text of a plan to start from, with comments."""
    return _NEW.format(
        fill=TO_FILL_IN,
        file=file.name,
        owner=owner.id,
        name=owner.label.replace("\\", "").replace('"', ""),
        until=until,
        service=service,
        kit=kit or TO_FILL_IN,
        artifact=artifact or TO_FILL_IN,
    )


def read_plan(file: Path) -> ContinuityPlan:
    """Raises NotFound, Malformed."""
    data = read_bounded(file, MAX_BYTES)
    if TO_FILL_IN.encode() in b"\n".join(line for line in data.splitlines() if not line.lstrip().startswith(b"#")):
        raise Malformed(f"{file} is not filled in", why=f"it still says {TO_FILL_IN}", hint=f"edit {file}")
    return parse_plan(data)


def owner_of(plan: ContinuityPlan, publishers: Iterable[Publisher]) -> Publisher:
    """The owner of a plan, with its keys. Raises NotFound if it is none of these identities."""
    owner = next((each for each in publishers if each.id == plan.owner), None)
    if owner is None:
        why, hint = plan.owner, "comity publisher ls"
        raise NotFound("the owner of the plan is none of your identities", why=why, hint=hint)
    return owner


def sign_plan(file: Path, owner: Publisher, time: int) -> tuple[ContinuityPlan, Entry]:
    """Sign a plan as its owner, and write the signature beside it. Raises Malformed, NotFound, Refused if somebody else
    is its owner or its policy file is another one."""
    plan = read_plan(file)
    if plan.owner != owner.id:
        why = f"its owner is {plan.owner}, and {owner.label} is {owner.id}"
        raise Refused("only its owner signs a plan", why=why, hint="comity publisher ls")
    if plan.policy is not None:
        found = sha256(read_bounded(file.parent / plan.policy.name, MAX_POLICY_BYTES))
        if found != plan.policy.sha256:
            raise Refused(
                "the plan names another policy", why=f"{plan.policy.name} has the SHA-256 {found}", hint=f"edit {file}"
            )
    entry = sign_content(PlanStatement.of(plan, time), owner.signer())
    write_signature(file, owner, entry)
    return plan, entry
