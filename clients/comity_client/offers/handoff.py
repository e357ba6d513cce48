"""Files for the engine that runs the jobs of a redeemed grant: Slurm, Kubernetes (Kueue), SkyPilot, SSH.

People read the files and pass them on; Comity runs nothing, and they contain no secret. Titles and names come from
others: they are quoted so that a shell, YAML and comments read them only as text.

Kueue counts what runs at one time; no Kueue object limits the total amount, which is an annotation. Attributes
`label/KEY` of a slice select nodes. Sources: Kueue's API reference, kueue.x-k8s.io/v1beta1; Kubernetes API reference,
batch/v1. SkyPilot: one task for each slice; without infra it asks all that its user has set up. Source: its task YAML
reference. Slurm: reservations give a number of nodes and the controller selects them; times are `uts` (POSIX seconds),
to avoid time zones. Source: scontrol(1), sacctmgr(1), sbatch(1) of Slurm 24.11.

    reserve.sh       for the provider's administrator: scontrol
    accounting.sh    the same, if slurmdbd runs: an account with the granted amount as limit
    job.sbatch       for the grantee: the head of a batch script
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.rules.offers.offer import ACCELERATOR_HOURS
from comity.trust.encoding import Digest, format_moment, printable
from comity.trust.errors import Malformed

_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes of one slice from `start` up to `end`, POSIX seconds, with at most `amount` of the measure."""

    name: str
    vendor: str
    accelerator: str
    count: int
    nodes: int
    start: int
    end: int
    amount: int
    cpus: int = 0
    ram_gib: int = 0
    disk_gib: int = 0
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HandOff:
    """The data of one redemption for an engine. Raises Malformed (HAND-OFF) for an invalid user name.

    Attributes:
        grant: line digest of the grant.
        title, provider, grantee: names of the offer and of both sides.
        endpoint: the provider's node as a Hub (`HF_ENDPOINT`); empty for none.
        artifact, model: digest and name of a model that is stored near the machines, if any.
        user: account on the provider's machines; empty if not known.
        note: the grantee's text for the provider.
    """

    grant: Digest
    title: str
    provider: str
    grantee: str
    measure: str
    engine: str
    target: str
    parts: tuple[Part, ...]
    endpoint: str = ""
    artifact: Digest | None = None
    model: str = ""
    user: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.user and not _USER.match(self.user):
            raise handoff_error(f"{self.user[:40]!r} is not a valid Unix user name")

    @property
    def name(self) -> str:
        """Name of all objects for this grant; valid as a label, a job and an account."""
        return f"comity-{self.grant[:12]}"

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """Environment of jobs: variables that Hugging Face clients and vLLM read, and the digest."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1" if self.endpoint else "",
            "COMITY_ARTIFACT": f"sha256:{self.artifact}" if self.artifact else "",
            "COMITY_MODEL": self.model,
            "COMITY_GRANT": self.grant,
        }
        return tuple((name, value) for name, value in variables.items() if value)

    def header_lines(self) -> tuple[str, ...]:
        """Description for the head of a file."""
        lines = [
            f"Grant {self.grant}",
            f"of {self.title!r}, lent by {self.provider} to {self.grantee}.",
        ]
        if self.artifact:
            lines.append(f"Model sha256:{self.artifact} {self.model}".rstrip())
        if self.endpoint:
            lines.append(f"Weights are served near the machines: HF_ENDPOINT={self.endpoint}")
        if self.note:
            lines.append(f"The grantee's note: {self.note}")
        return tuple(lines)


def handoff_error(why: str) -> Malformed:
    return Malformed("no files for this hand-off", why=why, hint="comity grant redeem --help", code="HAND-OFF")


_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_ESCAPED: Final = {'"': '\\"', "\\": "\\\\"}


def to_shell(value: str) -> str:
    """One POSIX shell word on one line; line breaks are escaped."""
    return shlex.quote(printable(value))


def to_yaml(value: str) -> str:
    """A double-quoted YAML scalar in ASCII that parsers read back as `value`."""
    return '"' + "".join(map(_character, value)) + '"'


def to_comments(lines: Iterable[str], sign: str = "# ") -> str:
    """One comment line for each of `lines`, with escaped content."""
    return "".join(f"{sign}{printable(line)}\n" for line in lines)


def plain_or_empty(value: str) -> str:
    """`value` if it needs no quotes anywhere, else an empty text."""
    return value if _PLAIN.match(value) else ""


def _character(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if " " <= character <= "~":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


API: Final = "kueue.x-k8s.io/v1beta1"
LABEL: Final = "label/"
IMAGE: Final = "replace-me/with-your-image:tag"
_RESOURCES: Final = {
    "NVIDIA": "nvidia.com/gpu",
    "AMD": "amd.com/gpu",
    "Intel": "habana.ai/gaudi",
    "AWS": "aws.amazon.com/neuron",
    "Google": "google.com/tpu",
    "Huawei": "huawei.com/Ascend910",
}
_LABEL_KEY: Final = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z"
)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?\Z")


def render_kueue(handoff: HandOff) -> dict[str, str]:
    """Files by name. Raises Malformed (HAND-OFF) for an accelerator without a known resource name."""
    administrator = [_namespace(handoff), *(_flavor(handoff, part) for part in handoff.parts), _cluster_queue(handoff),
                     _local_queue(handoff)]  # fmt: skip
    files = {"queues.yaml": to_comments([*handoff.header_lines(), "kubectl apply -f, as the cluster's administrator."])}
    files["queues.yaml"] += "---\n".join(administrator)
    for part in handoff.parts:
        files[f"job-{part.name}.yaml"] = _kueue_job(handoff, part)
    return files


def _namespace(handoff: HandOff) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {handoff.name}\n{_annotations(handoff)}"


def _flavor(handoff: HandOff, part: Part) -> str:
    labels = "".join(f"    {to_yaml(key)}: {to_yaml(value)}\n" for key, value in _labels(part))
    chosen = f"spec:\n  nodeLabels:\n{labels}" if labels else ""
    return f"apiVersion: {API}\nkind: ResourceFlavor\nmetadata:\n  name: {_flavor_name(handoff, part)}\n{chosen}"


def _cluster_queue(handoff: HandOff) -> str:
    groups: dict[tuple[str, ...], list[Part]] = {}
    for part in handoff.parts:
        groups.setdefault(tuple(name for name, _ in _quota(part)), []).append(part)
    if len(groups) > 1 and len({name for names in groups for name in names}) < sum(map(len, groups)):
        raise handoff_error("its slices share some resources only, and in Kueue no two resource groups may share one")
    made = [
        f"apiVersion: {API}\nkind: ClusterQueue\nmetadata:\n  name: {handoff.name}\n{_annotations(handoff)}spec:\n",
        f"  namespaceSelector:\n    matchLabels:\n      kubernetes.io/metadata.name: {handoff.name}\n",
        "  resourceGroups:\n",
    ]
    for names, parts in groups.items():
        made.append(f"  - coveredResources: [{', '.join(map(to_yaml, names))}]\n    flavors:\n")
        for part in parts:
            made.append(f"    - name: {_flavor_name(handoff, part)}\n      resources:\n")
            made += [
                f"      - name: {to_yaml(name)}\n        nominalQuota: {to_yaml(value)}\n"
                for name, value in _quota(part)
            ]
    return "".join(made)


def _local_queue(handoff: HandOff) -> str:
    head = f"apiVersion: {API}\nkind: LocalQueue\nmetadata:\n  name: {handoff.name}\n  namespace: {handoff.name}\n"
    return f"{head}spec:\n  clusterQueue: {handoff.name}\n"


def _kueue_job(handoff: HandOff, part: Part) -> str:
    asked = "".join(f"            {to_yaml(name)}: {to_yaml(value)}\n" for name, value in _node_resources(part))
    variables = "".join(
        f"        - name: {name}\n          value: {to_yaml(value)}\n" for name, value in handoff.environment
    )
    return (
        to_comments(
            [*handoff.header_lines(), "kubectl create -f, by the grantee, with an image and a command of your own."]
        )
        + f"apiVersion: batch/v1\nkind: Job\nmetadata:\n  generateName: {handoff.name}-\n  namespace: {handoff.name}\n"
        f"  labels:\n    kueue.x-k8s.io/queue-name: {handoff.name}\nspec:\n  suspend: true\n"
        f"  parallelism: {part.nodes}\n  completions: {part.nodes}\n  completionMode: Indexed\n"
        f"  activeDeadlineSeconds: {part.end - part.start}\n  template:\n    spec:\n      restartPolicy: Never\n"
        f"      containers:\n      - name: main\n        image: {IMAGE}\n        env:\n{variables}"
        f"        resources:\n          requests:\n{asked}          limits:\n{asked}"
    )


def _quota(part: Part) -> list[tuple[str, str]]:
    return [(name, _multiply(value, part.nodes)) for name, value in _node_resources(part)]


def _node_resources(part: Part) -> list[tuple[str, str]]:
    """Resources of one node. Kueue counts only resources in a quota."""
    found = [("cpu", str(part.cpus or 1))]
    if part.ram_gib:
        found.append(("memory", f"{part.ram_gib}Gi"))
    if part.count:
        found.append((_resource(part), str(part.count)))
    return found


def _resource(part: Part) -> str:
    named = dict(part.attributes).get("kubernetes-resource", _RESOURCES.get(part.vendor, ""))
    if not _LABEL_KEY.match(named) or "/" not in named:
        raise handoff_error(f"no Kubernetes resource is known for {part.accelerator} of {part.vendor or 'no vendor'}; "
                      "set the attribute 'kubernetes-resource' of the slice")  # fmt: skip
    return named


def _labels(part: Part) -> list[tuple[str, str]]:
    labels = [(name.removeprefix(LABEL), value) for name, value in part.attributes if name.startswith(LABEL)]
    for key, value in labels:
        if not (_LABEL_KEY.match(key) and _LABEL_VALUE.match(value)):
            raise handoff_error(f"{key[:80]!r}: {value[:80]!r} is not a valid node label")
    return labels


def _annotations(handoff: HandOff) -> str:
    annotations = {
        "comity.dev/grant": handoff.grant,
        "comity.dev/title": handoff.title,
        "comity.dev/grantee": handoff.grantee,
        "comity.dev/amount": f"{sum(part.amount for part in handoff.parts)} {handoff.measure}",
    }
    return "  annotations:\n" + "".join(f"    {name}: {to_yaml(value)}\n" for name, value in annotations.items())


def _multiply(value: str, nodes: int) -> str:
    return f"{int(value.removesuffix('Gi')) * nodes}{'Gi' if value.endswith('Gi') else ''}"


def _flavor_name(handoff: HandOff, part: Part) -> str:
    return f"{handoff.name}-{part.name}"


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


def render_ssh(handoff: HandOff) -> dict[str, str]:
    """Files by name."""
    lines = [
        *handoff.header_lines(),
        f"Account: {handoff.user or 'to be agreed'}   Host: {handoff.target or 'to be agreed'}",
    ]
    for part in handoff.parts:
        machine = f"{part.count} x {part.accelerator}" if part.count else f"{part.cpus} CPUs"
        lines.append(
            f"{part.nodes} nodes of {machine} ({part.name}), from {_when(part.start)} up to {_when(part.end)}, "
            f"at most {part.amount} {handoff.measure}"
        )
    lines.append(
        "Agree on access directly. Do not send passwords or private keys through Comity: they would be logged."
    )
    exports = "".join(f"export {name}={to_shell(value)}\n" for name, value in handoff.environment)
    return {"README.txt": to_comments(lines, ""), "environment.sh": exports}


def _when(seconds: int) -> str:
    return format_moment(seconds, "%Y-%m-%d %H:%M:%S UTC")


Files: TypeAlias = dict[str, str]

RENDERERS: Final[dict[str, Callable[[HandOff], Files]]] = {
    "slurm": render_slurm,
    "kubernetes": render_kueue,
    "skypilot": render_skypilot,
    "ssh": render_ssh,
}


def render(handoff: HandOff, engine: str = "") -> Files:
    """Files by name, for `engine` or the engine of the offer. Raises Malformed (HAND-OFF) for values that the engine
    does not accept."""
    return RENDERERS[engine or handoff.engine](handoff)
