"""Statements of a grantee about a grant, without a node: shown, signed and carried. A command signs nothing about the
grant of another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.content.secrets import write_keys
from comity.rules.offers.amounts import Usage
from comity.rules.offers.offer import Window
from comity.rules.offers.records import Redeemed, Redemption
from comity.rules.signing import statement_of
from comity.trust.errors import ComityError, NotFound, Refused
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.home import Home
from comity_client.offers.bundle import OfferBundle
from comity_client.trust_store import TrustStore
from support.fair import Stall
from support.offers import HOUR, START, to
from support.world import Identity, seat

LOADED = "comity grant load said --node HOME"
SAYABLE: Mapping[str, tuple[str, str]] = {
    "grant accept GRANT": ("accepts:", LOADED),
    "grant redeem GRANT --amount 3": ("redeems:", "comity grant hand-over said --node HOME --into ./hand-off"),
    "grant release GRANT": ("releases:", LOADED),
    "grant default GRANT --text no": (
        "states that this was not honoured:",
        "comity grant answer said --text TEXT --node HOME",
    ),
    "grant agree USAGE": ("agrees to have used:", LOADED),
    "pact declare PACT --text cut": ("declares itself cut off:", LOADED),
}
"""The statements about accepted grants: the texts that are shown of each, and what the other side does with
the bundle.
"""


@dataclass(frozen=True)
class Table:
    """A grant, a pact and a usage of Barcelona, in a file that was carried here; `names` are theirs."""

    folder: Path
    stall: Stall
    names: Mapping[str, str]

    def run(self, text: str, *more: str, who: Identity | None = None) -> Result:
        """Run a command of the grantee, or of another identity, over the carried bundle; it would write the bundle
        `said`.
        """
        words = [self.names.get(word, word) for word in text.split()]
        told = ("--offline", "--from", "chain", "--dir", str(self._home(who or self.stall.customer)), "--out", "said")
        return CliRunner(env={"COMITY_HOME": str(self.folder / "owner"), "COLUMNS": "200"}).invoke(
            command, [*words, *told, *more], obj=Output(), input="y\n"
        )

    def refusal(self, text: str, who: Identity | None = None) -> ComityError:
        error = self.run(text, "--yes", who=who).exception
        assert isinstance(error, ComityError), error
        assert not (self.folder / "said").exists()
        return error

    def _home(self, who: Identity) -> Path:
        home = self.folder / who.id[:8]
        if not home.exists():
            (home / "offline").mkdir(parents=True)
            (home / "inception.line").write_bytes(who.entry.line + b"\n")
            write_keys(home / "offline" / "governance.pem", who.signer.keys)
        return home


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.chdir(tmp_path)
    stall = Stall()
    TrustStore(Home(tmp_path / "owner").ensure(tmp_path / "owner" / "trust")).pin(stall.federation.encode())
    chain = stall.post()
    grant, pact = stall.grant(chain), stall.grant(chain, pact=True)
    for each in (grant, pact):
        stall.accept(chain, each)
    used = Usage(chain, grant.digest, Window(START, START + HOUR), (5,))
    usage = stall.sign(statement_of(used, stall.provider.record.node))
    stall.bundle().write(tmp_path / "chain")
    names = {"GRANT": grant.digest[:12], "PACT": pact.digest[:12], "USAGE": usage.digest[:12]}
    return Table(tmp_path, stall, names)


def test_each_statement_is_shown_before_it_is_signed_and_goes_into_an_offer_bundle(table: Table) -> None:
    for text, (title, following) in SAYABLE.items():
        shown = table.run(text)
        assert shown.exit_code == 0, (text, shown.output, shown.exception)
        for words in (f"Institute ES {title}", "lent by      Institute CH (CH)", "to           Institute ES (ES)"):
            assert words in shown.output.partition("Sign this?")[0], (text, shown.output)
        assert f"Next: the other side: {following}" in shown.output
        assert len(OfferBundle.read(table.folder / "said").unplaced) == 2  # who signs, and what is signed


def test_json_output_has_the_line_and_the_next_command(table: Table) -> None:
    told = json.loads(table.run("grant redeem GRANT", "--yes", "--json").output)
    assert OfferBundle.read(table.folder / "said").find(told["line"]) is not None
    assert (told["by"], told["next"]) == (table.stall.customer.id, SAYABLE["grant redeem GRANT --amount 3"][1])


def test_a_list_names_the_next_step(table: Table) -> None:
    stall = table.stall
    ((chain, known),) = stall.read.chains.items()
    granted = next(iter(known.state.grants.values()))
    said = stall.say(Redemption(stall.customer.id, chain, granted.digest, (8,), granted.newest))
    stall.record(Redeemed(to(chain), granted.digest, said.digest, (8,)))
    stall.bundle().write(table.folder / "used")
    shown = CliRunner(env={"COMITY_HOME": str(table.folder / "owner")}).invoke(
        command, ["grant", "ls", "--offline", "--from", "used"], obj=Output()
    )
    hints = [line for line in shown.output.splitlines() if line.startswith("Next:")]
    assert hints == [f"Next: comity pact declare {table.names['PACT']} --node HOME"], shown.output


def test_no_identity_signs_for_another(table: Table) -> None:
    for text in SAYABLE:
        error = table.refusal(text, who=seat("KR"))
        assert (type(error), error.code) == (Refused, "NOT-YOURS"), text


def test_a_statement_beyond_the_grant_is_not_signed(table: Table) -> None:
    assert table.refusal("grant redeem GRANT --amount 9").code == "OVER-REDEEMED"
    assert table.refusal("pact declare GRANT --text cut").code == "NOT-A-PACT"
    table.stall.bundle(proven=False).write(table.folder / "chain")
    assert table.refusal("grant accept GRANT").code == table.refusal("grant redeem GRANT").code != "FAILED"


def test_an_offer_bundle_without_lines_to_log_is_not_reported_as_logged(table: Table) -> None:
    ran = CliRunner().invoke(command, ["grant", "load", "chain", "--dir", "."], obj=Output())
    assert isinstance(ran.exception, NotFound)
    assert ran.exception.code == "NOTHING-TO-LOG"
