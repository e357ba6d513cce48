"""Hand-off files for SkyPilot: one task for each slice; without infra it asks all that its user has set up. Source: its
task YAML reference.
"""

from __future__ import annotations

from typing import Final

from comity_client.offers.handoff import HandOff, Part, to_comments, to_shell

from comity.addons.schedulers.quoting import plain_or_empty, to_yaml

_INFRA: Final = ("kubernetes", "k8s", "ssh", "slurm")


def render_skypilot(handoff: HandOff) -> dict[str, str]:
    """Files by name."""
    return {f"{handoff.name}-{part.name}.sky.yaml": _task(handoff, part) for part in handoff.parts}


def _task(handoff: HandOff, part: Part) -> str:
    used = f"{part.nodes} nodes until {part.end} (POSIX seconds), at most {part.amount} {handoff.measure}"
    lines = [to_comments([*handoff.header_lines(), used]), f"name: {handoff.name}\n", f"num_nodes: {part.nodes}\n"]
    lines += ["resources:\n", *(f"  {name}: {value}\n" for name, value in _resources(handoff, part))]
    lines += ["envs:\n", *(f"  {name}: {to_yaml(value)}\n" for name, value in handoff.environment)]
    lines.append(f"run: |\n  echo {to_shell('Put your command here: the weights are at HF_ENDPOINT.')}\n")
    return "".join(lines)


def _resources(handoff: HandOff, part: Part) -> list[tuple[str, str]]:
    asked = []
    if infra := _infra(handoff.target):
        asked.append(("infra", to_yaml(infra)))
    if part.count:
        asked.append(("accelerators", to_yaml(f"{part.accelerator}:{part.count}")))
    if part.cpus:
        asked.append(("cpus", to_yaml(f"{part.cpus}+")))
    if part.ram_gib:
        asked.append(("memory", to_yaml(f"{part.ram_gib}+")))
    return asked or [("cpus", to_yaml("1+"))]


def _infra(target: str) -> str:
    """The target if it is a SkyPilot infrastructure name (`kubernetes/context`, `ssh/pool`), else empty."""
    kind, _, name = target.partition("/")
    return target if kind in _INFRA and (not name or plain_or_empty(name)) else ""
