"""What `comity import` makes of URLs of upstreams, and of queued imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from comity.trust.errors import Malformed
from comity.wire.limits import UPSTREAM_TOKEN
from comity.wire.upstream import ORDER, ImportOrder, QueuedImport
from comity_cli.commands.import_ import UpstreamOptions, _of_url, command
from comity_client import own_node
from comity_client.client import Client
from comity_client.importing import read_token
from support.command_documents import faults
from support.run_command import printed, run, said

NONE = UpstreamOptions(endpoint="", hosts=(), terms=None, claimed="")


@pytest.mark.parametrize(
    ("url", "name", "endpoint"),
    [
        ("https://Models.example:8443/pub/tiny/", "https:models.example/tiny", "https://Models.example:8443/pub"),
        ("https://models.example/tiny@main", "https:models.example/tiny@main", "https://models.example"),
        ("s3://s3.example/bucket/lab/tiny", "s3:s3.example/tiny", "https://s3.example/bucket/lab"),
        ("oci://r.example/org/tiny@v1", "oci:r.example/tiny@v1", "https://r.example/org"),
        ("git+https://g.example/org/tiny.git@a/b", "git:g.example/tiny@a/b", "https://g.example/org"),
    ],
)
def test_a_url_gives_the_name_and_its_endpoint(url: str, name: str, endpoint: str) -> None:
    found, options = _of_url(url, NONE)
    assert (found, options.endpoint) == (name, endpoint)


@pytest.mark.parametrize("url", ["https://", "https:///x", "s3://[::1/x", "oci://h", "https://user@h/x"])
def test_a_url_without_a_host_and_a_name_is_refused(url: str) -> None:
    with pytest.raises(Malformed) as caught:
        _of_url(url, NONE)
    assert caught.value.code == "BAD-ENDPOINT"


def test_a_url_beside_an_endpoint_is_refused() -> None:
    with pytest.raises(click.UsageError):
        _of_url("https://a.example/tiny", UpstreamOptions("https://b.example", (), None, ""))


QUEUED = (
    QueuedImport("hf:org/a@main", "https://hub.example", (), "waiting", 1, 3, "the hub is down", 86_400, 5, 2_000_000),
    QueuedImport("hf:org/b@main", "https://hub.example", ("cdn.example",), "waiting", 2),
    QueuedImport(
        "hf:org/c@v1", "https://hub.example", (), "logged", 3, received=7, size=7, pinned=f"hf:org/c@{'6c' * 20}"
    ),
)


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the command asks of a node that has `QUEUED`."""
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(own_node, "own_socket", lambda node: Path("x.sock"))
    monkeypatch.setattr(Client, "queued_imports", lambda client, node: QUEUED)
    monkeypatch.setattr(Client, "decide_import", lambda client, name, node, **how: asked.append((name, how)))
    return asked


@pytest.mark.usefixtures("decided")
def test_the_queue_shows_states_bytes_next_tries_and_reasons() -> None:
    text = said(command, "--queued")
    assert "1970-01-02 00:00 UTC" in text
    assert "5 B of 2.0 MB" in text
    assert "not known now" in text
    assert "hf:org/a@main: the hub is down; failed tries since bytes arrived: 3" in text
    document = printed(command, "--queued")
    assert faults("import-queue", document) == []
    assert [item["state"] for item in document["imports"]] == ["waiting", "waiting", "logged"]


def test_an_import_is_queued_by_its_url_and_ended(decided: list[tuple[str, dict[str, Any]]]) -> None:
    said(command, "--queue", "git+https://g.example/org/tiny@v1", "--allow-host", "lfs.example")
    assert "comity import --queued --node 'a home'" in said(command, "--cancel", "hf:org/tiny", "--node", "a home")
    assert decided == [
        ("git:g.example/tiny@v1", {"endpoint": "https://g.example/org", "hosts": ("lfs.example",), "keep": True}),
        ("hf:org/tiny", {"endpoint": "", "hosts": (), "keep": False}),
    ]


@pytest.mark.parametrize("words", [(), ("--queue",), ("--queue", "."), ("--queue", "hf:a/b", "--recheck")])
def test_what_cannot_be_queued_is_refused(words: tuple[str, ...], decided: list[tuple[str, dict[str, Any]]]) -> None:
    assert run(command, *words).exit_code != 0
    assert decided == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a repository, a URL or a folder"),
        (("",), "nor a folder"),
        (("ftp://models.example/tiny",), "nor a folder"),
        (("no such folder",), "'no such folder' is neither"),
        (("--queued", "hf:a/b"), "--queued takes no source"),
        (("--queued", "--token-file", __file__), "no token"),
        (("--cancel", "."), "omit --queue and --cancel"),
        (("--recheck", "."), "a folder has no upstream"),
        (("hf:a/b", "--from", "hf:a/b@v1"), "--from is for a folder only"),
        (("--queued", "--from", "hf:a/b@v1"), "--from"),
        (("hf:a/b", "--allow-host", "https://cdn.example/"), "without https://"),
        (("hf:a/b", "--allow-host", "cdn.example other.example"), "--allow-host is HOST"),
    ],
)
def test_a_wrong_command_line_is_said_before_a_node_is_looked_for(words: tuple[str, ...], said: str) -> None:
    """Here is none: the answer was that, whatever else was wrong."""
    result = run(command, *words)
    assert isinstance(result.exception, click.UsageError)
    assert said in result.exception.message


def test_a_password_of_a_cloud_fits_and_what_no_call_carries_is_refused(tmp_path: Path) -> None:
    write_token(tmp_path / "token", 0o600)
    (tmp_path / "token").write_text(f"AWS:{'a' * 2_400}\n")
    order = ImportOrder("oci:a/b", token=read_token(tmp_path / "token"))
    assert ORDER.decode(ORDER.encode(order)).token == f"AWS:{'a' * 2_400}"
    (tmp_path / "token").write_text("a" * (UPSTREAM_TOKEN + 1))
    with pytest.raises(Malformed, match="no token"):
        read_token(tmp_path / "token")


def write_token(file: Path, mode: int) -> None:
    file.write_text("secret\n")
    file.chmod(mode)


def test_a_token_that_others_may_read_is_refused(tmp_path: Path, decided: list[tuple[str, dict[str, Any]]]) -> None:
    write_token(tmp_path / "token", 0o644)
    result = run(command, "hf:a/b", "--token-file", tmp_path / "token")
    assert "chmod 600" in getattr(result.exception, "hint", "")


def test_no_token_is_kept_for_a_queued_import(tmp_path: Path, decided: list[tuple[str, dict[str, Any]]]) -> None:
    write_token(tmp_path / "token", 0o600)
    result = run(command, "--queue", "hf:a/b", "--token-file", tmp_path / "token")
    assert "no token" in str(result.exception)
    assert decided == []
