"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.ceph import Ceph, ceph
from support.fakes import FakeFederation
from support.s3 import S3Account
from support.seaweed import seaweed


@pytest.fixture(scope="session")
def ceph_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    with ceph(tmp_path_factory.mktemp("ceph")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ceph_s3(ceph_cluster: Ceph, tmp_path_factory: pytest.TempPathFactory) -> S3Account:
    return S3Account.open(
        ceph_cluster.endpoint, ceph_cluster.user("node"), tmp_path_factory.mktemp("s3"), "comity-tests"
    )


@pytest.fixture(scope="session")
def seaweed_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Account]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield S3Account.open(server.endpoint, server.user, tmp_path_factory.mktemp("s3"), "comity-tests")


@pytest.fixture(
    scope="session",
    params=[pytest.param("ceph", marks=pytest.mark.ceph), pytest.param("seaweed", marks=pytest.mark.seaweed)],
)
def s3(request: pytest.FixtureRequest) -> S3Account:
    """An account at each of two servers that share no code."""
    account: S3Account = request.getfixturevalue(f"{request.param}_s3")
    return account


@pytest.fixture
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    """Four nodes of members in this process."""
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A user who pinned it, and whose commands find the same home."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


@pytest.fixture
def publisher(client: Client) -> Publisher:
    return client.new_publisher("Lab One", "CH", "node-ch.example/log")
