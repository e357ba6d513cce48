"""Made inputs: a folder like a model with random tensors, and a one-node lab that has published it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comity_cli.lab.lab import Lab, LabNode

COMITY = [sys.executable, "-m", "comity_cli.main"]
REFERENCE = "bench/model@v1"


def model(folder: Path, mib: int, tensor_mib: int = 32) -> Path:
    """`folder` with a safetensors file of random bytes: incompressible, as trained weights nearly are."""
    folder.mkdir()
    tensors = {
        f"layer.{n}": {
            "dtype": "U8",
            "shape": [tensor_mib << 20],
            "data_offsets": [n * tensor_mib << 20, (n + 1) * tensor_mib << 20],
        }
        for n in range(mib // tensor_mib)
    }
    header = json.dumps(tensors).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _ in tensors:
            file.write(os.urandom(tensor_mib << 20))
    return folder


@dataclass(frozen=True)
class Served:
    """A running lab of which only the first node takes part, and a client home that pinned it."""

    lab: Lab
    home: Path

    @property
    def node(self) -> LabNode:
        return self.lab.nodes[0]

    def comity(self, *arguments: str, home: Path | None = None) -> str:
        environment = {**os.environ, "COMITY_HOME": str(home or self.home)}
        ran = subprocess.run([*COMITY, *arguments], env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(f"comity {' '.join(arguments)}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return ran.stdout


@contextlib.contextmanager
def served(folder: Path, *, copies: bool = False) -> Iterator[Served]:
    """A lab below `folder`, its nodes up; the others copy artifacts only with `copies`. No node audits copies: that is
    paid for by time, not by artifact."""
    lab = Lab.create(folder / "lab", {})
    for node in lab.nodes:
        path = node.home / "node.toml"
        values = {"mirror": '"all"' if copies else '"none"', "interval_seconds": "5.0", "bytes_per_day": "0"}
        text = path.read_text()
        for key, value in values.items():
            text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)  # of the first section with it
        path.write_text(text)
    try:
        lab.up(end_with_parent=True)
        found = Served(lab, folder / "home")
        found.comity("trust", "pin", str(lab.federation), "--yes")
        found.comity("publisher", "new", "bench", "--jurisdiction", "CH", "--home", f"{lab.nodes[0].name}/log")
        yield found
    finally:
        lab.down()
