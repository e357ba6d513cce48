"""Hand-off files for Slurm.

    reserve.sh       for the provider's administrator: scontrol
    accounting.sh    the same, if slurmdbd runs: an account with the granted amount as limit
    job.sbatch       for the grantee: the head of a batch script

Reservations give a number of nodes and the controller selects them; times are `uts` (POSIX seconds), to avoid time
zones. Source: scontrol(1), sacctmgr(1), sbatch(1) of Slurm 24.11.
"""

from __future__ import annotations

from comity_client.offers.handoff import HandOff, Part, to_comments, to_shell

from comity.addons.schedulers.quoting import plain_or_empty
from comity.rules.offers.offer import ACCELERATOR_HOURS

_HEAD = "#!/bin/sh\n"


def render_slurm(handoff: HandOff) -> dict[str, str]:
    """Files by name."""
    files = {"reserve.sh": _reserve(handoff), "accounting.sh": _accounting(handoff)}
    for part in handoff.parts:
        files[f"job-{part.name}.sbatch"] = _slurm_job(handoff, part)
    return files


def _reserve(handoff: HandOff) -> str:
    made = [_HEAD, to_comments([*handoff.header_lines(), "Run it as Slurm's administrator."]), "set -eu\n"]
    made += [_command("scontrol create reservation", _reservation(handoff, part)) for part in handoff.parts]
    return "".join(made)


def _reservation(handoff: HandOff, part: Part) -> list[str]:
    fields = [
        f"ReservationName={_reservation_name(handoff, part)}",
        f"StartTime=uts{part.start}",
        f"EndTime=uts{part.end}",
        f"NodeCnt={part.nodes}",
    ]
    if partition := plain_or_empty(handoff.target):
        fields.append(f"PartitionName={partition}")
    return [*fields, f"Users={handoff.user}" if handoff.user else f"Accounts={handoff.name}"]


def _accounting(handoff: HandOff) -> str:
    made = [
        _HEAD,
        to_comments([*handoff.header_lines(), "Run it as Slurm's administrator, where slurmdbd runs."]),
        "set -eu\n",
    ]
    described = [handoff.name, f"Description={handoff.title}", f"Organization={handoff.grantee}"]
    made.append(_command("sacctmgr -i add account", described))
    if handoff.user:
        made.append(_command("sacctmgr -i add user", [handoff.user, f"Account={handoff.name}"]))
    resource = "gres/gpu" if handoff.measure == ACCELERATOR_HOURS else "node"
    minutes = 60 * sum(part.amount for part in handoff.parts)
    made.append(_command("sacctmgr -i modify account", [handoff.name, "set", f"GrpTRESMins={resource}={minutes}"]))
    return "".join(made)


def _slurm_job(handoff: HandOff, part: Part) -> str:
    options = [
        f"--job-name={handoff.name}",
        f"--reservation={_reservation_name(handoff, part)}",
        f"--nodes={part.nodes}",
        "--exclusive",
        f"--time={_duration(part.end - part.start)}",
    ]
    if not handoff.user:
        options.append(f"--account={handoff.name}")
    if partition := plain_or_empty(handoff.target):
        options.append(f"--partition={partition}")
    if part.count:
        options.append(f"--gpus-per-node={part.count}")
    made = ["#!/bin/bash\n", *(f"#SBATCH {option}\n" for option in options), to_comments(handoff.header_lines())]
    made += [f"export {name}={to_shell(value)}\n" for name, value in handoff.environment]
    made.append(to_comments(['Your commands follow, for instance: srun vllm serve "$COMITY_MODEL"']))
    return "".join(made)


def _reservation_name(handoff: HandOff, part: Part) -> str:
    return f"{handoff.name}-{part.name}"


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    return f"{days}-{hours:02}:{rest // 60:02}:{rest % 60:02}"


def _command(program: str, arguments: list[str]) -> str:
    return " ".join([program, *map(to_shell, arguments)]) + "\n"
