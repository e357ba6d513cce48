"""An unmodified transformers as a program, for the interpreter of an environment that has it:

    python stock_transformers.py REPOSITORY REVISION [--forward]

prints one JSON object of what was loaded by name alone; with --forward also what the model (PyTorch) computed for a
text.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from transformers import AutoConfig, AutoTokenizer

TEXT = "Nobody can take it away."


def main() -> None:
    repository, revision = sys.argv[1:3]
    config: Any = AutoConfig.from_pretrained(repository, revision=revision)
    tokenizer: Any = AutoTokenizer.from_pretrained(repository, revision=revision)
    found = {
        "config": type(config).__name__,
        "hidden_size": config.hidden_size,
        "vocabulary": len(tokenizer),
        "tokens": tokenizer(TEXT)["input_ids"],
    }
    if "--forward" in sys.argv:
        import torch
        from transformers import AutoModel

        model: Any = AutoModel.from_pretrained(repository, revision=revision)
        with torch.no_grad():
            state = model(**tokenizer(TEXT, return_tensors="pt")).last_hidden_state
        found |= {"shape": list(state.shape), "finite": bool(torch.isfinite(state).all()), "norm": float(state.norm())}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
