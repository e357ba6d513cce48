"""A Slurm reservation for each slice, accounting for its amount, and the head of a batch script.

    reserve.sh       for the provider's administrator: scontrol
    accounting.sh    the same, where slurmdbd runs: an account whose limit is the amount granted
    job.sbatch       for the grantee: what to put before one's own commands

Reservations name nodes by number, not by name: the offer says how many, and the controller chooses. Times are `uts`
(POSIX seconds), so that no time zone is guessed. Source: scontrol(1), sacctmgr(1), sbatch(1) of Slurm 24.11.
"""

from __future__ import annotations

from comity.trust.offers.capacity import ACCELERATOR_HOURS

from comity_client.compute.handoff.facts import HandOff, Part
from comity_client.compute.handoff.spelling import comments, shell, word

_HEAD = "#!/bin/sh\n"


def render(facts: HandOff) -> dict[str, str]:
    """Texts by file name."""
    files = {"reserve.sh": _reserve(facts), "accounting.sh": _accounting(facts)}
    for part in facts.parts:
        files[f"job-{part.name}.sbatch"] = _job(facts, part)
    return files


def _reserve(facts: HandOff) -> str:
    made = [_HEAD, comments([*facts.sentences(), "Run it as Slurm's administrator."]), "set -eu\n"]
    made += [_command("scontrol create reservation", _reservation(facts, part)) for part in facts.parts]
    return "".join(made)


def _reservation(facts: HandOff, part: Part) -> list[str]:
    fields = [
        f"ReservationName={_reserved(facts, part)}",
        f"StartTime=uts{part.start}",
        f"EndTime=uts{part.end}",
        f"NodeCnt={part.nodes}",
    ]
    if partition := word(facts.target):
        fields.append(f"PartitionName={partition}")
    return [*fields, f"Users={facts.user}" if facts.user else f"Accounts={facts.name}"]


def _accounting(facts: HandOff) -> str:
    made = [_HEAD, comments([*facts.sentences(), "Run it as Slurm's administrator, where slurmdbd runs."]), "set -eu\n"]
    described = [facts.name, f"Description={facts.title}", f"Organization={facts.grantee}"]
    made.append(_command("sacctmgr -i add account", described))
    if facts.user:
        made.append(_command("sacctmgr -i add user", [facts.user, f"Account={facts.name}"]))
    resource = "gres/gpu" if facts.measure == ACCELERATOR_HOURS else "node"
    minutes = 60 * sum(part.amount for part in facts.parts)
    made.append(_command("sacctmgr -i modify account", [facts.name, "set", f"GrpTRESMins={resource}={minutes}"]))
    return "".join(made)


def _job(facts: HandOff, part: Part) -> str:
    options = [
        f"--job-name={facts.name}",
        f"--reservation={_reserved(facts, part)}",
        f"--nodes={part.nodes}",
        "--exclusive",
        f"--time={_duration(part.end - part.start)}",
    ]
    if not facts.user:
        options.append(f"--account={facts.name}")
    if partition := word(facts.target):
        options.append(f"--partition={partition}")
    if part.count:
        options.append(f"--gpus-per-node={part.count}")
    made = ["#!/bin/bash\n", *(f"#SBATCH {option}\n" for option in options), comments(facts.sentences())]
    made += [f"export {name}={shell(value)}\n" for name, value in facts.environment]
    made.append(comments(['Your commands follow, for instance: srun vllm serve "$COMITY_MODEL"']))
    return "".join(made)


def _reserved(facts: HandOff, part: Part) -> str:
    return f"{facts.name}-{part.name}"


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    return f"{days}-{hours:02}:{rest // 60:02}:{rest % 60:02}"


def _command(program: str, arguments: list[str]) -> str:
    return " ".join([program, *map(shell, arguments)]) + "\n"
