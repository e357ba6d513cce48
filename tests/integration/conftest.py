"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.ceph import Ceph, ceph
from support.s3 import S3Account


@pytest.fixture(scope="session")
def ceph_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    with ceph(tmp_path_factory.mktemp("ceph")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3(ceph_cluster: Ceph, tmp_path_factory: pytest.TempPathFactory) -> S3Account:
    return S3Account.open(
        ceph_cluster.endpoint, ceph_cluster.user("node"), tmp_path_factory.mktemp("s3"), "comity-tests"
    )
