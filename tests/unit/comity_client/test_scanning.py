"""`comity scan`: the list of a folder's files, the refusals by the policy, the findings of picklescan; nothing is
executed.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from comity.trust.errors import NotFound, Unavailable
from comity.trust.evidence import KINDS
from comity.trust.policy import SafetyRule
from comity_cli.main import main
from comity_client import scan as pickles
from comity_client.client import Client
from comity_client.home import Home
from comity_client.scan import scan_folder, scan_pickles
from support import weights


class Writes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "src").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights.safetensors({"a": b"A" * 8}))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Writes(tmp_path / "ran")))
    (folder / "src" / "modeling.py").write_bytes(b"import os\n")
    (folder / "config.json").write_bytes(b'{"a": 1}')
    (folder / "out").symlink_to("/etc/hostname")
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_a_scan_lists_every_file_and_the_refused_ones(model: Path) -> None:
    census = scan_folder(model, SafetyRule(), workers=2)
    assert census.formats == {"json": 1, "link": 1, "pickle": 1, "safetensors": 1, "text": 1}
    assert {each.file.path for each in census.refused} == {"out", "pytorch_model.bin", "src/modeling.py"}
    allowed = scan_folder(model, SafetyRule(kinds=frozenset({"pickle"}), paths=("src/*",)), workers=2)
    assert {each.file.path for each in allowed.refused} == {"out"}


def test_a_missing_folder_is_reported_as_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        scan_folder(tmp_path / "none", SafetyRule(), workers=1)


def test_the_command_prints_text_or_json_and_exits_with_4(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    assert run("scan", str(model)) == 4
    told = capsys.readouterr().out
    assert "1 safetensors" in told and KINDS["pickle"] in told and "model.safetensors" not in told
    assert run("scan", str(model), "--json") == 4
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "comity.dev/scan/v1"
    found = {each["path"]: each for each in document["files"]}
    assert found["pytorch_model.bin"]["active"] == ["pickle"]
    assert found["model.safetensors"] == {
        "path": "model.safetensors",
        "size": (model / "model.safetensors").stat().st_size,
        "format": "safetensors",
        "active": [],
        "malformed": [],
        "refused": [],
    }
    (model / "out").unlink()
    policy = tmp_path / "policy.toml"
    policy.write_text('[safety]\nallow = ["pickle", "python"]\n')
    assert run("scan", str(model), "--policy", str(policy)) == 0
    assert not (tmp_path / "ran").exists()


def test_picklescan_names_the_imports_of_a_pickle_and_runs_nothing(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("picklescan", reason="unlock: pip install 'comity[scan]'")
    (model / "benign.pkl").write_bytes(pickle.dumps({"a": 1}))
    (model / "numbers.npy").write_bytes(b"\x93NUMPY broken")
    api = Client(Home(tmp_path / "home"))
    census = api.scan(model)
    found = api.scan_pickles(census)
    assert found.version == metadata.version("picklescan")
    named = {each.path: each for each in found.files}
    assert set(named) == {"benign.pkl", "numbers.npy", "pytorch_model.bin"}
    (item,) = named["pytorch_model.bin"].dangerous
    assert (item.module, item.name, item.level) == (os.system.__module__, "system", "dangerous")
    assert named["benign.pkl"].imports == ()
    assert named["numbers.npy"].failed
    assert not (tmp_path / "ran").exists()


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pickles, "TOOL", "no-such-distribution")
    with pytest.raises(NotFound) as refused:
        scan_pickles(tmp_path, [])
    assert (refused.value.code, refused.value.hint) == ("SCAN-EXTRA", "pip install 'comity[scan]'")


def test_a_tool_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path) -> None:
    pytest.importorskip("picklescan", reason="unlock: pip install 'comity[scan]'")
    monkeypatch.setattr(pickles, "SECONDS", 0.001)
    with pytest.raises(Unavailable) as failed:
        scan_pickles(model, ["pytorch_model.bin"])
    assert failed.value.code == "SCAN-FAILED"
    monkeypatch.setattr(pickles, "SECONDS", 60)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable):
        scan_pickles(model, ["pytorch_model.bin"])


@pytest.mark.slow
def test_the_formats_of_real_weights_are_recognised(tmp_path: Path) -> None:
    smol = {
        each.file.path: each for each in scan_folder(weights.packaged(weights.SMOLLM2), SafetyRule(), workers=2).files
    }
    found = smol["SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert (found.seen.format, found.seen.active, found.seen.malformed) == (
        "gguf",
        ("chat-template: loops over messages; reads content, first, role",),
        (),
    )
    assert found.refused == ()
    silero = {
        each.file.path: each for each in scan_folder(weights.packaged(weights.SILERO), SafetyRule(), workers=2).files
    }
    jit = silero["silero_vad.jit"]
    assert jit.seen.format == "torchscript"
    assert {"torchscript", "pickle: data.pkl"} <= set(jit.seen.active)
    assert jit.refused
    assert (silero["silero_vad_16k.safetensors"].seen.format, silero["silero_vad_16k.safetensors"].refused) == (
        "safetensors",
        (),
    )
    assert {each.seen.format for path, each in silero.items() if path.endswith(".onnx")} == {"onnx"}


def test_a_folder_whose_name_has_lines_cannot_write_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model\n✓ the policy refuses no file"
    folder.mkdir()
    (folder / "weights.pkl").write_bytes(pickle.dumps(1))
    run("scan", str(folder))
    lines = capsys.readouterr().out.splitlines()
    assert not lines[1].startswith("✓")
    assert "\\n✓ the policy refuses no file" in lines[0]
