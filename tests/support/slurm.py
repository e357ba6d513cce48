"""A real Slurm controller on loopback, with nodes that are only names: enough to make reservations and plan jobs.

It authenticates by a key of its own (auth/slurm), keeps all files but its socket in one folder, and is ended by its
process id.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.officers import wait_for
from support.ports import free_port
from support.tools import missing, needs, running

UNLOCK = "apt-get install --no-install-recommends slurmctld slurm-client"


@dataclass(frozen=True)
class Slurm:
    """A running controller; `nodes` is the number of machines in its configuration."""

    conf: Path
    nodes: int

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf), "TZ": "UTC", "SLURM_TIME_FORMAT": "%s"}


@contextmanager
def slurm(folder: Path, nodes: int = 4) -> Iterator[Slurm]:
    """Run a controller in `folder` while the block lasts. Skips the test where Slurm is not installed."""
    if os.geteuid() != 0:
        missing("a Slurm controller keeps its socket in /run/slurmctld; unlock: run as root")
    for program in ("scontrol", "sbatch"):
        needs(program, unlock=UNLOCK)
    controller = needs("slurmctld", unlock=UNLOCK)
    (folder / "state").mkdir(parents=True)
    key = folder / "slurm.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    conf.write_text(_conf(folder, nodes))
    made = Slurm(conf, nodes)
    with running([controller, "-D", "-c", "-f", str(conf)], folder / "slurmctld.out", env=made.environment) as process:

        def answers() -> bool:
            assert process.poll() is None, (folder / "slurmctld.out").read_text()
            return "UP" in made.run("scontrol", "ping").stdout

        wait_for(answers, "slurmctld to answer")
        yield made


def _conf(folder: Path, nodes: int) -> str:
    # CLOUD nodes count as machines that can be started, so that a controller without any gives them out
    return f"""ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthType=auth/slurm
CredType=cred/slurm
SlurmUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
GresTypes=gpu
MailProg=/bin/true
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=INFINITE
NodeName=n[1-{nodes}] NodeAddr=127.0.0.1 CPUs=96 RealMemory=1000000 Gres=gpu:h100:8 State=CLOUD
PartitionName=gpu Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP
"""
