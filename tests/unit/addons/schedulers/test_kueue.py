"""Files for Kueue: the quota of each slice, labels of nodes, resource groups, and what no cluster would take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from comity.addons.schedulers.kueue import IMAGE, render_kueue
from comity.trust.errors import Malformed
from comity_client.offers.handoff import HandOff, Part
from support.handoffs import PLAIN

PART = replace(PLAIN.parts[0], name="one", attributes=(), cpus=4, ram_gib=16, count=2, nodes=3, vendor="NVIDIA")


def handoff(*parts: Part) -> HandOff:
    return replace(PLAIN, parts=parts)


def queues(*parts: Part) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for document in yaml.safe_load_all(render_kueue(handoff(*parts))["queues.yaml"]):
        found.setdefault(document["kind"], []).append(document)
    return found


def groups(*parts: Part) -> list[Any]:
    (queue,) = queues(*parts)["ClusterQueue"]
    found: list[Any] = queue["spec"]["resourceGroups"]
    return found


def refusal(*parts: Part) -> str:
    with pytest.raises(Malformed) as raised:
        render_kueue(handoff(*parts))
    assert raised.value.code == "HAND-OFF"
    return str(raised.value)


@pytest.mark.parametrize(
    ("part", "quota"),
    [
        (PART, {"cpu": "12", "memory": "48Gi", "nvidia.com/gpu": "6"}),
        (replace(PART, ram_gib=0, nodes=1), {"cpu": "4", "nvidia.com/gpu": "2"}),
        (replace(PART, cpus=0, count=0, vendor=""), {"cpu": "3", "memory": "48Gi"}),
        (replace(PART, vendor="AMD"), {"cpu": "12", "memory": "48Gi", "amd.com/gpu": "6"}),
        (
            replace(PART, vendor="", attributes=(("kubernetes-resource", "example.com/chip"),)),
            {"cpu": "12", "memory": "48Gi", "example.com/chip": "6"},
        ),
    ],
)
def test_the_quota_is_that_of_all_nodes_and_a_job_asks_for_one(part: Part, quota: dict[str, str]) -> None:
    ((group,), files) = groups(part), render_kueue(handoff(part))
    (flavor,) = group["flavors"]
    assert {each["name"]: each["nominalQuota"] for each in flavor["resources"]} == quota
    assert group["coveredResources"] == list(quota) and flavor["name"] == f"{PLAIN.name}-{part.name}"
    job = yaml.safe_load(files[f"job-{part.name}.yaml"])
    asked = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert asked["requests"] == asked["limits"] and set(asked["limits"]) == set(quota)
    assert int(asked["limits"]["cpu"]) * part.nodes == int(quota["cpu"])
    assert (job["spec"]["parallelism"], job["spec"]["suspend"]) == (part.nodes, True)
    assert job["spec"]["activeDeadlineSeconds"] == part.end - part.start


def test_slices_of_the_same_resources_are_flavors_of_one_group() -> None:
    (group,) = groups(PART, replace(PART, name="two", nodes=1))
    assert [flavor["name"].rpartition("-")[2] for flavor in group["flavors"]] == ["one", "two"]


def test_slices_that_share_some_resources_only_are_refused() -> None:
    assert "no two resource groups may share one" in refusal(PART, replace(PART, name="two", ram_gib=0))


@pytest.mark.parametrize(
    "resource", ["", "gpu", "example.com/", "-x.com/gpu", "a b.com/gpu", "example.com/" + "x" * 64]
)
def test_an_accelerator_needs_a_resource_that_kubernetes_takes(resource: str) -> None:
    assert "no Kubernetes resource is known" in refusal(replace(PART, attributes=(("kubernetes-resource", resource),)))
    assert "of no vendor" in refusal(replace(PART, vendor=""))


def test_labels_select_the_nodes() -> None:
    labelled = replace(PART, attributes=(("label/example.com/pool", "big"), ("label/zone", ""), ("other", "x")))
    (flavor,) = queues(labelled)["ResourceFlavor"]
    assert flavor["spec"]["nodeLabels"] == {"example.com/pool": "big", "zone": ""}
    (plain,) = queues(PART)["ResourceFlavor"]
    assert "spec" not in plain


@pytest.mark.parametrize(
    ("key", "value"), [("a b", "x"), ("zone", "a b"), ("zone", "x" * 64), ("/zone", "x"), ("zone", "-")]
)
def test_a_label_that_no_node_has_is_refused(key: str, value: str) -> None:
    assert "is not a valid node label" in refusal(replace(PART, attributes=((f"label/{key}", value),)))


def test_each_object_is_annotated_with_the_grant_and_the_whole_amount() -> None:
    found = queues(PART, replace(PART, name="two", amount=PART.amount + 1))
    for kind in ("Namespace", "ClusterQueue"):
        (document,) = found[kind]
        annotations = document["metadata"]["annotations"]
        assert annotations["comity.dev/grant"] == PLAIN.grant
        assert annotations["comity.dev/amount"] == f"{2 * PART.amount + 1} {PLAIN.measure}"
    assert IMAGE in render_kueue(handoff(PART))["job-one.yaml"]
