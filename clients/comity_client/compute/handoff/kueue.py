"""Kueue: a flavor for each slice, a ClusterQueue whose quota is what was granted, a LocalQueue in a namespace of its
own, and a Job that waits in it.

Kueue counts what runs at one time; the amount altogether is kept by no object of it, and stands in an annotation.
Labels that choose nodes are the cluster's own: an attribute of the slice called `label/KEY` becomes one. Sources:
Kueue's API reference, kueue.x-k8s.io/v1beta1; Kubernetes API reference, batch/v1.
"""

from __future__ import annotations

import re
from typing import Final

from comity_client.compute.handoff.facts import HandOff, Part, refused
from comity_client.compute.handoff.spelling import comments, yaml

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


def render(facts: HandOff) -> dict[str, str]:
    """Texts by file name. Raises Malformed (HAND-OFF) for an accelerator that no resource name is known for."""
    administrator = [_namespace(facts), *(_flavor(facts, part) for part in facts.parts), _cluster_queue(facts),
                     _local_queue(facts)]  # fmt: skip
    files = {"queues.yaml": comments([*facts.sentences(), "kubectl apply -f, as the cluster's administrator."])}
    files["queues.yaml"] += "---\n".join(administrator)
    for part in facts.parts:
        files[f"job-{part.name}.yaml"] = _job(facts, part)
    return files


def _namespace(facts: HandOff) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {facts.name}\n{_annotations(facts)}"


def _flavor(facts: HandOff, part: Part) -> str:
    labels = "".join(f"    {yaml(key)}: {yaml(value)}\n" for key, value in _labels(part))
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
        made.append(f"  - coveredResources: [{', '.join(map(yaml, names))}]\n    flavors:\n")
        for part in parts:
            made.append(f"    - name: {_flavored(facts, part)}\n      resources:\n")
            made += [
                f"      - name: {yaml(name)}\n        nominalQuota: {yaml(value)}\n" for name, value in _quota(part)
            ]
    return "".join(made)


def _local_queue(facts: HandOff) -> str:
    head = f"apiVersion: {API}\nkind: LocalQueue\nmetadata:\n  name: {facts.name}\n  namespace: {facts.name}\n"
    return f"{head}spec:\n  clusterQueue: {facts.name}\n"


def _job(facts: HandOff, part: Part) -> str:
    asked = "".join(f"            {yaml(name)}: {yaml(value)}\n" for name, value in _each(part))
    variables = "".join(
        f"        - name: {name}\n          value: {yaml(value)}\n" for name, value in facts.environment
    )
    return (
        comments([*facts.sentences(), "kubectl create -f, by the grantee, with an image and a command of your own."])
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
    return "  annotations:\n" + "".join(f"    {name}: {yaml(value)}\n" for name, value in said.items())


def _times(value: str, nodes: int) -> str:
    return f"{int(value.removesuffix('Gi')) * nodes}{'Gi' if value.endswith('Gi') else ''}"


def _flavored(facts: HandOff, part: Part) -> str:
    return f"{facts.name}-{part.name}"
