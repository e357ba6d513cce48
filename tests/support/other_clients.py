"""Outside programs that read from a gateway: how each is installed, run and asked for its version.

A client is given a `Place`, reads the repository of `support.client_repository` in its own way, and returns the result
in the words of the table in docs/clients/README.md. It asserts that this is what was published. If a program is not
installed, its test skips.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from comity.trust.encoding import sha256
from support.client_repository import CHILD, DATA, EMBEDDINGS, GGUF, RECORDS, ROWS, SENTENCE, SHARD, TOKENS, WIDTH
from support.environments import kept, python_with
from support.publisher import Release
from support.tools import missing, needs

TRANSFER = ("hf_transfer==0.1.9", "huggingface_hub==0.36.2")
READERS = ("datasets==5.2.0", "diffusers==0.42.1", "fastembed==0.9.1", "tokenizers==0.23.3")
SERVING = ("kserve-storage==0.21.0",)
FETCHERS = ("fsspec[http]==2026.9.0", "obstore==0.12.1", "oras==0.2.43", "pooch==1.9.0")
JAVASCRIPT = ("@huggingface/hub@2.17.5", "@huggingface/gguf@0.4.6", "@huggingface/transformers@4.3.1", "ipull@4.0.3")


@dataclass(frozen=True)
class Place:
    """The address from which a program reads, an empty folder in which it runs, and what it reads there: a release and
    its name.
    """

    url: str
    folder: Path
    release: Release
    name: str = CHILD

    @property
    def image(self) -> str:
        """The repository as registry clients name it."""
        return f"{self.url.removeprefix('http://')}/{self.name}:v1"

    @property
    def addresses(self) -> list[str]:
        """The address of each file."""
        return [self.address(path) for path in self.release.ingested.files]

    def address(self, path: str) -> str:
        return f"{self.url}/{self.name}/resolve/v1/{quote(path)}"

    def read(self, path: str) -> bytes:
        return self.release.ingested.files[path].read_bytes()

    def run(self, *command: str, **environ: str) -> str:
        ours = {key: value for key, value in os.environ.items() if not key.lower().startswith(("hf_", "http"))}
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env={**ours, "HOME": str(self.folder), **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
        return ran.stdout

    def python(self, requirements: tuple[str, ...], script: str, **environ: str) -> Any:
        """The last output of a script in an environment of its own, as JSON."""
        settings = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        out = self.run(python_with(*requirements), "-c", script, **settings, **environ)
        return json.loads(out.strip().splitlines()[-1])

    def node(self, script: str, *arguments: str) -> Any:
        """The last output of an ES module, as JSON. It finds the packages of `JAVASCRIPT`."""
        file = self.folder / "read.mjs"
        (self.folder / "node_modules").symlink_to(_javascript() / "node_modules")
        file.write_text(script)
        return json.loads(self.run(_NODE(), str(file), self.url, *arguments).strip().splitlines()[-1])

    def same(self, lost: Collection[str] = ()) -> str:
        """Asserts that each file of the repository was written here with its published bytes, but those that the client
        `lost`.
        """
        files = [entry for entry in self.release.ingested.manifest.files if entry.path not in lost]
        written = (path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())
        found = {sha256(path.read_bytes()) for path in written}
        assert not [entry.path for entry in files if entry.sha256 not in found]
        without = f"; not {', '.join(f'`{path}`' for path in lost)}, which it does not quote" if lost else ""
        return f"{len(files):,} files, {sum(entry.size for entry in files):,} bytes, as published{without}"


@dataclass(frozen=True)
class OtherClient:
    """A program: its action in the test, and how to run it. `distribution`: the operating system chooses its
    version.
    """

    does: str
    read: Callable[[Place], str]
    version: Callable[[], str]
    distribution: bool = False


def _embedded(vector: list[float]) -> str:
    """Asserts that this is the mean of the published embeddings of the sentence's tokens, of length 1."""
    mean = [math.fsum(column) / len(TOKENS) for column in zip(*(EMBEDDINGS[each] for each in TOKENS), strict=True)]
    length = math.hypot(*mean)
    assert len(vector) == WIDTH
    assert all(math.isclose(got, want / length, abs_tol=1e-5) for got, want in zip(vector, mean, strict=True))
    return f"{WIDTH} numbers, as computed from the published weights"


def _pinned(requirements: tuple[str, ...], name: str) -> Callable[[], str]:
    """The installed version, which is the pinned one."""
    script = f"from importlib.metadata import version; print(version({name!r}))"

    def version() -> str:
        python = python_with(*requirements)
        return subprocess.run((python, "-c", script), capture_output=True, text=True, check=True).stdout.strip()

    return version


def _packed(name: str) -> Callable[[], str]:
    def version() -> str:
        text = (_javascript() / "node_modules" / name / "package.json").read_text("utf-8")
        return str(json.loads(text)["version"])

    return version


def _program(name: str, package: str, option: str = "--version") -> Callable[[], str]:
    """The version of a program of the operating system, without the part that changes with each bug fix."""

    def version() -> str:
        ran = subprocess.run((_found(name, package), option), capture_output=True, text=True, check=True)
        found = re.search(r"\d+\.\d+", ran.stdout)
        assert found, ran.stdout
        return found[0]

    return version


def _found(name: str, package: str = "") -> str:
    return needs(name, unlock=f"apt-get install {package or name}")


_NODE = functools.partial(_found, "node", "nodejs npm")


@functools.cache
def _javascript() -> Path:
    """A folder with the packages of `JAVASCRIPT`. Their own installation scripts, which fetch more, are not run."""
    npm = _found("npm", "nodejs npm")
    with kept("npm", *JAVASCRIPT) as (home, fresh):
        if fresh:
            options = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home))
            ran = subprocess.run(
                (npm, "install", *options, *JAVASCRIPT), capture_output=True, text=True, check=False, timeout=600
            )
            if ran.returncode:
                missing(f"npm could not get {JAVASCRIPT}: {ran.stderr[-300:]}; unlock: a package index at hand")
            for other in home.glob("node_modules/onnxruntime-node/bin/*/*"):
                if other.name != "linux":
                    shutil.rmtree(other)
    return home


def _hf(place: Place) -> str:
    hf = str(Path(sys.executable).with_name("hf"))
    place.run(hf, "download", place.name, "--revision", "v1", HF_ENDPOINT=place.url, HF_HUB_DISABLE_XET="1")
    return place.same()


def _hf_version() -> str:
    from importlib.metadata import version

    return version("huggingface_hub")


def _hf_transfer(place: Place) -> str:
    assert place.python(TRANSFER, _HF_TRANSFER, HF_HUB_ENABLE_HF_TRANSFER="1") == 1  # above five ranges
    return place.same()


_HF_TRANSFER = f"""
import functools, hf_transfer, json
calls, download = [], hf_transfer.download
@functools.wraps(download)
def counted(*arguments, **options):
    calls.append(1)
    return download(*arguments, **options)
hf_transfer.download = counted
from huggingface_hub import constants, snapshot_download
constants.DOWNLOAD_CHUNK_SIZE = 2**20
snapshot_download("{CHILD}", revision="v1")
print(json.dumps(len(calls)))
"""


def _tokenizers(place: Place) -> str:
    script = f"""
import json
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_pretrained("{CHILD}", revision="v1")
tokenizer.no_padding()
print(json.dumps(tokenizer.encode("{SENTENCE}").ids))
"""
    assert place.python(READERS, script) == TOKENS
    return f"{len(TOKENS)} token ids, as the vocabulary has them"


def _datasets(place: Place) -> str:
    script = f"""
import json
from datasets import load_dataset
named = load_dataset("{ROWS}", data_files="{DATA}", revision="v1", split="train").to_list()
file = load_dataset("json", data_files="hf://datasets/{ROWS}@v1/{DATA}", split="train").to_list()
address = load_dataset("json", data_files="{place.url}/datasets/{ROWS}/resolve/v1/{DATA}", split="train").to_list()
print(json.dumps([named, file, address]))
"""
    assert place.python(READERS, script) == [list(RECORDS)] * 3
    return f"{len(RECORDS)} records, three times as published"


def _diffusers(place: Place) -> str:
    script = f"""
import json
from diffusers.configuration_utils import ConfigMixin
class Pipeline(ConfigMixin):
    config_name = "model_index.json"
class Scheduler(ConfigMixin):
    config_name = "scheduler_config.json"
whole = Pipeline.load_config("{CHILD}", revision="v1")
part = Scheduler.load_config("{CHILD}", revision="v1", subfolder="scheduler")
print(json.dumps([whole, part]))
"""
    files = ("model_index.json", "scheduler/scheduler_config.json")
    assert place.python(READERS, script) == [json.loads(place.read(path)) for path in files]
    return "2 configurations, as published"


def _fastembed(place: Place) -> str:
    script = f"""
import json
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
TextEmbedding.add_custom_model(
    model="{CHILD}", sources=ModelSource(hf="{CHILD}"), model_file="onnx/model.onnx", dim={WIDTH},
    pooling=PoolingType.MEAN, normalization=True,
)
model = TextEmbedding("{CHILD}", cache_dir="cache")
(vector,) = model.embed(["{SENTENCE}"])
print(json.dumps([float(number) for number in vector]))
"""
    return _embedded(place.python(READERS, script))


def _kserve(place: Place) -> str:
    script = f'from kserve_storage import Storage; Storage.download("hf://{place.name}:v1", "out"); print(1)'
    place.python(SERVING, script)
    return place.same()


def _pooch(place: Place) -> str:
    known = [(place.address(entry.path), entry.sha256) for entry in place.release.ingested.manifest.files]
    script = f"""
import pooch
for number, (address, digest) in enumerate({known}):
    pooch.retrieve(address, known_hash="sha256:" + digest, path="out", fname=str(number))
print(1)
"""
    place.python(FETCHERS, script)
    return place.same()


def _fsspec(place: Place) -> str:
    script = f"""
import fsspec, json
files = fsspec.filesystem("http")
files.get({place.addresses}, [f"out/{{number}}" for number in range({len(place.addresses)})])
with files.open({place.address(SHARD)!r}, block_size=100_000) as file:
    file.seek(5_000_000)
    print(json.dumps(file.read(50).hex()))
"""
    assert place.python(FETCHERS, script) == place.read(SHARD)[5_000_000:5_000_050].hex()
    return place.same()


def _obstore(place: Place) -> str:
    script = f"""
import pathlib
from obstore.store import HTTPStore
store = HTTPStore.from_url("{place.url}/{place.name}/resolve/v1", client_options={{"allow_http": True}})
for number, path in enumerate({list(place.release.ingested.files)}):
    whole = bytes(store.get(path).bytes())
    if len(whole) > 2:
        assert bytes(store.get_range(path, start=1, length=len(whole) - 2)) == whole[1:-1]
    pathlib.Path(str(number)).write_bytes(whole)
print(1)
"""
    place.python(FETCHERS, script)
    return place.same()


def _oras_py(place: Place) -> str:
    script = f"""
from oras.client import OrasClient
print(len(OrasClient(insecure=True).pull(target="{place.image}", outdir="out")))
"""
    assert place.python(FETCHERS, script) == len(place.release.ingested.files)
    return place.same()


def _hub_js(place: Place) -> str:
    said = place.node(_HUB_JS, place.name)
    assert said["absent"] is False
    return place.same(said["lost"])


_HUB_JS = """
import { writeFileSync } from "node:fs";
import { downloadFile, fileExists, listFiles } from "@huggingface/hub";
const [hubUrl, repo] = process.argv.slice(2);
const at = { hubUrl, repo, revision: "v1" };
const lost = [];
let number = 0;
for await (const { path, type } of listFiles({ ...at, recursive: true })) {
  if (type !== "file") continue;
  const blob = await downloadFile({ ...at, path });
  if (blob) writeFileSync(String(number++), Buffer.from(await blob.arrayBuffer()));
  else lost.push(path);
  if ((blob !== null) !== (await fileExists({ ...at, path }))) throw new Error(path);
}
console.log(JSON.stringify({ lost, absent: await fileExists({ ...at, path: "absent" }) }));
"""


def _gguf_js(place: Place) -> str:
    script = """
import { gguf } from "@huggingface/gguf";
const { metadata, tensorInfos } = await gguf(process.argv[3]);
console.log(JSON.stringify([metadata["general.architecture"], tensorInfos.length]));
"""
    assert place.node(script, place.address(GGUF)) == ["llama", 1]
    return "one tensor of architecture `llama`"


def _transformers_js(place: Place) -> str:
    script = f"""
import {{ AutoTokenizer, env, pipeline }} from "@huggingface/transformers";
env.remoteHost = process.argv[2] + "/";
env.allowLocalModels = false;
env.cacheDir = "cache";
const at = {{ revision: "v1" }};
const tokens = (await AutoTokenizer.from_pretrained("{CHILD}", at)).encode("{SENTENCE}");
const embed = await pipeline("feature-extraction", "{CHILD}", {{ ...at, dtype: "fp32" }});
const {{ data }} = await embed("{SENTENCE}", {{ pooling: "mean", normalize: true }});
console.log(JSON.stringify([tokens, Array.from(data)]));
"""
    tokens, vector = place.node(script)
    assert tokens == TOKENS
    return _embedded(vector)


def _ipull(place: Place) -> str:
    script = """
import { downloadFile } from "ipull";
const [, ...addresses] = process.argv.slice(2);
for (const [number, url] of addresses.entries())
  await (await downloadFile({ url, savePath: String(number), parallelStreams: 4, cliProgress: false })).download();
console.log("\\n" + addresses.length);  // below what it writes to hide the cursor
"""
    assert place.node(script, *place.addresses) == len(place.addresses)
    return place.same()


def _curl(place: Place) -> str:
    place.run(_found("curl"), "-fsSL", "--remote-name-all", *place.addresses)
    return place.same()


def _wget(place: Place) -> str:
    place.run(_found("wget"), "--quiet", *place.addresses)
    return place.same()


def _wget2(place: Place) -> str:
    place.run(_found("wget2"), "--quiet", "--max-threads=4", *place.addresses)
    return place.same()


def _busybox(place: Place) -> str:
    for address in place.addresses:
        place.run(_found("busybox"), "wget", "-q", address)
    return place.same()


def _axel(place: Place) -> str:
    for number, address in enumerate(place.addresses):
        place.run(_found("axel"), "--quiet", "--num-connections=4", f"--output={number}", address)
    return place.same()


def _lftp(place: Place) -> str:
    for number, address in enumerate(place.addresses):
        place.run(_found("lftp"), "-c", f"pget -n 4 {address} -o {number}")
    return place.same()


def _aria2(place: Place) -> str:
    aria2, ranges = _found("aria2c", "aria2"), ("--split=4", "--min-split-size=1M", "--max-connection-per-server=4")
    checked = f"--checksum=sha-256={sha256(place.read(SHARD))}"
    place.run(aria2, "--quiet", *ranges, checked, place.address(SHARD))
    others = [address for address in place.addresses if address != place.address(SHARD)]
    place.run(aria2, "--quiet", "--force-sequential", *ranges, *others)
    return place.same()


def _rclone(place: Place) -> str:
    for address in place.addresses:
        place.run(_found("rclone"), "copyurl", "--auto-filename", address, ".")
    return place.same()


def _skopeo(place: Place) -> str:
    policy = place.folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    skopeo, source = (_found("skopeo"), "--policy", str(policy), "copy"), f"docker://{place.image}"
    place.run(*skopeo, "--src-tls-verify=false", source, "dir:out")
    return place.same()


def _oras(place: Place) -> str:
    place.run(_found("oras"), "pull", "--plain-http", "--output", "out", place.image)
    for path in place.release.ingested.files:
        assert (place.folder / "out" / path).read_bytes() == place.read(path)
    return place.same()


def _podman(place: Place) -> str:
    own = (_found("podman"), "--root", f"{place.folder}/root", "--runroot", f"{place.folder}/run")
    place.run(*own, "--storage-driver", "vfs", "artifact", "pull", "--tls-verify=false", place.image)
    return place.same()


OTHER_CLIENTS: Mapping[str, OtherClient] = {
    "hf": OtherClient("`hf download` of a version", _hf, _hf_version),
    "hf_transfer": OtherClient(
        "`snapshot_download` of huggingface_hub 0.36, `HF_HUB_ENABLE_HF_TRANSFER=1`: the largest in ranges of 1 MiB",
        _hf_transfer,
        _pinned(TRANSFER, "hf_transfer"),
    ),
    "tokenizers": OtherClient(
        "`Tokenizer.from_pretrained`, then a sentence", _tokenizers, _pinned(READERS, "tokenizers")
    ),
    "datasets": OtherClient(
        "`load_dataset` of JSON lines: by the name of the repository, by `hf://`, and by the address of the file",
        _datasets,
        _pinned(READERS, "datasets"),
    ),
    "diffusers": OtherClient(
        "`load_config` of a pipeline and of its scheduler; pipelines need PyTorch, which the test does not install",
        _diffusers,
        _pinned(READERS, "diffusers"),
    ),
    "fastembed": OtherClient(
        "a custom `TextEmbedding`: the tokenizer and the word embeddings as ONNX, then a sentence",
        _fastembed,
        _pinned(READERS, "fastembed"),
    ),
    "kserve-storage": OtherClient(
        "`Storage.download` of `hf://NAMESPACE/NAME:VERSION`", _kserve, _pinned(SERVING, "kserve-storage")
    ),
    "pooch": OtherClient("`retrieve` of each file, with its SHA-256", _pooch, _pinned(FETCHERS, "pooch")),
    "fsspec": OtherClient(
        "`get` of the address of each file, and a part of the largest by ranges", _fsspec, _pinned(FETCHERS, "fsspec")
    ),
    "obstore": OtherClient(
        "`HTTPStore` over a version: each file, and all of it but its ends", _obstore, _pinned(FETCHERS, "obstore")
    ),
    "oras (Python)": OtherClient("`OrasClient().pull` of a version", _oras_py, _pinned(FETCHERS, "oras")),
    "@huggingface/hub": OtherClient(
        "on Node.js: `listFiles`; `fileExists` and `downloadFile` of each", _hub_js, _packed("@huggingface/hub")
    ),
    "@huggingface/gguf": OtherClient(
        "on Node.js: the header of a GGUF file, by ranges", _gguf_js, _packed("@huggingface/gguf")
    ),
    "@huggingface/transformers": OtherClient(
        "on Node.js: a tokenizer and a `feature-extraction` pipeline over the same ONNX",
        _transformers_js,
        _packed("@huggingface/transformers"),
    ),
    "ipull": OtherClient(
        "on Node.js: `downloadFile` of the address of each file, with `parallelStreams: 4`", _ipull, _packed("ipull")
    ),
    "curl": OtherClient("`curl -L` of the address of each file", _curl, _program("curl", "curl"), True),
    "wget": OtherClient("the same", _wget, _program("wget", "wget"), True),
    "wget2": OtherClient(
        "the same, four at once; not with `--chunk-size`, with which it follows no redirect",
        _wget2,
        _program("wget2", "wget2"),
        True,
    ),
    "busybox": OtherClient("`busybox wget` of each", _busybox, _program("busybox", "busybox", "--help"), True),
    "axel": OtherClient("`axel --num-connections=4` of each", _axel, _program("axel", "axel"), True),
    "lftp": OtherClient("`pget -n 4` of each", _lftp, _program("lftp", "lftp"), True),
    "aria2": OtherClient(
        "each address in four ranges at once, the largest with its own SHA-256 check",
        _aria2,
        _program("aria2c", "aria2"),
        True,
    ),
    "rclone": OtherClient("`rclone copyurl`", _rclone, _program("rclone", "rclone"), True),
    "skopeo": OtherClient(
        "`skopeo copy` of a version as an OCI artifact into a folder", _skopeo, _program("skopeo", "skopeo"), True
    ),
    "oras": OtherClient("`oras pull` of a version", _oras, _program("oras", "oras", "version"), True),
    "podman": OtherClient(
        "`podman artifact pull` of a version into its store", _podman, _program("podman", "podman"), True
    ),
}
"""The clients by their names in the table, in the order of the table."""
