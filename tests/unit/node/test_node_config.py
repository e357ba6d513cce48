"""The settings that an operator writes, and the values that a node reads from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comity.node.config import NodeConfig
from comity.trust.errors import Malformed, NotFound

LEAST = """\
[node]
name = "node-a.example"
[listen]
mutual = "127.0.0.1:7443"
open = "[::1]:7444"
"""


def load(folder: Path, text: str = LEAST, **given: Any) -> NodeConfig:
    (folder / "node.toml").write_text(text)
    return NodeConfig.load(folder / "node.toml", **{"environ": {}, **given})


def test_settings_have_defaults_and_every_path_is_absolute(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.keys == tmp_path / "keys"
    assert config.storage.blobs == tmp_path / "data/blobs"
    assert config.storage.ledger == tmp_path / "data/ledger.sqlite"
    assert config.listen.operator == tmp_path / "operator.sock"
    assert config.federation.file == tmp_path / "federation.json"
    assert config.publishing.accept == "none"


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = LEAST + "[replication]\ninterval_seconds = 1.0\n"
    environ = {"COMITY_REPLICATION_INTERVAL_SECONDS": "2.0", "COMITY_HOME": "/elsewhere"}
    assert load(tmp_path, text).replication.interval_seconds == 1.0
    assert load(tmp_path, text, environ=environ).replication.interval_seconds == 2.0
    flags = {"replication.interval_seconds": "3.0"}
    assert load(tmp_path, text, environ=environ, flags=flags).replication.interval_seconds == 3.0


def test_lists_in_the_environment_have_commas(tmp_path: Path) -> None:
    environ = {
        "COMITY_REPLICATION_MIRROR": "swiss-ai/*, hf/model",
        "COMITY_ADVERTISE_OPEN": "a.example:7444,b.example:7444",
        "COMITY_PUBLISHING_ACCEPT": "any",
    }
    config = load(tmp_path, environ=environ)
    assert config.replication.mirror == ("swiss-ai/*", "hf/model")
    assert config.advertise.open == ("a.example:7444", "b.example:7444")
    assert config.publishing.accept == "any"


@pytest.mark.parametrize(
    ("mirror", "wanted"),
    (('"all"', True), ('"none"', False), ('["swiss-ai/*"]', True), ('["swiss-ai/other"]', False), ('["x/*"]', False)),
)
def test_patterns_decide_what_is_copied(tmp_path: Path, mirror: str, wanted: bool) -> None:
    config = load(tmp_path, LEAST + f"[replication]\nmirror = {mirror}\n")
    assert config.replication.wants("swiss-ai/apertus-8b") is wanted


@pytest.mark.parametrize(
    ("more", "meant"),
    (
        ("[listen2]\nmutual = 'x'\n", "'listen'"),
        ("[limits]\nentries_per_orign = 5\n", "limits.entries_per_origin"),
        ("[storage.s3]\nbuckett = 'x'\n", "storage.s3.bucket"),
    ),
)
def test_an_unknown_key_is_an_error_with_a_guess(tmp_path: Path, more: str, meant: str) -> None:
    with pytest.raises(Malformed) as refused:
        load(tmp_path, LEAST + more)
    assert refused.value.code == "CONFIG-UNKNOWN-KEY"
    assert meant in refused.value.hint


@pytest.mark.parametrize(
    ("name", "meant"),
    (
        ("COMITY_GATEWAY_HTPP", "COMITY_GATEWAY_HTTP"),
        ("COMITY_GATWAY_HTTP", "COMITY_GATEWAY_HTTP"),
        ("COMITY_STORAGE_S3_BUCKETT", "COMITY_STORAGE_S3_BUCKET"),
        ("COMITY_NODE_TEMPERATURE", "docs/operations/settings.md"),
    ),
)
def test_an_unknown_variable_is_an_error_with_a_guess(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(Malformed) as refused:
        load(tmp_path, environ={name: "1"})
    assert refused.value.code == "CONFIG-UNKNOWN-KEY"
    assert name in refused.value.what
    assert meant in refused.value.hint


@pytest.mark.parametrize(
    "name",
    (
        "COMITY_HOME",
        "COMITY_FAULT_LOG",
        "COMITY_TESTS_REQUIRE_ALL",
        "COMITY_GRANT",
        "COMITY_GATEWAY_SERVICE_HOST",
        "COMITY_GATEWAY_SERVICE_PORT_HTTP",
        "COMITY_GATEWAY_PORT",
        "COMITY_GATEWAY_PORT_7480_TCP_ADDR",
        "COMITY_NODE_PORT_7443_TCP",
        "OTHER_GATEWAY_HTPP",
    ),
)
def test_variables_that_are_no_settings_are_ignored(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, environ={name: "1"}) == load(tmp_path)


@pytest.mark.parametrize(
    ("text", "where"),
    (
        (LEAST.replace('"127.0.0.1:7443"', '"example.org:7443"'), "listen.mutual"),
        (LEAST.replace(":7444", ":74440"), "listen.open"),
        (LEAST.replace('name = "node-a.example"', ""), "node.name"),
        (LEAST + "[replication]\ninterval_seconds = 0\n", "replication.interval_seconds"),
        (LEAST + "[publishing]\naccept = ['me']\n", "publishing.accept"),
        (LEAST + "[advertise]\nopen = ['unix:/x']\n", "advertise.open"),
        (LEAST + "[upstream]\nallow = ['gpt2']\n", "upstream.allow"),
        (LEAST + "[upstream]\nendpoint = ''\n", "upstream.endpoint"),
        (LEAST + "[upstream]\nendpoint = 'https://me@hub.example'\n", "upstream.endpoint"),
        (LEAST + "[gateway]\ncold = 'hub'\n", "gateway.cold"),
    ),
)
def test_an_invalid_value_is_named(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(Malformed) as refused:
        load(tmp_path, text)
    assert refused.value.code == "CONFIG"
    assert where in refused.value.what


@pytest.mark.parametrize("text", ("not toml", "[node\n", "node = 1\n"))
def test_an_invalid_configuration_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Malformed):
        load(tmp_path, text)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        NodeConfig.load(tmp_path / "node.toml")
    assert refused.value.hint == "comity init --help"


@pytest.mark.parametrize(
    ("gateway", "told"),
    [
        ('http = "127.0.0.1:7480"', None),
        ('http = "192.0.2.1:7480"', None),
        ('url = "https://models.example.org"', None),
        ('http = "127.0.0.1:7480"\nurl = "https://models.example.org/hub"', "https://models.example.org/hub"),
    ],
    ids=["loopback", "an address", "no gateway", "as written"],
)
def test_a_node_gives_the_gateway_url_that_its_operator_wrote(tmp_path: Path, gateway: str, told: str | None) -> None:
    url = load(tmp_path, f"{LEAST}[gateway]\n{gateway}\n").gateway.advertised_url()
    assert (url and str(url)) == told


@pytest.mark.parametrize("url", ["models.example.org", "https://me:secret@models.example.org", "https://a.example/?x"])
def test_an_invalid_gateway_url_is_refused_at_start(tmp_path: Path, url: str) -> None:
    with pytest.raises(Malformed) as refused:
        load(tmp_path, f'{LEAST}[gateway]\nurl = "{url}"\n')
    assert "gateway.url" in refused.value.what
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "lines",
    [
        '[gateway]\nhttp = "127.0.0.1:7443"\n',
        '[gateway]\nhttp = "0.0.0.0:7444"\n',
        '[gateway]\nhttp = "127.0.0.1:7480"\nranges = "127.0.0.1:7480"\n',
    ],
)
def test_two_listeners_with_one_port_are_refused_by_name(tmp_path: Path, lines: str) -> None:
    with pytest.raises(Malformed, match="are the same port") as caught:
        load(tmp_path, LEAST + lines)
    assert caught.value.code == "CONFIG" and "gateway." in caught.value.why


def test_one_port_on_two_hosts_and_ports_that_the_system_chooses_are_fine(tmp_path: Path) -> None:
    gateway = '[gateway]\nhttp = "127.0.0.1:7444"\nfiles = "127.0.0.1:0"\n'
    config = load(tmp_path, LEAST.replace("127.0.0.1:7443", "127.0.0.1:0") + gateway)
    assert config.listeners["gateway.http"] == "127.0.0.1:7444"


FRONT_END = LEAST.replace("[listen]", 'role = "front-end"\n[listen]')
DATABASE = '[storage]\ndatabase = "postgresql:///comity"\n'
GATEWAY = '[gateway]\nhttp = "127.0.0.1:8080"\n'
NO_OPEN_PORT = 'open = ""'


def test_a_front_end_opens_the_ports_for_strangers_and_no_others(tmp_path: Path) -> None:
    more = GATEWAY + 'files = "127.0.0.1:8081"\nranges = "127.0.0.1:8082"\n'
    config = load(tmp_path, FRONT_END + DATABASE + more)
    assert config.is_front_end
    assert config.listeners == {"listen.open": "[::1]:7444", "gateway.http": "127.0.0.1:8080"}
    assert not load(tmp_path, LEAST).is_front_end


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FRONT_END, "storage.database"),
        (FRONT_END.replace('open = "[::1]:7444"', NO_OPEN_PORT) + DATABASE, "would serve nothing"),
        (LEAST.replace('open = "[::1]:7444"', NO_OPEN_PORT), "only a front end"),
        (LEAST.replace("[listen]", 'role = "reader"\n[listen]'), "front-end"),
    ],
)
def test_an_invalid_role_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(Malformed) as caught:
        load(tmp_path, text)
    assert why in caught.value.why


def test_a_front_end_without_a_grpc_port_serves_http(tmp_path: Path) -> None:
    config = load(tmp_path, FRONT_END.replace('open = "[::1]:7444"', NO_OPEN_PORT) + DATABASE + GATEWAY)
    assert config.listeners == {"gateway.http": "127.0.0.1:8080"}
