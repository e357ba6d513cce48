"""The newest drill of each service and kit, kept in this user's home, for the check of a plan.

`drills/<id>.json`, where the id is the SHA-256 of service and kit, is a drill report as the drill wrote it.
"""

from __future__ import annotations

from pathlib import Path

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.rules.continuity.drill_report import MAX_BYTES, DrillReport
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound

from comity_client.home import Home


def keep_drill(home: Home, report: DrillReport) -> None:
    """Keep a report in place of the one before. Raises OutOfSpace, Unavailable."""
    home.ensure(home.drills)
    durable.write_file(_path(home, report.service, report.kit_artifact), report.encode(), mode=0o600, point="drill")


def last_drill(home: Home, service: str, kit: Digest) -> DrillReport | None:
    """The newest drill in which a service was replaced by the kit with this digest. Raises Malformed, Unavailable."""
    try:
        return DrillReport.parse(read_bounded(_path(home, service, kit), MAX_BYTES))
    except NotFound:
        return None


def _path(home: Home, service: str, kit: Digest) -> Path:
    key = sha256(f"{service}\n{kit}\n".encode())
    return home.drills / f"{key}.json"
