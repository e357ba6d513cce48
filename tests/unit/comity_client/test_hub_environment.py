"""`comity env` and `comity run-with`: which endpoint and which variables they print, without any secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable
from comity_cli.main import command
from comity_client.hub_environment import endpoint_for_other_machines, endpoint_of, hub_environment, offline_environment
from support.ports import free_port

SECRET = "hf_" + "x" * 40


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "it's a token"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


def home(folder: Path, **gateway: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in gateway.items()]
    (folder / "node.toml").write_text("\n".join(["[gateway]", *lines]) + "\n")
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def raised(*arguments: str) -> ComityError:
    error = run(*arguments).exception
    assert isinstance(error, ComityError)
    return error


@pytest.mark.parametrize(
    ("gateway", "url"),
    [
        ({"http": "127.0.0.1:7480"}, "http://127.0.0.1:7480"),
        ({"http": "0.0.0.0:80"}, "http://127.0.0.1:80"),
        ({"http": "[::]:80"}, "http://[::1]:80"),
        ({"http": "127.0.0.1:443", "certificate": "a.crt", "key": "a.key"}, "https://127.0.0.1:443"),
        ({"http": "127.0.0.1:7480", "url": "https://models.example.org/hub"}, "https://models.example.org/hub"),
    ],
    ids=["loopback", "any address", "any IPv6 address", "TLS", "behind a proxy"],
)
def test_a_home_says_where_its_gateway_is(tmp_path: Path, gateway: dict[str, str], url: str) -> None:
    assert endpoint_of(home(tmp_path / "node", **gateway), {}) == url


def test_the_environment_overrides_node_toml_as_for_the_node(tmp_path: Path) -> None:
    node = home(tmp_path / "node", http="127.0.0.1:1")
    assert endpoint_of(node, {"COMITY_GATEWAY_HTTP": "127.0.0.1:2"}) == "http://127.0.0.1:2"


@pytest.mark.parametrize(
    ("gateway", "url"),
    [
        ({"http": "192.0.2.1:7480"}, "http://192.0.2.1:7480"),
        ({"http": "127.0.0.1:7480"}, ""),
        ({"http": "0.0.0.0:7480"}, ""),
        ({"http": "0.0.0.0:7480", "url": "https://models.example.org"}, "https://models.example.org"),
        ({"http": "127.0.0.1:7480", "url": "http://127.0.0.1:7480"}, "http://127.0.0.1:7480"),
    ],
    ids=["an address", "loopback", "any address", "behind a proxy", "as the operator wants it"],
)
def test_a_loopback_address_is_not_given_to_other_machines(tmp_path: Path, gateway: dict[str, str], url: str) -> None:
    assert endpoint_for_other_machines(home(tmp_path / "node", **gateway), {}) == url


@pytest.mark.parametrize("http", ["", "127.0.0.1:0"])
def test_a_home_whose_gateway_has_no_address_says_so(tmp_path: Path, http: str) -> None:
    with pytest.raises(NotFound) as refused:
        endpoint_of(home(tmp_path / "node", http=http), {})
    assert refused.value.code == "NO-GATEWAY"


@pytest.mark.parametrize("url", ["ftp://host", "models.example.org", "http://", "http://[::1", "http://host:99999"])
def test_a_url_that_is_not_http_is_no_gateway(url: str) -> None:
    with pytest.raises(Malformed):
        hub_environment(url)


def test_a_password_in_a_url_is_refused_and_is_in_no_variable() -> None:
    assert raised("env", "--url", f"https://user:{SECRET}@models.example.org").code == "GATEWAY-URL"


def test_no_token_of_the_users_reaches_the_node_unless_it_is_named() -> None:
    before = {"HF_TOKEN": SECRET, "HUGGING_FACE_HUB_TOKEN": SECRET, "HF_TOKEN_PATH": "/elsewhere", "PATH": "/bin"}
    after = hub_environment("http://127.0.0.1:7480/").applied(before)
    assert after["HF_ENDPOINT"] == "http://127.0.0.1:7480"
    assert after["HF_HUB_DISABLE_IMPLICIT_TOKEN"] == "1"
    assert after["PATH"] == "/bin"
    assert not {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"} & after.keys()


def test_a_token_is_named_by_its_file_and_is_in_no_variable(token: Path) -> None:
    before = {"HF_TOKEN": "hf_other", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    after = hub_environment("http://127.0.0.1:7480", token_file=token).applied(before)
    assert after["HF_TOKEN_PATH"] == str(token)
    assert "HF_TOKEN" not in after
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" not in after
    assert SECRET not in "".join(after.values())


def test_a_token_that_others_can_read_is_refused(token: Path) -> None:
    token.chmod(0o644)
    with pytest.raises(Refused) as refused:
        hub_environment("http://127.0.0.1:7480", token_file=token)
    assert refused.value.code == "SECRET-EXPOSED"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_that_evaluates_what_env_prints_has_the_environment(tmp_path: Path, token: Path, shell: str) -> None:
    ran = run("env", "--dir", str(home(tmp_path / "node", http="127.0.0.1:7480")), "--token-file", str(token))
    script = f"{ran.output}\nexec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    shown = subprocess.run(
        [shell, "-c", script], env={"HF_TOKEN": "hf_other"}, capture_output=True, text=True, check=True
    )
    seen = json.loads(shown.stdout)
    assert seen["HF_ENDPOINT"] == "http://127.0.0.1:7480"
    assert seen["HF_TOKEN_PATH"] == str(token)
    assert "HF_TOKEN" not in seen


def test_fish_gets_its_own_syntax(token: Path) -> None:
    lines = run("env", "--url", "http://127.0.0.1:7480", "--token-file", str(token), "--shell", "fish").output
    quoted = str(token).replace("'", "\\'")
    assert f"set -gx HF_TOKEN_PATH '{quoted}'\n" in lines
    assert "set -e HF_TOKEN HUGGING_FACE_HUB_TOKEN MODEL_ENDPOINT HF_HUB_DISABLE_IMPLICIT_TOKEN\n" in lines


def test_json_has_the_set_and_the_unset_variables(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("certificates\n")
    document = json.loads(run("env", "--url", "https://models.example.org", "--ca", str(authority), "--json").output)
    assert document["schema"] == "comity.dev/environment/v1"
    assert document["endpoint"] == {"url": "https://models.example.org", "basis": "given", "node": ""}
    assert document["set"]["SSL_CERT_FILE"] == document["set"]["REQUESTS_CA_BUNDLE"] == str(authority)
    assert "HF_TOKEN" in document["unset"]


def test_a_node_of_a_lab_is_chosen_by_name(tmp_path: Path) -> None:
    home(tmp_path / "node-ch", http="127.0.0.1:1")
    home(tmp_path / "node-es", http="127.0.0.1:2")
    asked = ["env", "--dir", str(tmp_path), "--json"]
    assert json.loads(run(*asked).output)["set"]["HF_ENDPOINT"] == "http://127.0.0.1:1"
    assert json.loads(run(*asked, "--node", "node-es").output)["set"]["HF_ENDPOINT"] == "http://127.0.0.1:2"
    assert raised(*asked, "--node", "node-xx").code == "NO-GATEWAY"


def test_a_folder_without_a_node_is_no_gateway(tmp_path: Path) -> None:
    assert raised("env", "--dir", str(tmp_path)).code == "NO-GATEWAY"


def started(arguments: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    own = [sys.executable, "-m", "comity_cli.main", "run-with", *arguments]
    return subprocess.run(own, env={**os.environ, **environ}, capture_output=True, text=True, check=False)


SHOW = ["--", sys.executable, "-c", "import json, os, sys; print(json.dumps(dict(os.environ))); sys.exit(41)", "--json"]


def test_run_with_is_replaced_by_the_program_and_has_its_exit_status() -> None:
    ran = started(["--offline", *SHOW], HF_TOKEN="hf_other")
    assert ran.returncode == 41
    seen = json.loads(ran.stdout)
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in seen


def test_run_with_checks_first_whether_the_gateway_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    error = raised("run-with", "--url", f"http://127.0.0.1:{free_port()}", "--", "true")
    assert isinstance(error, Unavailable)
    assert error.code == "UNREACHABLE"


def test_a_user_in_offline_mode_stays_offline_and_gets_a_note() -> None:
    ran = started(["--url", f"http://127.0.0.1:{free_port()}", *SHOW], HF_HUB_OFFLINE="1")
    assert json.loads(ran.stdout)["HF_HUB_OFFLINE"] == "1"
    assert "ask no node" in ran.stderr


def test_a_program_that_is_not_there_is_a_clear_error_and_changes_nothing_here() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)]
    error = raised("run-with", "--offline", "--", "no-such-program")
    assert isinstance(error, NotFound)
    assert [signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)] == before


def test_a_broken_pipe_ends_the_program_as_without_run_with() -> None:
    endless = "while :; do echo y; done"
    own = [sys.executable, "-m", "comity_cli.main", "run-with", "--offline", "--", "sh", "-c", endless]
    with subprocess.Popen(own, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(timeout=60) == -signal.SIGPIPE


def test_offline_asks_no_node_and_keeps_the_cache_folder() -> None:
    after = offline_environment().applied({"HF_HOME": "/models", "HF_TOKEN_PATH": "/secret"})
    assert after["HF_HOME"] == "/models"
    assert "HF_TOKEN_PATH" not in after


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_a_gateway_on_this_machine_is_asked_without_the_proxy_of_the_environment(name: str) -> None:
    proxy = {name: "http://proxy.example:3128"}
    here = hub_environment("http://127.0.0.1:7480", environ=proxy)
    assert here.set["NO_PROXY"] == here.set["no_proxy"] == "127.0.0.1"
    more = hub_environment("http://127.0.0.1:7480", environ={**proxy, "no_proxy": "intranet.example"})
    assert more.set["NO_PROXY"] == "intranet.example,127.0.0.1"
    assert "NO_PROXY" not in hub_environment("http://127.0.0.1:7480", environ={}).set
    assert "NO_PROXY" not in hub_environment("https://models.example.org", environ=proxy).set


def test_of_a_gateway_elsewhere_behind_a_proxy_the_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://models.example.org"
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert "https_proxy is set" in run("env", "--node", url).stderr
    assert "export NO_PROXY=models.example.org" in run("env", "--node", url).stderr
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    assert "proxy" not in run("env", "--node", url).stderr
