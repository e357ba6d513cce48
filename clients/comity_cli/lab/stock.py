"""Run the unmodified Hugging Face client in a separate process, offline, on the cache that a pull wrote."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from comity.trust.artifact import Manifest
from comity.trust.errors import Untrusted

_SNAPSHOT: Final = """
import sys, huggingface_hub
for revision in sys.argv[2:]:
    print(huggingface_hub.snapshot_download(sys.argv[1], revision=revision, local_files_only=True))
"""
_TRANSFORMERS: Final = """
import sys
from transformers import AutoConfig, AutoTokenizer
config = AutoConfig.from_pretrained(sys.argv[1], revision=sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], revision=sys.argv[2])
print(type(config).__name__, len(tokenizer), tokenizer("Nobody can take it away.")["input_ids"][:8])
"""


def load(hub_cache: Path, repository: str, snapshot: Path) -> Iterator[str]:
    """Load `repository` by version and by commit id. Yields result lines. Raises Untrusted if loading fails."""
    import huggingface_hub

    commit = snapshot.name
    paths = _run(_SNAPSHOT, hub_cache, repository, "v1", commit).splitlines()
    manifest = Manifest.parse((snapshot / ".comity" / "manifest.json").read_bytes())
    for path in paths:
        missing = [entry.path for entry in manifest.files if not (Path(path) / entry.path).is_file()]
        if Path(path).resolve() != snapshot.resolve() or missing:
            raise Untrusted("the Hugging Face client found another snapshot", why=f"{path}; missing: {missing[:3]}")
    yield f"huggingface_hub {huggingface_hub.__version__}: {len(manifest.files)} files by revision 'v1' and by {commit}"
    if importlib.util.find_spec("transformers") is None:
        yield "transformers is not installed here: AutoConfig and AutoTokenizer not tried"
        return
    config, length, *tokens = _run(_TRANSFORMERS, hub_cache, repository, commit).split(maxsplit=2)
    yield f"transformers: {config}, a tokenizer of {length} entries, tokens {' '.join(tokens)}"


def _run(script: str, hub_cache: Path, *arguments: str) -> str:
    environment = {**os.environ, "HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script, *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Untrusted("the Hugging Face client did not load the model", why=ran.stderr.strip()[-400:])
    return ran.stdout.strip()
