"""Hand-off files for Kubernetes with Kueue.

Kueue counts what runs at one time; no Kueue object limits the total amount, which is an annotation. Attributes
`label/KEY` of a slice select nodes. Sources: Kueue's API reference, kueue.x-k8s.io/v1beta1; Kubernetes API reference,
batch/v1.
"""

from __future__ import annotations

import re
from typing import Final

from comity_client.offers.handoff import LABEL, HandOff, Part, handoff_error, to_comments

from comity.addons.schedulers.quoting import to_yaml

API: Final = "kueue.x-k8s.io/v1beta1"


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
