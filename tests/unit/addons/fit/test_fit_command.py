"""`comity offer fit`: own machines as they are typed, and what is shown of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from comity.addons.fit.command import parse_group
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.home import Home
from comity_client.trust_store import TrustStore
from support.fair import Stall
from support.offers import a_slice
from support.weights import safetensors


def test_a_group_of_own_machines_is_typed_as_one_word() -> None:
    name, room = parse_group("H100:8:80:2")
    assert (name, room.accelerator, room.count, room.memory_gib, room.nodes) == ("H100:8:80:2", "H100", 8, 80, 2)
    assert parse_group("L4:1:24")[1].nodes == 1
    for text in ("H100", "H100:8", ":8:80", "H100:0:80", "H100:8:80:1:1", "H100:x:80"):
        with pytest.raises(click.UsageError):
            parse_group(text)


def run(home: Path, *arguments: str | Path) -> Any:
    return CliRunner(env={"COMITY_HOME": str(home), "COLUMNS": "200"}).invoke(
        command, [str(argument) for argument in arguments], obj=Output()
    )


def fit_of_a_model(folder: Path) -> tuple[str | Path, ...]:
    """Write a model and return the arguments that ask where it fits."""
    (folder / "m").mkdir()
    (folder / "m" / "model.safetensors").write_bytes(safetensors({"a": bytes(2000)}))
    (folder / "m" / "config.json").write_text(
        '{"model_type": "llama", "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,'
        ' "hidden_size": 8192}'
    )
    return "offer", "fit", folder / "m", "--offline", "--context", "131072", "--batch", "8"


def test_a_fit_shows_its_arithmetic_and_the_reason_of_a_no(tmp_path: Path) -> None:
    wanted = fit_of_a_model(tmp_path)
    shown = run(tmp_path, *wanted, "--room", "H100:8:80", "--room", "L4:1:24")
    assert shown.exit_code == 0, shown.output
    for words in ("320.00 GiB: (80 layers x 131,072 tokens) x (2 x 8 KV heads x 128) x 2 bytes (bf16) x 8 at a time",
                  "fits with 8 H100", "does not fit, because each of 1 L4 would hold 320.00 GiB"):  # fmt: skip
        assert words in shown.output


def test_the_need_of_a_model_is_shown_once_also_if_the_first_machines_are_not_checked(tmp_path: Path) -> None:
    stall = Stall()
    stall.post(slices=(a_slice(name="unstated", memory_gib=0), a_slice()))
    TrustStore(Home(tmp_path).ensure(tmp_path / "trust")).pin(stall.federation.encode())
    stall.bundle().write(tmp_path / "offer.bundle")
    shown = run(tmp_path, *fit_of_a_model(tmp_path), "--from", tmp_path / "offer.bundle")
    assert shown.exit_code == 0, shown.output
    assert "unstated: not checked, it has no accelerators" in shown.output
    assert [shown.output.count(name) for name in ("weights   ", "KV-cache   ", "together   ")] == [1, 1, 1]
    assert "fits with 8 H100" in shown.output
