"""The chart in deploy/helm and the manifests that are made from it. No cluster runs here: `helm` renders, the published
schemas of Kubernetes and `promtool` read what it rendered, and a node starts as its pod says, from folders of this
machine.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from comity.node.config import NodeConfig
from comity.node.settings import Naming, known_settings
from comity_cli.commands import storage_initializer
from support.federation import found, until
from support.fenced import ROOT, blocks
from support.ports import free_port
from support.tools import needs, running

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "comity"
KUBERNETES = DEPLOY / "kubernetes"
SITE = ("-f", str(KUBERNETES / "site.values.yaml"))
MANIFESTS = {"node.yaml": (), "site.yaml": SITE}
OF_MODELS = ("model-pod.yaml", "model-volume.yaml", "model-image.yaml")
"""Manifests of pods that pull models, which are no part of the chart."""
VERSIONS = ("1.27", "1.37")
"""The oldest Kubernetes that the chart names, and the newest with a schema."""

DEFAULT_DRAIN = Naming.model_fields["drain_seconds"].default
GIVEN_TO_END = 30
"""Seconds beside `node.drain_seconds` that docs/operations/install.md asks for."""

Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = needs("helm", unlock="the function install_helm of .ci/run")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@functools.cache
def rendered(*arguments: str) -> str:
    ran = helm("template", "comity", str(CHART), *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def manifests(*arguments: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(rendered(*arguments)) if each]


def of_kind(kind: str, *arguments: str) -> list[Manifest]:
    return [each for each in manifests(*arguments) if each["kind"] == kind]


def pods(*arguments: str) -> Iterator[tuple[dict[str, str], Manifest]]:
    """The labels and the specification of the pods of each workload."""
    for each in of_kind("StatefulSet", *arguments) + of_kind("Deployment", *arguments):
        assert each["spec"]["selector"]["matchLabels"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        yield each["spec"]["template"]["metadata"]["labels"], each["spec"]["template"]["spec"]


@pytest.fixture(params=MANIFESTS, name="values")
def _values(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return MANIFESTS[request.param]


def test_helm_has_no_finding(values: tuple[str, ...]) -> None:
    ran = helm("lint", "--strict", str(CHART), *values)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_plain_manifests_are_what_the_chart_renders(name: str) -> None:
    assert (KUBERNETES / name).read_text() == rendered(*MANIFESTS[name]), "run: make manifests"


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("kubernetes", VERSIONS)
def test_every_manifest_fits_the_schemas_of_kubernetes(name: str, kubernetes: str) -> None:
    """Those of the Prometheus operator are no part of Kubernetes: nothing here reads them but the tests below."""
    known = [each for each in manifests(*MANIFESTS[name]) if not each["apiVersion"].startswith("monitoring.")]
    assert fitting(KUBERNETES / name, kubernetes) == len(known)


def fitting(file: Path, kubernetes: str) -> int:
    """How many resources of a file the schemas of this version of Kubernetes know; all of them fit."""
    validate = needs("kubernetes-validate", unlock="pip install kubernetes-validate, and its folder on PATH")
    command = [validate, "-k", kubernetes, "--strict", "--no-warn", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return (ran.stdout + ran.stderr).count(" passed for resource ")


@pytest.mark.parametrize("kubernetes", VERSIONS)
def test_every_manifest_of_models_fits_the_schemas_of_kubernetes(kubernetes: str, tmp_path: Path) -> None:
    """KServe's own kind is no part of Kubernetes, but the container in it is that of a pod."""
    for name in OF_MODELS:
        if (name, kubernetes) == ("model-image.yaml", VERSIONS[0]):
            continue  # it has no volumes of images
        assert fitting(KUBERNETES / name, kubernetes) == len(list(yaml.safe_load_all((KUBERNETES / name).read_text())))
    for each in yaml.safe_load_all((KUBERNETES / "kserve.yaml").read_text()):
        pod = {"initContainers": [each["spec"]["container"]], "containers": [{"name": "engine", "image": "engine"}]}
        file = tmp_path / "pod.yaml"
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}))
        assert fitting(file, kubernetes) == 1


def test_the_containers_of_models_have_no_privileges_and_a_command_that_comity_has() -> None:
    """The images of all manifests are the node's, or made from it."""
    pods = [
        each["spec"]["template"]["spec"]
        for name in OF_MODELS
        for each in yaml.safe_load_all((KUBERNETES / name).read_text())
        if "template" in each["spec"]
    ]
    storage = [each["spec"] for each in yaml.safe_load_all((KUBERNETES / "kserve.yaml").read_text())]
    assert all(
        (pod["automountServiceAccountToken"], pod["securityContext"]["runAsUser"]) == (False, 10001) for pod in pods
    )
    containers = [each for pod in pods for each in (*pod.get("initContainers", ()), *pod["containers"])]
    for each in (*containers, *(kind["container"] for kind in storage)):
        security = each["securityContext"]
        assert security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}
        assert each["resources"]["limits"]["memory"]
        if each["command"][0] == "comity":
            words = [*each["command"][2:], *each.get("args", ("comity://swiss-ai/apertus-8b@v1", "/mnt/models"))]
            with storage_initializer.command.make_context(each["command"][1], without_files(words)) as context:
                assert context.params["words"][0] == "comity://swiss-ai/apertus-8b@v1"


def without_files(words: list[str]) -> list[str]:
    """The words of a command, with a file of this machine for the one that the pod has."""
    return [word.replace("/etc/comity/policy.toml", str(KUBERNETES / "kserve.yaml")) for word in words]


def test_the_chart_has_the_version_of_the_product() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version("comity")


def test_a_pod_has_no_privileges_and_writes_to_its_volumes_only(values: tuple[str, ...]) -> None:
    for _, pod in pods(*values):
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["fsGroupChangePolicy"] == "OnRootMismatch", (
            "otherwise each start opens private files to a group"
        )
        for container in pod["initContainers"] + pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_the_user_of_a_pod_is_the_one_of_the_image() -> None:
    user = next(line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line.startswith("USER "))
    for _, pod in pods(*SITE):
        security = pod["securityContext"]
        assert user == f"USER {security['runAsUser']}:{security['runAsGroup']}"
        assert security["fsGroup"] == security["runAsGroup"]


def test_probes_ask_the_process_and_only_readiness_asks_the_ledger(values: tuple[str, ...]) -> None:
    for _, pod in pods(*values):
        (container,) = pod["containers"]
        asked = {
            kind: (container[f"{kind}Probe"]["httpGet"]["path"], container[f"{kind}Probe"]["httpGet"]["port"])
            for kind in ("readiness", "liveness", "startup")
        }
        assert asked == {
            "readiness": ("/readyz", "metrics"),
            "liveness": ("/healthz", "gateway"),
            "startup": ("/healthz", "gateway"),
        }
        assert {"metrics", "gateway"} <= {port["name"] for port in container["ports"]}
        ends = container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"]
        assert ends >= 60, "a node that is slow for a moment is not started again"


@pytest.mark.parametrize("seconds", [30, 600])
def test_a_pod_has_time_to_drain(values: tuple[str, ...], seconds: int) -> None:
    for _, pod in pods(*values, "--set", f"drainSeconds={seconds}"):
        (container,) = pod["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert environment["COMITY_NODE_DRAIN_SECONDS"] == str(seconds)
        before = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
        assert pod["terminationGracePeriodSeconds"] >= before + seconds + GIVEN_TO_END
    assert yaml.safe_load((CHART / "values.yaml").read_text())["drainSeconds"] == DEFAULT_DRAIN


def test_the_environment_has_settings_and_no_secret(values: tuple[str, ...]) -> None:
    known = {f"COMITY_{setting.replace('.', '_').upper()}" for setting in known_settings()}
    for _, pod in pods(*values):
        for container in pod["initContainers"] + pod["containers"]:
            assert "envFrom" not in container
            for variable in container.get("env", ()):
                assert variable.keys() == {"name", "value"}, "a value from a Secret would be in the environment"
                assert variable["name"] in known
                assert not re.search(r"://[^@/]*:[^@/]*@", variable["value"])


def test_keys_are_in_memory_and_a_front_end_has_none_that_signs(values: tuple[str, ...]) -> None:
    for labels, pod in pods(*values):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["run"]["emptyDir"]["medium"] == "Memory"
        (served,) = pod["containers"]
        assert "keys" not in {mount["name"] for mount in served["volumeMounts"]}
        items = [item["key"] for item in volumes["keys"]["secret"].get("items", ())]
        assert items == (["tls.pem"] if labels["app.kubernetes.io/component"] == "front-end" else [])


def test_one_process_writes_and_a_standby_waits_where_the_settings_allow_it() -> None:
    (alone,) = of_kind("StatefulSet")
    assert (alone["spec"]["replicas"], roles(alone)) == (1, [])
    both = of_kind("StatefulSet", *SITE)
    assert [each["metadata"]["name"] for each in both] == ["comity-writer", "comity-standby"]
    assert [(each["spec"]["replicas"], roles(each)) for each in both] == [(1, ["standby"])] * 2
    first, second = (each["spec"]["selector"]["matchLabels"] for each in both)
    assert first != second, "each workload would take the pod of the other one for its own"
    for each in both:  # one that waits is not started again for it
        probe = each["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] > 300 * 86_400
    (mutual,) = [each for each in of_kind("Service", *SITE) if each["metadata"]["name"] == "comity-mutual"]
    assert mutual["spec"]["selector"].items() <= first.items() and mutual["spec"]["selector"].items() <= second.items()


def roles(workload: Manifest) -> list[str]:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return [variable["value"] for variable in container["env"] if variable["name"] == "COMITY_NODE_ROLE"]


def test_the_disruption_of_front_ends_is_bounded() -> None:
    (budget,) = of_kind("PodDisruptionBudget", *SITE)
    (front,) = of_kind("Deployment", *SITE)
    assert budget["spec"]["selector"] == front["spec"]["selector"]
    assert budget["spec"]["maxUnavailable"] < front["spec"]["replicas"]
    assert front["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_every_service_and_every_rule_of_the_network_names_ports_of_pods_that_exist(values: tuple[str, ...]) -> None:
    found_pods = [(labels, {port["name"] for port in pod["containers"][0]["ports"]}) for labels, pod in pods(*values)]

    def selected(selector: dict[str, str]) -> set[str]:
        matching = [ports for labels, ports in found_pods if selector.items() <= labels.items()]
        assert matching, f"no pod has {selector}"
        return set.intersection(*matching)

    for service in of_kind("Service", *values):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= selected(service["spec"]["selector"])
    policies = of_kind("NetworkPolicy", *values)
    assert len(policies) == len({labels["app.kubernetes.io/component"] for labels, _ in found_pods})
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        ports = selected(policy["spec"]["podSelector"]["matchLabels"])
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= ports


def test_everybody_reaches_front_ends_and_only_monitoring_reads_metrics() -> None:
    for policy in of_kind("NetworkPolicy", *SITE):
        open_to_all = {
            port["port"] for rule in policy["spec"]["ingress"] if "from" not in rule for port in rule["ports"]
        }
        front = policy["metadata"]["name"].endswith("front-end")
        assert open_to_all == ({"open", "gateway"} if front else {"mutual", "open"})
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind("Service", *SITE)}
    for name, component in (("open", "front-end"), ("gateway", "front-end"), ("mutual", "writer")):
        assert services[f"comity-{name}"]["selector"]["app.kubernetes.io/component"] == component
        assert services[f"comity-{name}"].get("externalTrafficPolicy", "Local") == "Local", "limits count by caller"


def test_the_monitor_finds_the_metrics_and_the_rules_are_those_of_the_package(tmp_path: Path) -> None:
    (monitor,) = of_kind("ServiceMonitor", *SITE)
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (service,) = [each for each in of_kind("Service", *SITE) if wanted.items() <= each["metadata"]["labels"].items()]
    assert [port["name"] for port in service["spec"]["ports"]] == [e["port"] for e in monitor["spec"]["endpoints"]]
    (endpoint,) = monitor["spec"]["endpoints"]
    job, ready = endpoint["relabelings"]
    assert job == {"targetLabel": "job", "replacement": "comity"}
    assert ready["sourceLabels"] == ["__meta_kubernetes_endpoint_ready"], "a standby that waits has no metrics"
    assert service["spec"]["publishNotReadyAddresses"] is False
    (rules,) = of_kind("PrometheusRule", *SITE)
    assert rules["spec"] == yaml.safe_load((DEPLOY / "monitoring" / "comity.rules.yml").read_text())
    promtool = needs("promtool", unlock="apt-get install promtool")
    (tmp_path / "rules.yml").write_text(json.dumps(rules["spec"]))
    ran = subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["frontEnd.enabled=true"], "frontEnd"),
        (["frontEnds.enabled=true"], "frontEnds.database.url"),
        (["standby.enabled=true"], "database.url"),
        (["database.url=postgresql://comity:secret@db/comity"], "/database/url"),
        (["keys.secret="], "keys.secret"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(values: list[str], named: str) -> None:
    ran = helm("template", "comity", str(CHART), *(part for value in values for part in ("--set", value)))
    assert ran.returncode != 0
    assert named in ran.stderr


def as_kubelet_mounts(folder: Path, files: dict[str, bytes], *, mode: int) -> None:
    """A ConfigMap or Secret: links to files of a mode that the group may read."""
    data = folder / "..data"
    data.mkdir(parents=True)
    for name, content in files.items():
        (data / name).write_bytes(content)
        (data / name).chmod(mode)
        (folder / name).symlink_to(Path("..data") / name)


async def test_a_pod_starts(tmp_path: Path) -> None:
    """A node starts as its pod says, and answers its probes. The name is short: the path of its socket has a limit."""
    (home,) = found(tmp_path / "made", 1)
    federation = (home.directory / "federation.json").read_bytes()
    cut = len(federation) // 2
    public = {
        name: (home.directory / name).read_bytes() for name in ("node.toml", "inception.line", "node-record.line")
    }
    public |= {"federation.json.00": federation[:cut], "federation.json.01": federation[cut:]}
    as_kubelet_mounts(tmp_path / "etc/comity/home", public, mode=0o644)
    keys = {path.name: path.read_bytes() for path in (home.directory / "keys").iterdir()}
    as_kubelet_mounts(tmp_path / "etc/comity/keys", keys, mode=0o440)
    for folder in ("var/lib/comity", "run/comity"):
        (tmp_path / folder).mkdir(parents=True)

    ((_, pod),) = pods()
    ports = {port["containerPort"]: free_port() for port in pod["containers"][0]["ports"]}

    def here(text: str) -> str:
        """What a pod says, with the folders and free ports of this machine."""
        text = re.sub(r"(?<![\w.])/(?=(?:etc|run|var/lib)/comity\b)", f"{tmp_path}/", text)
        return re.sub(r"0\.0\.0\.0:(\d+)", lambda match: f"127.0.0.1:{ports[int(match[1])]}", text)

    (place,) = pod["initContainers"]
    for _ in range(2):  # a container may be started again beside what it left
        subprocess.run([here(word) for word in place["command"]], check=True)
    (served,) = pod["containers"]
    environment = {variable["name"]: here(variable["value"]) for variable in served["env"]}
    arguments = [here(word) for word in served["args"]]
    config = NodeConfig.load(Path(arguments[-1]) / "node.toml", environment)
    assert config.federation.file.read_bytes() == federation
    assert {path.name: path.read_bytes() for path in config.keys.iterdir()} == keys
    assert config.keys == tmp_path / "run/comity/keys"

    names = {port["name"]: ports[port["containerPort"]] for port in served["ports"]}
    command = [sys.executable, "-m", "comity_cli.main", *arguments]
    with running(command, tmp_path / "node.log", env=environment) as process:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = served[probe]["httpGet"]
            address = f"http://127.0.0.1:{names[get['port']]}{get['path']}"
            await until(partial(_answers_or_ended, address, process), what=f"{probe} at {get['path']}")
            assert process.poll() is None, (tmp_path / "node.log").read_text()
        status = subprocess.run(
            [sys.executable, "-m", "comity_cli.main", "status", "--node", arguments[-1], "--json"],
            env={**os.environ, **environment}, capture_output=True, check=False,
        )  # fmt: skip
        assert status.returncode == 0, status.stderr


def _answers_or_ended(address: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        return True
    try:
        with urllib.request.urlopen(address, timeout=10) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_the_commands_of_the_page_make_what_the_chart_asks_for(tmp_path: Path) -> None:
    """As they stand, with `kubectl` and `helm` told to print what they would send to a cluster."""
    (commands,) = [block.text for block in blocks("docs/operations/grow.md") if "helm install" in block.text]
    kubectl, program = (
        needs("kubectl", unlock="the function install_helm of .ci/run"),
        needs("helm", unlock="as kubectl"),
    )
    (tmp_path / "deploy").symlink_to(DEPLOY)
    found(tmp_path / "made", 1).homes[0].directory.rename(tmp_path / "node-ch")
    (tmp_path / "bin").mkdir()
    for name, shown in (
        ("kubectl", f'{kubectl} "$@" --dry-run=client -o json'),
        ("helm", f'{program} "$@" --dry-run=client'),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\nexec {shown}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "KUBECONFIG": "/dev/null"}
    command = ["sh", "-euc", commands]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    reader, at, made = json.JSONDecoder(), 0, []
    for _ in range(2):
        document, at = reader.raw_decode(ran.stdout, at)
        made.append(document)
        at += len(ran.stdout[at:]) - len(ran.stdout[at:].lstrip())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [each["metadata"]["name"] for each in made] == [*values["home"]["configMaps"], values["keys"]["secret"]]
    assert made[0]["data"].keys() == {"node.toml", "federation.json", "inception.line", "node-record.line"}
    assert made[1]["data"].keys() == {"log.pem", "cosigner.pem", "online.pem", "tls.pem"}
    assert "registry.example.org/comity:" in ran.stdout[at:]
