"""A SkyPilot task for each slice: `sky launch FILE` by whoever holds the grant.

Source: the task YAML reference of SkyPilot. Where no infra is named, it asks every one that its user has set up.
"""

from __future__ import annotations

from typing import Final

from comity_client.compute.handoff.facts import HandOff, Part
from comity_client.compute.handoff.spelling import comments, shell, word, yaml

_INFRA: Final = ("kubernetes", "k8s", "ssh", "slurm")


def render(facts: HandOff) -> dict[str, str]:
    """Texts by file name."""
    return {f"{facts.name}-{part.name}.sky.yaml": _task(facts, part) for part in facts.parts}


def _task(facts: HandOff, part: Part) -> str:
    used = f"{part.nodes} nodes until {part.end} (POSIX seconds), at most {part.amount} {facts.measure}"
    lines = [comments([*facts.sentences(), used]), f"name: {facts.name}\n", f"num_nodes: {part.nodes}\n"]
    lines += ["resources:\n", *(f"  {name}: {value}\n" for name, value in _resources(facts, part))]
    lines += ["envs:\n", *(f"  {name}: {yaml(value)}\n" for name, value in facts.environment)]
    lines.append(f"run: |\n  echo {shell('Put your command here: the weights are at HF_ENDPOINT.')}\n")
    return "".join(lines)


def _resources(facts: HandOff, part: Part) -> list[tuple[str, str]]:
    asked = []
    if infra := _infra(facts.target):
        asked.append(("infra", yaml(infra)))
    if part.count:
        asked.append(("accelerators", yaml(f"{part.accelerator}:{part.count}")))
    if part.cpus:
        asked.append(("cpus", yaml(f"{part.cpus}+")))
    if part.ram_gib:
        asked.append(("memory", yaml(f"{part.ram_gib}+")))
    return asked or [("cpus", yaml("1+"))]


def _infra(target: str) -> str:
    """The target as SkyPilot names infrastructure, where it is spelled as such: `kubernetes/context`, `ssh/pool`."""
    kind, _, name = target.partition("/")
    return target if kind in _INFRA and (not name or word(name)) else ""
