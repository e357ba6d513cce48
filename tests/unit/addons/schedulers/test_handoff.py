"""Hand-off files for engines: their content, and that texts of strangers in them stay plain text."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml
from comity.addons.schedulers.quoting import to_yaml
from comity.trust.errors import Malformed
from comity_cli.offers import provider
from comity_cli.output import Output
from comity_client.offers.handoff import render, renderers
from comity_client.offers.offer_file import VENDORS, accelerator_warning
from hypothesis import given
from support.handoffs import H100, HOSTILE, PLAIN, hostile_with, words


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize("engine", renderers())
def test_every_engine_gets_the_models_digest_and_path(engine: str) -> None:
    told = "".join(render(PLAIN, engine).values())
    assert f"sha256:{PLAIN.artifact}" in told
    assert "HF_ENDPOINT" in told
    assert PLAIN.endpoint in told
    assert PLAIN.grant in told


@pytest.mark.parametrize("engine", renderers())
def test_the_offers_engine_is_the_default(engine: str) -> None:
    assert render(replace(PLAIN, engine=engine)) == render(PLAIN, engine)


def test_sacctmgr_gets_an_account_a_user_and_the_amount_in_minutes() -> None:
    told = [line for line in render(PLAIN)["accounting.sh"].splitlines() if line.startswith("sacctmgr")]
    name = PLAIN.name
    assert told == [
        f"sacctmgr -i add account {name} 'Description=Spare nodes' 'Organization=Example Centre Barcelona'",
        f"sacctmgr -i add user guest1 Account={name}",
        f"sacctmgr -i modify account {name} set GrpTRESMins=gres/gpu=18000",
    ]


def test_node_hours_are_limited_as_node_minutes() -> None:
    told = render(replace(PLAIN, measure="node-hours", user=""))["accounting.sh"]
    assert f"sacctmgr -i modify account {PLAIN.name} set GrpTRESMins=node=18000\n" in told
    assert "add user" not in told


def test_a_batch_script_begins_with_options_that_hold_the_job_to_its_reservation() -> None:
    lines = render(PLAIN)["job-big.sbatch"].splitlines()
    assert lines[:8] == [
        "#!/bin/bash",
        f"#SBATCH --job-name={PLAIN.name}",
        f"#SBATCH --reservation={PLAIN.name}-big",
        "#SBATCH --nodes=2",
        "#SBATCH --exclusive",
        "#SBATCH --time=1-00:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --gpus-per-node=8",
    ]


def test_a_user_name_that_no_system_takes_is_refused() -> None:
    for user in ("root; id", "-x", "A", "a" * 33, "a\nb"):
        with pytest.raises(Malformed) as refused:
            replace(PLAIN, user=user)
        assert refused.value.code == "HAND-OFF"


def test_kueue_gets_the_granted_quota_and_a_job_that_waits_for_it() -> None:
    files = render(PLAIN, "kubernetes")
    namespace, flavor, cluster, local = documents(files["queues.yaml"])
    (job,) = documents(files["job-big.yaml"])
    assert [d["kind"] for d in (namespace, flavor, cluster, local)] == [
        "Namespace", "ResourceFlavor", "ClusterQueue", "LocalQueue",
    ]  # fmt: skip
    (group,) = cluster["spec"]["resourceGroups"]
    assert group["coveredResources"] == ["cpu", "memory", "nvidia.com/gpu"]
    assert group["flavors"] == [
        {
            "name": flavor["metadata"]["name"],
            "resources": [
                {"name": "cpu", "nominalQuota": "192"},
                {"name": "memory", "nominalQuota": "2000Gi"},
                {"name": "nvidia.com/gpu", "nominalQuota": "16"},
            ],
        }
    ]
    assert local["spec"]["clusterQueue"] == cluster["metadata"]["name"]
    assert cluster["spec"]["namespaceSelector"] == {
        "matchLabels": {"kubernetes.io/metadata.name": namespace["metadata"]["name"]}
    }
    assert job["metadata"]["namespace"] == local["metadata"]["namespace"] == namespace["metadata"]["name"]
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": local["metadata"]["name"]}
    spec = job["spec"]
    assert (spec["suspend"], spec["parallelism"], spec["completions"], spec["activeDeadlineSeconds"]) == (
        True, 2, 2, 86_400,
    )  # fmt: skip
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "96", "memory": "1000Gi", "nvidia.com/gpu": "8"}
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert {each["name"]: each["value"] for each in container["env"]} == dict(PLAIN.environment)


def test_labels_that_choose_nodes_come_from_the_slices_attributes() -> None:
    part = replace(H100, attributes=(("label/nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3"),))
    flavor = documents(render(replace(PLAIN, parts=(part,)), "kubernetes")["queues.yaml"])[1]
    assert flavor["spec"] == {"nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}


@pytest.mark.parametrize(
    "part",
    [
        replace(H100, vendor="Nobody"),
        replace(H100, attributes=(("label/bad key", "x"),)),
        replace(H100, attributes=(("kubernetes-resource", "x\n- y"),)),
    ],
)
def test_kueue_gets_only_names_that_kubernetes_accepts(part: Any) -> None:
    with pytest.raises(Malformed) as refused:
        render(replace(PLAIN, parts=(part,)), "kubernetes")
    assert refused.value.code == "HAND-OFF"


def test_slices_of_one_kind_are_flavors_of_one_group() -> None:
    parts = (H100, replace(H100, name="more", nodes=1))
    cluster = documents(render(replace(PLAIN, parts=parts), "kubernetes")["queues.yaml"])[3]
    (group,) = cluster["spec"]["resourceGroups"]
    assert [flavor["name"] for flavor in group["flavors"]] == [f"{PLAIN.name}-big", f"{PLAIN.name}-more"]


def test_skypilot_gets_accelerators_by_its_own_names() -> None:
    (task,) = documents(render(replace(PLAIN, target="kubernetes/prod"), "skypilot")[f"{PLAIN.name}-big.sky.yaml"])
    assert task["resources"] == {
        "infra": "kubernetes/prod", "accelerators": "H100:8", "cpus": "96+", "memory": "1000+",
    }  # fmt: skip
    assert (task["num_nodes"], task["envs"]) == (2, dict(PLAIN.environment))


def test_a_target_that_skypilot_would_not_take_is_left_out() -> None:
    (task,) = documents(render(replace(PLAIN, target="a: b"), "skypilot")[f"{PLAIN.name}-big.sky.yaml"])
    assert "infra" not in task["resources"]


@given(words)
def test_texts_of_strangers_read_back_from_yaml_unchanged(word: str) -> None:
    assert yaml.safe_load(to_yaml(word)) == word
    (task,) = documents(render(hostile_with(word), "skypilot")[f"{PLAIN.name}-big.sky.yaml"])
    assert task["envs"].get("COMITY_MODEL", "") == word
    assert set(task) == {"name", "num_nodes", "resources", "envs", "run"}
    queues = documents(render(hostile_with(word), "kubernetes")["queues.yaml"])
    assert [each["kind"] for each in queues] == ["Namespace", "ResourceFlavor", "ClusterQueue", "LocalQueue"]
    assert queues[0]["metadata"]["annotations"]["comity.dev/title"] == word
    (job,) = documents(render(hostile_with(word), "kubernetes")["job-big.yaml"])
    assert set(job["spec"]["template"]["spec"]) == {"restartPolicy", "containers"}


@given(words)
def test_texts_of_strangers_are_plain_text_for_a_shell(word: str) -> None:
    files = render(hostile_with(word), "slurm")
    for text in (files["reserve.sh"], files["accounting.sh"]):
        for line in text.splitlines():
            assert line.startswith(("#", "set -eu", "scontrol create reservation ", "sacctmgr -i "))
            shlex.split(line, comments=True)
    exported = [line for line in files["job-big.sbatch"].splitlines() if not line.startswith("#")]
    assert all(line.startswith("export ") and len(shlex.split(line)) == 2 for line in exported)
    options = [line for line in files["job-big.sbatch"].splitlines() if line.startswith("#SBATCH")]
    assert all(" " not in line.removeprefix("#SBATCH ") for line in options)
    assert len(options) <= 8


def test_a_real_shell_that_runs_a_hostile_hand_off_does_nothing_else(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for program in ("scontrol", "sacctmgr"):
        (bin_ / program).write_text('#!/bin/sh\necho "$#" >>"$CALLS"\n')
        (bin_ / program).chmod(0o755)
    calls = tmp_path / "calls"
    for word in HOSTILE:
        files = {**render(hostile_with(word), "slurm"), **render(hostile_with(word), "ssh")}
        for name, text in files.items():
            if name != "README.txt":
                ran = subprocess.run(["/bin/sh", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False,
                                     env={"PATH": str(bin_), "CALLS": str(calls)})  # fmt: skip
                assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), (name, word)
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "calls"}
    assert len(calls.read_text().split()) == 4 * len(HOSTILE)


@given(words)
def test_a_note_keeps_its_lines_apart(word: str) -> None:
    text = render(hostile_with(word), "ssh")["README.txt"]
    assert len(text.splitlines()) == len(render(PLAIN, "ssh")["README.txt"].splitlines()) - (not word) * 2


@pytest.mark.parametrize(
    ("vendor", "name", "said"),
    [
        ("NVIDIA", "H100", ""),
        ("Google", "tpu-v5p-128", ""),
        ("NVIDIA", "h100", "did you mean H100?"),
        ("NVIDIA", "A100-80G", "did you mean A100-80GB?"),
        ("AMD", "H100", "made by NVIDIA"),
        ("", "Quux9", "not a known SkyPilot name"),
    ],
)
def test_unusual_accelerator_names_are_reported(vendor: str, name: str, said: str) -> None:
    assert said in accelerator_warning(vendor, name)
    assert bool(said) == bool(accelerator_warning(vendor, name))


def test_every_known_name_is_accepted_with_its_vendor() -> None:
    assert all(accelerator_warning(vendor, name) == "" for name, vendor in VENDORS.items())


def test_a_redemption_is_recorded_only_if_its_files_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = replace(PLAIN, engine="kubernetes", parts=(replace(H100, vendor="Nobody"),))
    monkeypatch.setattr(provider, "build_handoff", lambda *_: unknown)
    context = SimpleNamespace(statement=lambda *_: None, home=None, record=lambda *_: pytest.fail("recorded"))
    monkeypatch.setattr(provider, "OfferContext", lambda **_: context)
    assert provider.hand_over.callback is not None
    with click.Context(provider.hand_over, obj=Output()), pytest.raises(Malformed) as refused:
        provider.hand_over.callback("redemption", Path(), "", "", "", "", "")
    assert refused.value.code == "HAND-OFF"
