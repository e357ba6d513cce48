"""`comity doctor`: every check on one home, with its node running or stopped.

Nothing is changed: one small file is written to the blob folder and removed, and objects of its own, some 15 MB, to a
bucket. A check that fails itself is a finding, and the others go on. No finding contains the content of a file with a
secret.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from comity.node.config import NodeConfig
from comity.node.home_files import HomeFiles
from comity.node.maintenance.bucket_check import check_bucket
from comity.node.maintenance.home_checks import (
    Check,
    Diagnosis,
    ExaminedNode,
    Machine,
    check_clock,
    check_confinement,
    check_disks,
    check_federation,
    check_keys,
    check_ledger,
    check_storage,
    check_versions,
)
from comity.node.maintenance.network_checks import (
    check_advertised,
    check_forks,
    check_gateway,
    check_limits,
    check_listeners,
    check_peers,
    check_proxy,
    check_running,
)
from comity.node.maintenance.release_check import check_release
from comity.node.maintenance.settings_shown import redacted, setting_problems
from comity.trust.errors import ComityError, NotFound
from comity.wire.client import NodeClient
from comity.wire.node_status import NodeStatus

STATUS_TIMEOUT: Final = 10.0
CHECKS: Final[Sequence[Check]] = (
    check_running,
    check_limits,
    check_keys,
    check_federation,
    check_clock,
    check_disks,
    check_storage,
    check_bucket,
    check_ledger,
    check_listeners,
    check_advertised,
    check_proxy,
    check_peers,
    check_forks,
    check_gateway,
    check_versions,
    check_release,
    check_confinement,
)


def diagnose(home: Path, machine: Machine | None = None, status: NodeStatus | None = None) -> tuple[Diagnosis, ...]:
    """Every finding about the node of `home`. Blocking, some seconds.

    Args:
        status: what the running node said; by default it is asked at its operator socket.

    Raises NotFound if there is no node.toml.
    """
    machine = machine or Machine(environ=os.environ)
    file = home / "node.toml"
    try:
        problems = setting_problems(file, machine.environ)
        config = NodeConfig.load(file, machine.environ)
    except NotFound:
        raise
    except ComityError as error:
        return tuple(_told(Diagnosis.of("settings", problem) for problem in _problems(file, machine) or (error,)))
    try:
        files = HomeFiles.read(config)
    except ComityError:
        files = None  # check_keys tells why
    node = ExaminedNode(home, config, files, status or running_status(config.listen.operator), machine)
    return tuple(_told(_findings(node, problems)))


def running_status(socket: Path) -> NodeStatus | None:
    """What the node at an operator socket says; None if no node answers there."""

    async def ask() -> NodeStatus:
        async with NodeClient.operator(socket) as client:
            return await client.with_timeout(STATUS_TIMEOUT).status()

    if not socket.is_socket():
        return None
    try:
        return asyncio.run(ask())
    except ComityError:
        return None


def _problems(file: Path, machine: Machine) -> tuple[ComityError, ...]:
    """All problems of settings that cannot be loaded; none if the file cannot be read."""
    try:
        return setting_problems(file, machine.environ)
    except ComityError:
        return ()


def _findings(node: ExaminedNode, problems: Sequence[ComityError]) -> Iterator[Diagnosis]:
    if not problems:
        yield Diagnosis("settings", "ok", f"{node.home / 'node.toml'} and the files that it names are usable")
    yield from (Diagnosis.of("settings", problem) for problem in problems)
    for check in CHECKS:
        try:
            yield from check(node)
        except (ComityError, OSError) as error:
            topic = check.__name__.removeprefix("check_")
            yield Diagnosis(topic, "unknown", f"the check did not end: {error}", "comity support-bundle")


def _told(findings: Iterable[Diagnosis]) -> Iterator[Diagnosis]:
    for finding in findings:
        yield Diagnosis(finding.topic, finding.level, redacted(finding.text), finding.fix)
