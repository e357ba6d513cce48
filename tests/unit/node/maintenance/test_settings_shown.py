"""`config check` and `config show --origin`: every problem with its line, every value with its source, no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from comity.node import config
from comity.node.config import NodeConfig, setting_lines
from comity.node.maintenance.settings_shown import redacted, setting_problems, shown_settings
from comity.trust.errors import Malformed
from comity_cli.main import command

LEAST = """\
# a node
[node]
name = "node-a.example"

[listen]
mutual = "127.0.0.1:7443"
open = "[::1]:7444"
"""


def home(folder: Path, more: str = "") -> Path:
    file = folder / "node.toml"
    file.write_text(LEAST + more)
    return file


def origins(file: Path, environ: dict[str, str]) -> dict[str, str]:
    return {setting.name: str(setting.origin) for setting in shown_settings(file, environ)}


def test_every_value_has_its_source(tmp_path: Path) -> None:
    file = home(tmp_path, "[limits]\nupload_bytes = 5\n")
    found = origins(file, {"COMITY_REPLICATION_MIRROR": "none"})
    assert found["node.name"] == f"{file}:3"
    assert found["listen.open"] == f"{file}:7"
    assert found["limits.upload_bytes"] == f"{file}:9"
    assert found["replication.mirror"] == "the variable COMITY_REPLICATION_MIRROR in the environment"
    assert found["storage.blobs"] == "default"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[a]\nx = 1\n[a.b]\n\ny = 2", {"a": 1, "a.x": 2, "a.b": 3, "a.b.y": 5}),
        ('a.x = 1\na . "y" = 2\n', {"a.x": 1, "a.y": 2}),
        ("[a]\nx = [\n 1,\n # ]\n 2]\ny = 3\n", {"a": 1, "a.x": 2, "a.y": 6}),
        ("[a]\nx = '''\ny = 5\n[b]\n'''\ny = 3\n", {"a": 1, "a.x": 2, "a.y": 6}),
        ("a = {x = 1, y = {z = 2}}\n", {"a.x": 1, "a.y.z": 1}),
        ("", {}),
    ],
)
def test_lines_are_those_that_the_parser_reads(text: str, lines: dict[str, int]) -> None:
    assert setting_lines(text) == lines


def test_a_statement_without_an_end_in_sight_costs_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "MAX_STATEMENT_LINES", 50)
    text = "[a]\nx = [\n" + "1,\n" * (2 * 50) + "]\ny = 1\n"
    assert setting_lines(text) == {"a": 1}


def test_all_problems_are_listed_each_with_its_line(tmp_path: Path) -> None:
    file = home(tmp_path, "[limits]\nupload_bytes = 0\n[audits]\npieces = 0\n")
    problems = setting_problems(file, {"COMITY_GATEWAY_COLD": "hot"})
    assert [str(problem).partition(" is not usable")[0] for problem in problems] == [
        "setting 'gateway.cold'", "setting 'limits.upload_bytes'", "setting 'audits.pieces'"
    ]  # fmt: skip
    places = [problem.why.rpartition(", in ")[2] for problem in problems]
    assert places == ["the variable COMITY_GATEWAY_COLD in the environment", f"{file}:9", f"{file}:11"]


def test_a_refused_start_names_the_variable_that_is_wrong_not_the_file(tmp_path: Path) -> None:
    with pytest.raises(Malformed) as refused:
        NodeConfig.load(home(tmp_path), {"COMITY_LISTEN_OPEN": "everywhere"})
    assert "the variable COMITY_LISTEN_OPEN" in refused.value.why
    assert "node.toml" not in refused.value.why


def test_all_unknown_settings_are_listed(tmp_path: Path) -> None:
    file = home(tmp_path, "[limits]\nuploadbytes = 0\n[audit]\npieces = 1\n")
    assert [problem.why for problem in setting_problems(file, {})] == [f"in {file}:9", f"in {file}:10"]


def test_files_that_settings_name_are_read(tmp_path: Path) -> None:
    (tmp_path / "pgpass").write_text("db:5432:comity:comity:tiger")
    (tmp_path / "pgpass").chmod(0o644)
    (tmp_path / "policy.toml").write_text("this is no policy")
    file = home(tmp_path, '[storage]\npassword_file = "pgpass"\n[gateway]\npolicy = "policy.toml"\n')
    assert {problem.code for problem in setting_problems(file, {})} == {"SECRET-EXPOSED", "POLICY-SYNTAX"}
    assert not any("tiger" in str(problem) for problem in setting_problems(file, {}))


def test_invalid_and_missing_rule_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "retention.toml").write_text("keep = 7\n")
    file = home(tmp_path, '[replication]\nrules = "mirror.toml"\n[retention]\nrules = "retention.toml"\n')
    assert {problem.code for problem in setting_problems(file, {})} == {"NOT-FOUND", "RETENTION-RULES"}


def test_correct_settings_have_no_problem(tmp_path: Path) -> None:
    assert setting_problems(home(tmp_path), {}) == ()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://comity:tiger@db.example/comity",
        "postgresql:///comity?password=tiger&sslmode=require",
        "host=db user=comity password='tiger' dbname=comity",
        "witness https://me:tiger@witness.example/x",
        "https://hub.example/?access_token=tiger",
    ],
)
def test_a_password_in_a_url_is_cut_out(text: str) -> None:
    assert "tiger" not in redacted(text)
    assert "example" in redacted(text) or "comity" in redacted(text)


def test_a_secret_is_shown_as_the_file_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "pgpass").write_text("db:5432:comity:comity:tiger")
    more = '[storage]\ndatabase = "postgresql://comity:tiger@db/comity"\npassword_file = "pgpass"\n'
    (tmp_path / "client").write_text("lioness")
    more += '[oidc]\nissuer = "https://a.example"\nclient_id = "c"\nsecret_file = "client"\noperators = ["o"]\n'
    home(tmp_path, more)
    for flags in ([], ["--json"], ["--origin"]):
        ran = CliRunner().invoke(command, ["config", "show", "--node", str(tmp_path), *flags])
        assert ran.exit_code == 0, ran.output
        assert "tiger" not in ran.output and "lioness" not in ran.output
        assert f"set, from {tmp_path / 'client'}" in ran.output
        assert f"set, from {tmp_path / 'pgpass'}" in ran.output


def test_the_check_exits_with_2_if_there_is_a_problem(tmp_path: Path) -> None:
    home(tmp_path, "[limits]\nupload_bytes = 0\n")
    ran = CliRunner().invoke(command, ["config", "check", "--node", str(tmp_path), "--json"], standalone_mode=False)
    assert ran.return_value == 2
    (problem,) = json.loads(ran.output)["problems"]
    assert problem["code"] == "CONFIG"
    home(tmp_path)
    ran = CliRunner().invoke(command, ["config", "check", "--node", str(tmp_path)], standalone_mode=False)
    assert ran.return_value == 0
    assert "usable" in ran.output
