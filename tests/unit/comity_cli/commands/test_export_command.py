"""`comity export`: its exit statuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from comity.trust.encoding import sha256
from comity_cli.commands import export
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.bundles.contents import BundleIndex
from comity_client.bundles.erasure import ErasureCode
from comity_client.bundles.exporting import ExportedBundle, UncosignedLog

INDEX = BundleIndex("", "node-ch/log", (), sha256(b""), 0, 1, ErasureCode(1, 1), (), 0, 0, 0)


@pytest.mark.parametrize(
    ("what", "incomplete", "status"),
    [
        (["lab/tiny@v1"], ("lab/tiny@v1",), 8),
        (["lab/tiny@v1"], (), 0),
        (["--all"], ("lab/tiny@v1",), 0),
    ],
    ids=["a named one is left out", "it is whole", "one of all is left out"],
)
def test_a_named_artifact_that_was_left_out_is_in_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: list[str], incomplete: tuple[str, ...], status: int
) -> None:
    made = ExportedBundle(INDEX, 0, 0, 0, incomplete)
    monkeypatch.setattr(export, "client", lambda: SimpleNamespace(export_bundle=lambda *_, **__: made))
    arguments = ["export", *what, "--out", str(tmp_path / "out"), "--node", "node-ch"]
    assert command.main(args=arguments, standalone_mode=False, obj=Output()) == status


def test_a_log_that_too_few_have_cosigned_yet_is_said_with_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ExportedBundle(INDEX, 0, 3, 0, (), (UncosignedLog("node-ch/log", 0, 2),))
    monkeypatch.setattr(export, "client", lambda: SimpleNamespace(export_bundle=lambda *_, **__: made))
    arguments = ["export", "--all", "--out", str(tmp_path / "out"), "--node", "node-ch"]
    assert command.main(args=arguments, standalone_mode=False, obj=Output()) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "node-ch/log is cosigned by 0 others yet, and the charter asks for 2" in said
    assert f"comity export --since {tmp_path / 'out'} --out OTHER-FOLDER" in said
