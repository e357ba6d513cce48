"""The ports of a node: what a stranger, a peer and an operator may call on them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import stat
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from comity.node.home import OpenedHome
from comity.rules.misbehaviour import ROOTS
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.statement import parse_entry
from comity.trust.tlog.note import SignedNote
from comity.trust.tlog.proof import TlogProof
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin, TlsIdentity, make_certificate, to_pem
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from support.federation import found, introduced, make_home, processes, serving, until
from support.ports import free_port


async def test_a_lone_node_introduces_itself_in_its_log(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    async with serving(home):
        await introduced(home)
        async with home.client() as client:
            facts = await client.node()
            assert facts.origin == home.origin
            assert facts.node_record == home.card.record_line
            assert facts.identity == (home.card.inception_line,)
            lines = [line async for batch in client.entries(home.origin, 0, 100) for line in batch.lines]
            said = [parse_entry(line).statement.predicate for line in lines]
            assert said == ["inception", "node-record", "addresses"]
            (proof,) = await client.proofs(sha256(home.card.record_line))
            TlogProof.parse(proof.proof).verify(home.card.record_line, home.record.log)
            with pytest.raises(NotFound):
                await client.charter()


async def test_starting_again_logs_nothing_twice(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    for _ in range(2):
        async with serving(home):
            await introduced(home)
            async with home.client() as client:
                (head,) = await client.logs()
                assert SignedNote.parse(head.note).text.split("\n")[1] == "3"


async def test_a_node_that_ended_leaves_no_task_and_no_lock(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    before = asyncio.all_tasks()
    async with serving(home):
        await introduced(home)
    assert asyncio.all_tasks() == before
    OpenedHome.open(home.config(), lambda: 0).close()


async def test_a_member_node_serves_its_charter(tmp_path: Path) -> None:
    founded = found(tmp_path, 1)
    (home,) = founded.homes
    async with serving(home), home.client() as client:
        charter = await client.charter()
        assert charter.body == founded.federation.body.data
        assert charter.certificate == founded.federation.certificates[-1]


async def test_the_open_port_refuses_calls_of_operators(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    async with serving(home), home.client() as client:
        with pytest.raises(ComityError) as refused:
            await client.status()
        assert refused.value.code == "OPERATORS-ONLY"
        with pytest.raises(ComityError):
            await client.adopt(tmp_path / "x", sha256(b""), 0)


async def test_the_operators_socket_is_private(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    async with serving(home):
        assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
        async with home.operator() as client:
            assert (await client.node()).origin == home.origin


async def test_a_stranger_is_not_let_in_at_the_mutual_port(tmp_path: Path) -> None:
    founded = found(tmp_path, 1)
    (home,) = founded.homes
    key = PrivateKey.generate("ecdsa-p256")
    stranger = TlsIdentity(make_certificate(key), key)
    async with serving(home):
        address = Address.parse(home.card.mutual[0])
        async with NodeClient.connect(address, CertificatePin.of(home.record.tls), stranger) as client:
            with pytest.raises(Refused, match="refused this node's certificate"):
                await client.node()


async def test_the_open_port_bounds_the_rate_of_a_caller(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    home.set("limits", open_calls_per_second=1.0)
    async with serving(home), home.client() as client:
        with pytest.raises(Refused) as refused:
            for _ in range(20):
                await client.node()
        assert refused.value.code == "RATE"


async def test_health_is_reported_at_every_listener(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    async with serving(home):
        pem, name = to_pem(home.record.tls), CertificatePin.of(home.record.tls).server_name
        options = (("grpc.ssl_target_name_override", name), ("grpc.enable_http_proxy", 0))
        async with grpc.aio.secure_channel(
            f"ipv4:{home.card.open[0]}", grpc.ssl_channel_credentials(pem), options=options
        ) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # its type has no methods
            for service in ("", "comity.v1.LogService", "comity.v1.PublishService"):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_stock_tools_learn_the_services_by_reflection_without_a_deadline(tmp_path: Path, version: str) -> None:
    home = make_home(tmp_path / "home", 0)
    service = f"grpc.reflection.{version}.ServerReflection"
    pem = to_pem(home.record.tls)
    options = [("grpc.ssl_target_name_override", CertificatePin.of(home.record.tls).server_name)]
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="comity.v1.LogService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=service),
    ]
    async with (
        serving(home),
        grpc.aio.secure_channel(
            f"ipv4:{home.card.open[0]}", grpc.ssl_channel_credentials(pem), options=options
        ) as channel,
    ):
        call = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        listed, log, own = [answer async for answer in call(iter(asked))]
    names = {found.name for found in listed.list_services_response.service}
    assert {service, "grpc.health.v1.Health", "comity.v1.LogService"} <= names
    for described, package in ((log, "comity.v1"), (own, f"grpc.reflection.{version}")):
        files = map(FileDescriptorProto.FromString, described.file_descriptor_response.file_descriptor_proto)
        assert package in {file.package for file in files}


async def test_no_handshake_of_a_stranger_writes_a_line_past_the_log(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    with processes(*founded.homes) as nodes:
        for node in nodes:
            await node.ready()
        (home, _), (node, _) = founded.homes, nodes
        for address in (home.card.mutual[0], home.card.open[0]):
            for sent in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", bytes(300)):
                await asyncio.to_thread(_send, address, sent)
            with contextlib.suppress(OSError):  # a certificate that no client knows, a name that it does not have
                await asyncio.to_thread(_handshake, address)
        async with home.client() as client:
            await client.node()
        node.stop()
        assert [line for line in node.words.splitlines() if not line.startswith("{")] == []


def _send(address: str, sent: bytes) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection, contextlib.suppress(OSError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


def _handshake(address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        ssl.create_default_context().wrap_socket(connection, server_hostname="nobody.example")


async def test_a_node_runs_without_its_members_keys(tmp_path: Path) -> None:
    (home,) = found(tmp_path, 1).homes
    shutil.rmtree(home.directory / "offline")
    async with serving(home):
        await introduced(home)


async def metrics(address: str) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


async def test_metrics_are_read_where_the_operator_asked_for_them(tmp_path: Path) -> None:
    (home,) = found(tmp_path, 1).homes
    address = f"127.0.0.1:{free_port()}"
    home.set("listen", metrics=address)
    async with serving(home):
        await introduced(home)
        text = await metrics(address)
    for name in (
        "store_bytes",
        "pull_bytes_total",
        "verify_failures_total",
        "replica_short",
        "peer_up",
        "peer_log_lag_seconds",
        "checkpoint_age_seconds",
        "misbehaviour_proofs",
    ):
        assert f"# TYPE comity_{name}" in text


async def test_metrics_have_the_size_of_the_own_log_also_after_a_restart(tmp_path: Path) -> None:
    (home,) = found(tmp_path, 1).homes
    address = f"127.0.0.1:{free_port()}"
    home.set("listen", metrics=address)
    async with serving(home):
        await introduced(home)
    async with serving(home):

        async def measured() -> bool:
            try:
                lines = (await metrics(address)).splitlines()
            except urllib.error.URLError:
                return False  # not listening yet
            sizes = [
                line.split()[-1] for line in lines if line.startswith(f'comity_log_entries{{origin="{home.origin}"')
            ]
            return [float(size) >= 2 for size in sizes] == [True]

        await until(measured, what="the size of the own log")


async def test_metrics_still_have_a_proof_that_an_earlier_run_kept(tmp_path: Path) -> None:
    (home,) = found(tmp_path, 1).homes
    node = OpenedHome.open(home.config(), lambda: 0)
    node.ledger.tables.misbehaviour.add(ROOTS, "evil.example/log", "evil.example/log+00000000+AAAA", (b"one", b"two"))
    node.close()
    address = f"127.0.0.1:{free_port()}"
    home.set("listen", metrics=address)
    async with serving(home):
        await introduced(home)
        text = await metrics(address)
    assert 'comity_misbehaviour_proofs{origin="evil.example/log"} 1.0' in text.splitlines()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    (home.directory / "keys" / "log.pem").chmod(0o640)
    with pytest.raises(Refused) as refused:
        OpenedHome.open(home.config(), lambda: 0)
    assert refused.value.code == "KEY-PERMISSIONS"


def test_a_log_key_file_of_two_keys_is_refused(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    shutil.copy(home.directory / "keys" / "cosigner.pem", home.directory / "keys" / "log.pem")
    with pytest.raises(Malformed):
        OpenedHome.open(home.config(), lambda: 0)


def test_keys_that_the_record_does_not_bind_are_refused(tmp_path: Path) -> None:
    home, other = make_home(tmp_path / "one", 0), make_home(tmp_path / "two", 1)
    shutil.copy(other.directory / "keys" / "log.pem", home.directory / "keys" / "log.pem")
    with pytest.raises(Untrusted) as refused:
        OpenedHome.open(home.config(), lambda: 0)
    assert refused.value.code == "KEY-MISMATCH"


async def test_a_node_process_ends_in_order_when_asked(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    with processes(home) as (node,):
        await node.ready()
        await introduced(home)
        assert node.stop() == 0
        assert node.events[-1]["event"] == "stopped"


async def test_two_nodes_do_not_run_on_one_home(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    async with serving(home):
        with pytest.raises(ComityError) as refused:
            OpenedHome.open(home.config(), lambda: 0)
        assert refused.value.code == "LEDGER-LOCKED"
