"""What is handed over. Titles and names in it are strangers' words; renderers spell them so that nothing obeys them.

Spelling strangers' words so that a shell, YAML and a comment take them as words and nothing else.

Kueue: a flavor for each slice, a ClusterQueue whose quota is what was granted, a LocalQueue in a namespace of its
own, and a Job that waits in it.

Kueue counts what runs at one time; the amount altogether is kept by no object of it, and stands in an annotation.
Labels that choose nodes are the cluster's own: an attribute of the slice called `label/KEY` becomes one. Sources:
Kueue's API reference, kueue.x-k8s.io/v1beta1; Kubernetes API reference, batch/v1.


A SkyPilot task for each slice: `sky launch FILE` by whoever holds the grant.

Source: the task YAML reference of SkyPilot. Where no infra is named, it asks every one that its user has set up.


A Slurm reservation for each slice, accounting for its amount, and the head of a batch script.

    reserve.sh       for the provider's administrator: scontrol
    accounting.sh    the same, where slurmdbd runs: an account whose limit is the amount granted
    job.sbatch       for the grantee: what to put before one's own commands

Reservations name nodes by number, not by name: the offer says how many, and the controller chooses. Times are `uts`
(POSIX seconds), so that no time zone is guessed. Source: scontrol(1), sacctmgr(1), sbatch(1) of Slurm 24.11.


A note for whoever opens an account by hand, and for whoever logs in. No key, password or token is in it.

What a redeemed grant becomes for the engine that runs jobs: texts for a person to read and hand over. Comity runs
none of it, and nothing secret is in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

from comity.trust.encoding import Digest, plain
from comity.trust.errors import Malformed
from comity.trust.offers.offer import ACCELERATOR_HOURS

_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes of one slice from `start` up to `end`, POSIX seconds; `amount` of the measure may be used within it."""

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
    """A redemption, put into one value. Raises Malformed (HAND-OFF) for a user name that no system takes.

    Attributes:
        grant: line digest of the grant.
        title, provider, grantee: what the offer and the two sides are called.
        endpoint: the provider's node as a Hub (`HF_ENDPOINT`); empty where it has none.
        artifact, model: the digest of a model that lies beside the machines, and its name, where one is meant.
        user: the account on the provider's machines; empty where the provider has not said.
        note: what the grantee wrote for whoever hands over.
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
            raise refused(f"{self.user[:40]!r} is no user name of a Unix system")

    @property
    def name(self) -> str:
        """What everything is called that is made for this grant: fit for a label, a job and an account."""
        return f"comity-{self.grant[:12]}"

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """Where jobs find the weights: the variables that Hugging Face clients and vLLM read, and the digest."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1" if self.endpoint else "",
            "COMITY_ARTIFACT": f"sha256:{self.artifact}" if self.artifact else "",
            "COMITY_MODEL": self.model,
            "COMITY_GRANT": self.grant,
        }
        return tuple((name, value) for name, value in variables.items() if value)

    def sentences(self) -> tuple[str, ...]:
        """What this is, for the head of a file."""
        lines = [
            f"Grant {self.grant}",
            f"of {self.title!r}, lent by {self.provider} to {self.grantee}.",
        ]
        if self.artifact:
            lines.append(f"Model sha256:{self.artifact} {self.model}".rstrip())
        if self.endpoint:
            lines.append(f"Weights are read beside the machines: HF_ENDPOINT={self.endpoint}")
        if self.note:
            lines.append(f"The grantee's note: {self.note}")
        return tuple(lines)


def refused(why: str) -> Malformed:
    return Malformed("this cannot be handed over", why=why, hint="comity grant redeem --help", code="HAND-OFF")


_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_ESCAPED: Final = {'"': '\\"', "\\": "\\\\"}


def to_shell(value: str) -> str:
    """One word for a POSIX shell, on one line: what would break the line is spelled out."""
    return shlex.quote(plain(value))


def to_yaml(value: str) -> str:
    """A double-quoted YAML scalar in ASCII, which every parser reads back as `value`."""
    return '"' + "".join(map(_character, value)) + '"'


def to_comments(lines: Iterable[str], sign: str = "# ") -> str:
    """A comment line for each of `lines`, whatever they hold."""
    return "".join(f"{sign}{plain(line)}\n" for line in lines)


def to_word(value: str) -> str:
    """`value` where it is a plain word, which needs no quotation anywhere; else nothing."""
    return value if _WORD.match(value) else ""


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


def render_kueue(facts: HandOff) -> dict[str, str]:
    """Texts by file name. Raises Malformed (HAND-OFF) for an accelerator that no resource name is known for."""
    administrator = [_namespace(facts), *(_flavor(facts, part) for part in facts.parts), _cluster_queue(facts),
                     _local_queue(facts)]  # fmt: skip
    files = {"queues.yaml": to_comments([*facts.sentences(), "kubectl apply -f, as the cluster's administrator."])}
    files["queues.yaml"] += "---\n".join(administrator)
    for part in facts.parts:
        files[f"job-{part.name}.yaml"] = _kueue_job(facts, part)
    return files


def _namespace(facts: HandOff) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {facts.name}\n{_annotations(facts)}"


def _flavor(facts: HandOff, part: Part) -> str:
    labels = "".join(f"    {to_yaml(key)}: {to_yaml(value)}\n" for key, value in _labels(part))
    chosen = f"spec:\n  nodeLabels:\n{labels}" if labels else ""
    return f"apiVersion: {API}\nkind: ResourceFlavor\nmetadata:\n  name: {_flavored(facts, part)}\n{chosen}"


def _cluster_queue(facts: HandOff) -> str:
    groups: dict[tuple[str, ...], list[Part]] = {}
    for part in facts.parts:
        groups.setdefault(tuple(name for name, _ in _quota(part)), []).append(part)
    if len(groups) > 1 and len({name for names in groups for name in names}) < sum(map(len, groups)):
        raise refused("its slices have resources in part, and Kueue lets no two groups share one")
    made = [
        f"apiVersion: {API}\nkind: ClusterQueue\nmetadata:\n  name: {facts.name}\n{_annotations(facts)}spec:\n",
        f"  namespaceSelector:\n    matchLabels:\n      kubernetes.io/metadata.name: {facts.name}\n  resourceGroups:\n",
    ]
    for names, parts in groups.items():
        made.append(f"  - coveredResources: [{', '.join(map(to_yaml, names))}]\n    flavors:\n")
        for part in parts:
            made.append(f"    - name: {_flavored(facts, part)}\n      resources:\n")
            made += [
                f"      - name: {to_yaml(name)}\n        nominalQuota: {to_yaml(value)}\n"
                for name, value in _quota(part)
            ]
    return "".join(made)


def _local_queue(facts: HandOff) -> str:
    head = f"apiVersion: {API}\nkind: LocalQueue\nmetadata:\n  name: {facts.name}\n  namespace: {facts.name}\n"
    return f"{head}spec:\n  clusterQueue: {facts.name}\n"


def _kueue_job(facts: HandOff, part: Part) -> str:
    asked = "".join(f"            {to_yaml(name)}: {to_yaml(value)}\n" for name, value in _each(part))
    variables = "".join(
        f"        - name: {name}\n          value: {to_yaml(value)}\n" for name, value in facts.environment
    )
    return (
        to_comments([*facts.sentences(), "kubectl create -f, by the grantee, with an image and a command of your own."])
        + f"apiVersion: batch/v1\nkind: Job\nmetadata:\n  generateName: {facts.name}-\n  namespace: {facts.name}\n"
        f"  labels:\n    kueue.x-k8s.io/queue-name: {facts.name}\nspec:\n  suspend: true\n"
        f"  parallelism: {part.nodes}\n  completions: {part.nodes}\n  completionMode: Indexed\n"
        f"  activeDeadlineSeconds: {part.end - part.start}\n  template:\n    spec:\n      restartPolicy: Never\n"
        f"      containers:\n      - name: main\n        image: {IMAGE}\n        env:\n{variables}"
        f"        resources:\n          requests:\n{asked}          limits:\n{asked}"
    )


def _quota(part: Part) -> list[tuple[str, str]]:
    return [(name, _times(value, part.nodes)) for name, value in _each(part)]


def _each(part: Part) -> list[tuple[str, str]]:
    """What one node gives; Kueue counts only resources that a quota names."""
    found = [("cpu", str(part.cpus or 1))]
    if part.ram_gib:
        found.append(("memory", f"{part.ram_gib}Gi"))
    if part.count:
        found.append((_resource(part), str(part.count)))
    return found


def _resource(part: Part) -> str:
    named = dict(part.attributes).get("kubernetes-resource", _RESOURCES.get(part.vendor, ""))
    if not _LABEL_KEY.match(named) or "/" not in named:
        raise refused(f"no Kubernetes resource is known for {part.accelerator} of {part.vendor or 'no vendor'}; "
                      "an attribute 'kubernetes-resource' of the slice names one")  # fmt: skip
    return named


def _labels(part: Part) -> list[tuple[str, str]]:
    labels = [(name.removeprefix(LABEL), value) for name, value in part.attributes if name.startswith(LABEL)]
    for key, value in labels:
        if not (_LABEL_KEY.match(key) and _LABEL_VALUE.match(value)):
            raise refused(f"{key[:80]!r}: {value[:80]!r} is no label of a node")
    return labels


def _annotations(facts: HandOff) -> str:
    said = {
        "comity.dev/grant": facts.grant,
        "comity.dev/title": facts.title,
        "comity.dev/grantee": facts.grantee,
        "comity.dev/amount": f"{sum(part.amount for part in facts.parts)} {facts.measure}",
    }
    return "  annotations:\n" + "".join(f"    {name}: {to_yaml(value)}\n" for name, value in said.items())


def _times(value: str, nodes: int) -> str:
    return f"{int(value.removesuffix('Gi')) * nodes}{'Gi' if value.endswith('Gi') else ''}"


def _flavored(facts: HandOff, part: Part) -> str:
    return f"{facts.name}-{part.name}"


_INFRA: Final = ("kubernetes", "k8s", "ssh", "slurm")


def render_skypilot(facts: HandOff) -> dict[str, str]:
    """Texts by file name."""
    return {f"{facts.name}-{part.name}.sky.yaml": _task(facts, part) for part in facts.parts}


def _task(facts: HandOff, part: Part) -> str:
    used = f"{part.nodes} nodes until {part.end} (POSIX seconds), at most {part.amount} {facts.measure}"
    lines = [to_comments([*facts.sentences(), used]), f"name: {facts.name}\n", f"num_nodes: {part.nodes}\n"]
    lines += ["resources:\n", *(f"  {name}: {value}\n" for name, value in _resources(facts, part))]
    lines += ["envs:\n", *(f"  {name}: {to_yaml(value)}\n" for name, value in facts.environment)]
    lines.append(f"run: |\n  echo {to_shell('Put your command here: the weights are at HF_ENDPOINT.')}\n")
    return "".join(lines)


def _resources(facts: HandOff, part: Part) -> list[tuple[str, str]]:
    asked = []
    if infra := _infra(facts.target):
        asked.append(("infra", to_yaml(infra)))
    if part.count:
        asked.append(("accelerators", to_yaml(f"{part.accelerator}:{part.count}")))
    if part.cpus:
        asked.append(("cpus", to_yaml(f"{part.cpus}+")))
    if part.ram_gib:
        asked.append(("memory", to_yaml(f"{part.ram_gib}+")))
    return asked or [("cpus", to_yaml("1+"))]


def _infra(target: str) -> str:
    """The target as SkyPilot names infrastructure, where it is spelled as such: `kubernetes/context`, `ssh/pool`."""
    kind, _, name = target.partition("/")
    return target if kind in _INFRA and (not name or to_word(name)) else ""


_HEAD = "#!/bin/sh\n"


def render_slurm(facts: HandOff) -> dict[str, str]:
    """Texts by file name."""
    files = {"reserve.sh": _reserve(facts), "accounting.sh": _accounting(facts)}
    for part in facts.parts:
        files[f"job-{part.name}.sbatch"] = _slurm_job(facts, part)
    return files


def _reserve(facts: HandOff) -> str:
    made = [_HEAD, to_comments([*facts.sentences(), "Run it as Slurm's administrator."]), "set -eu\n"]
    made += [_command("scontrol create reservation", _reservation(facts, part)) for part in facts.parts]
    return "".join(made)


def _reservation(facts: HandOff, part: Part) -> list[str]:
    fields = [
        f"ReservationName={_reserved(facts, part)}",
        f"StartTime=uts{part.start}",
        f"EndTime=uts{part.end}",
        f"NodeCnt={part.nodes}",
    ]
    if partition := to_word(facts.target):
        fields.append(f"PartitionName={partition}")
    return [*fields, f"Users={facts.user}" if facts.user else f"Accounts={facts.name}"]


def _accounting(facts: HandOff) -> str:
    made = [
        _HEAD,
        to_comments([*facts.sentences(), "Run it as Slurm's administrator, where slurmdbd runs."]),
        "set -eu\n",
    ]
    described = [facts.name, f"Description={facts.title}", f"Organization={facts.grantee}"]
    made.append(_command("sacctmgr -i add account", described))
    if facts.user:
        made.append(_command("sacctmgr -i add user", [facts.user, f"Account={facts.name}"]))
    resource = "gres/gpu" if facts.measure == ACCELERATOR_HOURS else "node"
    minutes = 60 * sum(part.amount for part in facts.parts)
    made.append(_command("sacctmgr -i modify account", [facts.name, "set", f"GrpTRESMins={resource}={minutes}"]))
    return "".join(made)


def _slurm_job(facts: HandOff, part: Part) -> str:
    options = [
        f"--job-name={facts.name}",
        f"--reservation={_reserved(facts, part)}",
        f"--nodes={part.nodes}",
        "--exclusive",
        f"--time={_duration(part.end - part.start)}",
    ]
    if not facts.user:
        options.append(f"--account={facts.name}")
    if partition := to_word(facts.target):
        options.append(f"--partition={partition}")
    if part.count:
        options.append(f"--gpus-per-node={part.count}")
    made = ["#!/bin/bash\n", *(f"#SBATCH {option}\n" for option in options), to_comments(facts.sentences())]
    made += [f"export {name}={to_shell(value)}\n" for name, value in facts.environment]
    made.append(to_comments(['Your commands follow, for instance: srun vllm serve "$COMITY_MODEL"']))
    return "".join(made)


def _reserved(facts: HandOff, part: Part) -> str:
    return f"{facts.name}-{part.name}"


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    return f"{days}-{hours:02}:{rest // 60:02}:{rest % 60:02}"


def _command(program: str, arguments: list[str]) -> str:
    return " ".join([program, *map(to_shell, arguments)]) + "\n"


def render_ssh(facts: HandOff) -> dict[str, str]:
    """Texts by file name."""
    lines = [*facts.sentences(), f"Account: {facts.user or 'to be agreed'}   Host: {facts.target or 'to be agreed'}"]
    for part in facts.parts:
        machine = f"{part.count} x {part.accelerator}" if part.count else f"{part.cpus} CPUs"
        lines.append(
            f"{part.nodes} nodes of {machine} ({part.name}), from {_when(part.start)} up to {_when(part.end)}, "
            f"at most {part.amount} {facts.measure}"
        )
    lines.append("Access is between the two of you: send no password or private key through Comity, it is logged.")
    exports = "".join(f"export {name}={to_shell(value)}\n" for name, value in facts.environment)
    return {"README.txt": to_comments(lines, ""), "environment.sh": exports}


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


Files: TypeAlias = dict[str, str]

RENDERERS: Final[dict[str, Callable[[HandOff], Files]]] = {
    "slurm": render_slurm,
    "kubernetes": render_kueue,
    "skypilot": render_skypilot,
    "ssh": render_ssh,
}


def render(facts: HandOff, engine: str = "") -> Files:
    """Texts by file name, for `engine` or the one that the offer names. Raises Malformed (HAND-OFF) for what the engine
    cannot be told."""
    return RENDERERS[engine or facts.engine](facts)
