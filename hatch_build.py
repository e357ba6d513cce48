"""Builds the manual pages into the wheel: share/man/man1 of the environment, where `man comity` finds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGES = "build/man"


class ManPages(BuildHookInterface[Any]):
    """Writes the pages before a wheel is built; an editable installation gets none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":
            return
        root = Path(self.root)
        # What the commands import is on the path of this process alone when pip makes the environment of the build.
        paths = os.pathsep.join([str(root / "registry"), str(root / "clients"), *filter(None, sys.path)])
        command = [sys.executable, str(root / "docs" / "man_pages.py"), str(root / PAGES)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL)
        build_data["shared_data"][f"{PAGES}/man1"] = "share/man/man1"
