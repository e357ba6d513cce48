"""A support bundle has what helps, and none of the secrets that the test put into the home and its log."""

from __future__ import annotations

import shutil
import stat
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from comity.content.gateway_tokens import TokenFile
from comity.node.maintenance.support_bundle import write_bundle
from comity.trust.errors import Conflict
from comity_cli.main import command
from support.federation import NodeHome, found

PASSWORD, S3_SECRET, S3_KEY, PIN = "tiger:in/the tank", "zK9+abcDEF/0123456789secret", "AKIAABCDEFGHIJKLMNOP", "428317"
CLIENT_SECRET = "lioness-of.the~provider"
HIDDEN = "x-plain-word-that-looks-like-nothing"


@pytest.fixture(scope="module", name="founded")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    (home, _) = found(tmp_path_factory.mktemp("founded"), 2)
    return home


@pytest.fixture(name="home")
def _home(tmp_path: Path, founded: NodeHome) -> NodeHome:
    shutil.copytree(founded.directory, tmp_path / "home")
    home = NodeHome(tmp_path / "home", founded.card)
    for name, text in {
        "pgpass": "db.example:5432:comity:comity:" + PASSWORD.replace(":", "\\:"),
        "s3.toml": f'access_key = "{S3_KEY}"\nsecret_key = "{S3_SECRET}"\n',
        "gateway-key.pem": f"-----BEGIN PRIVATE KEY-----\n{HIDDEN}\n-----END PRIVATE KEY-----\n",
        "offline/pin": PIN,
        "keys/provider": CLIENT_SECRET,
    }.items():
        (home.directory / name).write_text(text)
        (home.directory / name).chmod(0o600)
    (home.directory / "gateway.pem").write_text("no certificate")
    home.set("storage", database="postgresql://comity:tiger:in@db/comity?password=inline", password_file="pgpass")
    home.set("gateway", certificate="gateway.pem", key="gateway-key.pem")
    home.set("oidc", issuer="https://login.example", client_id="c", secret_file="keys/provider", operators=["o"])
    return home


def planted(home: NodeHome) -> list[str]:
    """Every secret that the home or its log holds, in each form in which it may appear."""
    token, _ = TokenFile(home.directory / "tokens.json").add("ci", ("*",), 1)
    keys = [path.read_text() for path in (home.directory / "keys").glob("*.pem")]
    keys += [path.read_text() for path in (home.directory / "offline").glob("*.pem")]
    lines = [line for key in keys for line in key.splitlines() if len(line) > 5 and line[0] != "-"]
    return [token, PASSWORD, "tiger:in", "inline", S3_SECRET, S3_KEY, HIDDEN, PIN, CLIENT_SECRET, *lines]


def log_of(secrets: list[str]) -> str:
    lines = [f'{{"event":"step failed","why":"{secret}"}}\n' for secret in secrets]
    return "".join(lines) + (
        "GET /blob?X-Amz-Signature=deadbeefdeadbeef&X-Amz-Expires=600\n"
        "Authorization: Basic bWU6dGlnZXI=\n"
        '"authorization": "Bearer abcdef.123456"\n'
        "https://me:swordfish@proxy.example/\n"
        "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIcutoff"
    )


def texts(bundle: Path) -> dict[str, str]:
    with tarfile.open(bundle) as archive:
        return {
            member.name.removeprefix("comity-support/"): archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
        }


def test_no_planted_secret_is_in_a_bundle(tmp_path: Path, home: NodeHome) -> None:
    secrets = planted(home)
    assert len(secrets) > 20
    (tmp_path / "node.log").write_text(log_of(secrets) + "\n")
    write_bundle(home.directory, tmp_path / "b.tar.gz", clock=lambda: 1, log=tmp_path / "node.log", environ={})
    everything = "\n".join(texts(tmp_path / "b.tar.gz").values())
    more = ["deadbeef", "bWU6dGlnZXI", "abcdef.123456", "swordfish", "MHcCAQEEIcutoff"]
    assert [secret for secret in (*secrets, *more) if secret in everything] == []
    assert "step failed" in everything and "db.example" not in texts(tmp_path / "b.tar.gz")["files.txt"]


def test_a_secret_in_s3_credentials_is_cut_out_in_every_form(tmp_path: Path, home: NodeHome) -> None:
    settings = home.directory / "node.toml"
    bucket = 'endpoint = "https://s3.example"\nbucket = "b"\ncredentials_file = "s3.toml"\n'
    settings.write_text(settings.read_text() + f"[storage.s3]\n{bucket}")
    (tmp_path / "node.log").write_text(f"{S3_SECRET}\nzK9%2BabcDEF%2F0123456789secret\n")
    write_bundle(home.directory, tmp_path / "b.tar.gz", clock=lambda: 1, log=tmp_path / "node.log", environ={})
    assert "0123456789secret" not in texts(tmp_path / "b.tar.gz")["log.txt"]


def test_a_bundle_has_findings_settings_versions_and_names(tmp_path: Path, home: NodeHome) -> None:
    bundle = tmp_path / "b.tar.gz"
    made = write_bundle(home.directory, bundle, clock=lambda: 1, environ={})
    assert set(texts(bundle)) == {"README.txt", "doctor.json", "files.txt", "settings.json", "versions.json"}
    assert texts(bundle) == dict(made.texts)
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert "keys/log.pem" in texts(bundle)["files.txt"]
    with pytest.raises(Conflict):
        write_bundle(home.directory, bundle, clock=lambda: 1, environ={})


def test_settings_that_cannot_be_read_do_not_stop_a_bundle(tmp_path: Path, home: NodeHome) -> None:
    (home.directory / "node.toml").write_text(f"password = '{HIDDEN}'\n[node\n")
    ran = CliRunner().invoke(
        command,
        ["support-bundle", "--node", str(home.directory), "--out", str(tmp_path / "b.tar.gz"), "--json"],
        catch_exceptions=False,
        standalone_mode=False,
    )
    assert ran.exit_code == 0
    found = texts(tmp_path / "b.tar.gz")
    assert "CONFIG" in found["settings.json"]
    assert HIDDEN not in "".join(found.values())
