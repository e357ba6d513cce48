"""A node at a bucket that lies: it ends where no byte can be kept, and else says what is false and serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.ceph import User
from support.federation import NodeHome, found, processes, until
from support.s3 import S3Account, keep_in_bucket, write_credentials
from support.small_s3 import Lie, SmallS3, small_s3


def home_at(service: SmallS3, folder: Path) -> NodeHome:
    credentials = write_credentials(folder / "s3.toml", User("KEY", "secret"))
    home = found(folder / "nodes", 1).homes[0]
    keep_in_bucket(home, S3Account(service.endpoint, credentials, "bucket"))
    return home


@pytest.mark.parametrize(("lie", "code"), [("other parts", "S3-OTHER-BYTES"), ("no ranges", "S3-RANGE")])
async def test_a_node_ends_at_a_bucket_that_keeps_no_bytes(tmp_path: Path, lie: Lie, code: str) -> None:
    with small_s3(lie) as service, processes(home_at(service, tmp_path)) as (node,):
        await until(lambda: not node.alive, what="the node to end")
        assert node.ended() != 0
        assert [event["code"] for event in node.events if "code" in event] == [code]


async def test_a_node_says_what_its_bucket_does_not_keep_and_serves(tmp_path: Path) -> None:
    with small_s3("overwrites", "old lists") as service, processes(home_at(service, tmp_path)) as (node,):
        await node.ready()

        def named() -> set[object]:
            return {event.get("code") for event in node.events if str(event["event"]).startswith("the bucket does")}

        await until(lambda: named() == {"S3-OVERWRITES", "S3-STALE"}, what="both to be named")
        assert node.alive
