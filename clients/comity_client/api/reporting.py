"""What is in an artifact, written down: looks into its files, bills of material, signed reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from comity.trust.digest import sha256
from comity.trust.policy import Policy, SafetyRule
from comity.trust.report import Report
from comity.trust.statement import Entry

from comity_client import bom
from comity_client.api.base import workers
from comity_client.api.descending import Descending
from comity_client.api.looking import Looking
from comity_client.events import OnEvent, ignore
from comity_client.owner.publishers import Publisher
from comity_client.publishing.publish import (
    Receipt,
    publish_statement,
)
from comity_client.pulling.held import folder_of
from comity_client.reports.signed import read_signed, sign_report
from comity_client.reports.signers import CheckedReport, check_signer
from comity_client.scanning.census import Census, take_census
from comity_client.scanning.pickles import PickleScan, scan_pickles


class Reporting(Descending, Looking):
    """What is in an artifact, written down: looks into its files, bills of material, signed reports."""

    def scan(self, what: Path | str, *, policy: Policy | None = None, hub_cache: Path | None = None) -> Census:
        """Look into the files of any folder, or of what a reference was pulled to; nothing is loaded or hashed. Without
        a policy the default one says what is refused. Raises NotFound, Unavailable, Malformed."""
        rule = policy.safety if policy else SafetyRule()
        return take_census(folder_of(what, hub_cache), rule, workers=workers())

    def scan_pickles(self, census: Census) -> PickleScan:
        """What picklescan says of the files that it may know something about. Raises as `scan_pickles` does."""
        return scan_pickles(census.folder, [each.file.path for each in census.files if each.may_hold_pickles])

    def bom(self, what: Path | str, *, on_hashed: Callable[[int], None] | None = None) -> str:
        """A CycloneDX ML-BOM of a folder, hashed now, or of what a reference stands for at the nodes. Raises as `held`
        and `show` do."""
        if isinstance(what, Path):
            here = self.held(what, on_hashed=on_hashed)
            return bom.bill(bom.of_folder(here, self.policy()))
        return bom.bill(bom.of_dossier(self.show(what)))

    def sign_report(self, report: Report, publisher: Publisher) -> Entry:
        """`publisher` says that they came to this report now. Raises as `reports.signed.sign_report` does."""
        return sign_report(report, publisher, int(time.time()))

    def log_report(
        self,
        report: Report,
        entry: Entry,
        publisher: Publisher,
        *,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore,
    ) -> Receipt:
        """Log what `sign_report` gave, the report with it. Raises as `publish` does."""
        data, title = report.encode(), report.verdict.name or f"sha256:{entry.statement.subject}"
        where = nodes or [publisher.home]
        return self._with(
            lambda session: publish_statement(
                session, self._memory(), title, entry, {sha256(data): data}, publisher, where, on_event=on_event
            ),
            on_event,
        )

    def check_report(self, path: Path, *, by: str = "") -> CheckedReport:
        """The report in a file and the signature beside it, which holds and is of somebody whom this user knows, or of
        `by`. Uses no network. Raises as `reports.signed.read_signed` and `reports.signers.check_signer` do."""
        trust = self._trust()
        return check_signer(read_signed(path), by, self.publishers(), list(trust.pins()), trust.bindings())
