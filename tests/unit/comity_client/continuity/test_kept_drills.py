"""The newest drill of a service and kit is kept in the user's home."""

from __future__ import annotations

from pathlib import Path

from comity_client.continuity.kept_drills import keep_drill, last_drill
from comity_client.home import Home
from support.drill_reports import a_drill_report, a_failed_drill_report


def test_the_newest_drill_of_a_service_and_kit_is_kept(tmp_path: Path) -> None:
    home, report = Home(tmp_path), a_drill_report()
    assert last_drill(home, "chat", report.kit_artifact) is None
    for each in (report, a_failed_drill_report()):
        keep_drill(home, each)
        assert last_drill(home, "chat", report.kit_artifact) == each
    assert last_drill(home, "search", report.kit_artifact) is None
