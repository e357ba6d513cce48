"""`comity init` and `comity found`, typed as their help says, in a shell that expands the patterns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comity.trust.charter.federation import Federation

COMITY = Path(sys.executable).with_name("comity")


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PATH": f"{COMITY.parent}:{os.environ['PATH']}", "COMITY_HOME": str(folder / "pins")}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """Three members' homes, and their cards side by side."""
    for code in ("ch", "es", "kr"):
        where = "--mutual 127.0.0.1:7443 --open 127.0.0.1:7444"
        made = shell(tmp_path, f"comity init --jurisdiction {code.upper()} --org X-{code} --name node-{code} {where}")
        assert made.returncode == 0, made.stderr
        assert "this node advertises 127.0.0.1:7443" in made.stderr
        (tmp_path / f"node-card-{code}.json").write_bytes((tmp_path / f"node-{code}" / "node-card.json").read_bytes())
    return tmp_path


def test_the_examples_found_a_federation_as_they_stand(folder: Path) -> None:
    drafted = shell(folder, "comity found draft node-card-*.json --out genesis.json")
    assert drafted.returncode == 0, drafted.stderr
    assert "needs all 3 members" in drafted.stderr
    for code in ("ch", "es", "kr"):
        signed = shell(folder, f"comity found consent genesis.json --dir node-{code} --out consent-{code}.line --yes")
        assert signed.returncode == 0, signed.stderr
    sealed = shell(folder, "comity found seal genesis.json consent-*.line node-card-*.json --out federation.json")
    assert sealed.returncode == 0, sealed.stderr
    assert len(Federation.parse((folder / "federation.json").read_bytes()).nodes) == 3


def test_ports_that_collide_are_refused_before_anything_is_written(folder: Path) -> None:
    ran = shell(folder, "comity init --jurisdiction SG --org X --name node-sg --open 127.0.0.1:7480")
    assert (ran.returncode, "PORT-TWICE" in ran.stderr) == (3, True), ran.stderr
    assert not (folder / "node-sg").exists()
