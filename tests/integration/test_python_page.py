"""The code of docs/python.md, run as it stands by a user with a pin."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comity_client
import pytest
from comity_client import Client
from comity_client.home import Home
from support import weights
from support.fakes import FakeFederation

BLOCKS = re.findall(r"```python\n(.*?)```", Path("docs/python.md").read_text(), re.S)


@pytest.fixture(name="federation")
def _federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture
def published(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a user works who pinned the federation, in which `lab/tiny@v1` was published."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(weights.safetensors({"a": b"A" * 4096}))
    publisher = Client(Home(tmp_path / "publisher"))
    publisher.pin(federation.file({}))
    own = publisher.new_publisher("Lab One", "CH", "node-ch.example/log")
    publisher.publish(source, "lab/tiny@v1", publisher=own, licence="MIT")
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that the value that the page sets ends with the test
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.chdir(tmp_path)
    Client().pin(federation.file({}))
    (tmp_path / "federation.json").write_bytes(federation.file({}))
    (tmp_path / "policy.toml").write_text('schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n')
    return tmp_path


def test_each_block_of_the_page_runs_as_it_stands(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for block in BLOCKS:
        names: dict[str, Any] = {}
        exec(compile(block, "docs/python.md", "exec"), names)  # our own page
        outputs.append(capsys.readouterr().out)
    first, _, refused, loaded = outputs
    assert "lab/tiny@v1 Lab One" in first
    assert (published / "tiny" / "model.safetensors").is_file()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert list((published / "hf").rglob("model.safetensors"))
    assert refused.startswith("NOT-PUBLISHED\n")
    assert loaded.startswith("lab/tiny@v1 cosigned at ")


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clint'"):
        comity_client.Clint  # noqa: B018
