"""Every error code has an explanation, and every explanation a code."""

from __future__ import annotations

import json
import re

import comity.addons  # noqa: F401  # texts name commands of add-ons
import pytest
from comity_cli.commands.explain import explanations
from comity_cli.main import main
from support import command_lines, error_codes


def test_every_code_that_the_source_can_raise_is_explained() -> None:
    unexplained = {code: where for code, where in error_codes.source().raised.items() if code not in explanations()}
    assert unexplained == {}


def test_no_explanation_outlives_its_code() -> None:
    assert set(explanations()) - error_codes.source().raised.keys() == set()


def test_codes_are_written_out_where_they_are_raised() -> None:
    passing_on = {  # texts of a peer, a process or an earlier step
        "registry/comity/gateway/hub/read_through.py",
        "registry/comity/node/own_log.py",
        "registry/comity/upstream/guarded.py",
        "clients/comity_cli/lab/demo_steps.py",
    }
    assert error_codes.source().computed <= passing_on


def test_an_explanation_is_sentences_and_names_commands_that_exist() -> None:
    """One test for hundreds of codes: each alone takes a tenth of a millisecond."""
    assert explanations()
    for code, entry in explanations().items():
        assert re.fullmatch(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)*", code)
        for text in (entry.means, entry.do):
            assert text == text.strip() and text.endswith(".") and "|" not in text, (code, text)
            for words in command_lines.mentioned(text):
                assert command_lines.exists(words), (code, text)


def test_explain_prints_an_entry_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "[inclusion]"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert printed.startswith("INCLUSION")
    assert explanations()["INCLUSION"].do in printed


def test_explain_prints_one_document_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "INCLUSION", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "comity.dev/explanation/v1"
    assert (document["code"], document["means"]) == ("INCLUSION", explanations()["INCLUSION"].means)


def test_explain_guesses_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "inclsion"])
    assert ended.value.code == 2
    assert "Did you mean INCLUSION" in capsys.readouterr().err


def test_explain_lists_all_codes_without_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "--json"])
    assert set(json.loads(capsys.readouterr().out)["codes"]) == set(explanations())
