"""A real Prometheus scrapes a node, evaluates the alert rules, and has fresh data for each metric of the dashboard."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.federation import found, introduced, serving, until
from support.ports import free_port
from support.tools import needs, running

pytestmark = pytest.mark.slow
MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
WITHOUT_EVENTS = {
    *("comity_misbehaviour_proofs", "comity_verify_failures_total", "comity_pull_bytes_total"),
    *("comity_served_bytes_total",),
}
"""Series that appear with the first event of their kind; this federation has no such event."""


def ask(port: int, path: str, **query: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())["data"]


async def test_prometheus_scrapes_a_node_and_has_every_metric_of_the_rules_and_panels(tmp_path: Path) -> None:
    program = needs("prometheus", unlock="apt-get install prometheus")
    port, metrics = free_port(), f"127.0.0.1:{free_port()}"
    homes = found(tmp_path / "homes", 2).homes
    homes[0].set("listen", metrics=metrics)
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "comity.rules.yml")],
        "scrape_configs": [{"job_name": "comity", "static_configs": [{"targets": [metrics]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    command = [program, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    async with serving(*homes):
        await introduced(homes[0])
        with running(command, tmp_path / "prometheus.log"):

            async def values(expression: str) -> list[float]:
                try:
                    found = await asyncio.to_thread(ask, port, "query", query=expression)
                except (urllib.error.URLError, ConnectionError):
                    return []  # not listening yet
                return [float(item["value"][1]) for item in found["result"]]

            async def is_one(expression: str) -> bool:
                return await values(expression) == [1.0]

            async def age_grew() -> bool:
                return await values("delta(comity_checkpoint_age_seconds[4s])") > [0.0]

            await until(age_grew, what="an age that is newer at each scrape")
            for expression in ('up{job="comity"}', "comity_peer_up"):
                await until(partial(is_one, expression), what=expression)
            named = re.findall(r"comity_[a-z_]+", (MONITORING / "comity.dashboard.json").read_text())
            named += re.findall(r"comity_[a-z_]+", (MONITORING / "comity.rules.yml").read_text())
            for name in {*named} - WITHOUT_EVENTS:
                await until(partial(values, name), what=name)
            groups = (await asyncio.to_thread(ask, port, "rules"))["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert rules
            assert {(rule["name"], rule["health"]) for rule in rules} == {(rule["name"], "ok") for rule in rules}
            firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
            assert not firing
