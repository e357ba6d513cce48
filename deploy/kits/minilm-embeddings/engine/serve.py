"""Serve embeddings of a BERT model from safetensors, with the route of OpenAI's API, until it is stopped.

The model runs in numpy: a dozen matrix products a layer. Its folder has `model.safetensors`, `config.json` and
`vocab.txt`, as sentence-transformers publishes all-MiniLM-L6-v2; vectors are means over all tokens, of length one.
"""

import argparse
import base64
import json
import math
import struct
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy

MAX_REQUEST = 16 * 1024 * 1024
MAX_TEXTS = 2048
LONGEST_WORD = 100


class Tokenizer:
    """WordPiece of an uncased BERT: words without accents, cut into the longest pieces of the vocabulary."""

    def __init__(self, vocabulary: Path) -> None:
        pieces = vocabulary.read_text("utf-8").split("\n")
        self.ids = {piece: number for number, piece in enumerate(pieces) if piece}

    def encode(self, text: str, most: int) -> list[int]:
        found = [number for word in self.words(text) for number in self.pieces(word)]
        return [self.ids["[CLS]"], *found[: most - 2], self.ids["[SEP]"]]

    def words(self, text: str) -> list[str]:
        shown: list[str] = []
        for character in text:
            kind = unicodedata.category(character)
            if (kind in ("Cc", "Cf", "Co", "Cs") and character not in "\t\n\r") or character == "\ufffd":
                continue
            shown.append(f" {character} " if _is_ideograph(ord(character)) else character)
        plain = unicodedata.normalize("NFD", "".join(shown))
        plain = "".join(c for c in plain if unicodedata.category(c) != "Mn").lower()
        apart = (f" {c} " if _is_punctuation(c) else c for c in plain)
        return "".join(apart).split()

    def pieces(self, word: str) -> list[int]:
        found, begin = [], 0
        while begin < len(word) <= LONGEST_WORD:
            prefix = "##" if begin else ""
            ends = range(len(word), begin, -1)
            end = next((end for end in ends if prefix + word[begin:end] in self.ids), None)
            if end is None:
                break
            found.append(self.ids[prefix + word[begin:end]])
            begin = end
        return found if begin == len(word) else [self.ids["[UNK]"]]


def _is_punctuation(character: str) -> bool:
    ascii_sign = character.isascii() and not character.isalnum() and not character.isspace() and character > " "
    return ascii_sign or unicodedata.category(character).startswith("P")


def _is_ideograph(code: int) -> bool:
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )


class Bert:
    """The forward pass of a BERT encoder, for one text at a time."""

    def __init__(self, folder: Path, most: int) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.epsilon, self.most = config["layer_norm_eps"], min(most, config["max_position_embeddings"])
        self.width = config["hidden_size"]
        self.weights = read_safetensors(folder / "model.safetensors")

    def embed(self, tokens: list[int]) -> numpy.ndarray:
        """The mean of the vectors of all tokens, with the length one."""
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][tokens]
        x = x + w["embeddings.position_embeddings.weight"][: len(tokens)]
        x = self.norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for number in range(self.layers):
            x = self.layer(x, f"encoder.layer.{number}")
        mean = x.mean(axis=0)
        return mean / numpy.linalg.norm(mean)

    def layer(self, x: numpy.ndarray, name: str) -> numpy.ndarray:
        parts = (len(x), self.heads, self.width // self.heads)
        q, k, v = (
            self.linear(x, f"{name}.attention.self.{part}").reshape(parts).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(parts[2])
        scores = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        mixed = mixed.transpose(1, 0, 2).reshape(len(x), self.width)
        x = self.norm(x + self.linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        inner = self.linear(x, f"{name}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        return self.norm(x + self.linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def linear(self, x: numpy.ndarray, name: str) -> numpy.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: numpy.ndarray, name: str) -> numpy.ndarray:
        apart = x - x.mean(axis=-1, keepdims=True)
        scaled = apart / numpy.sqrt((apart**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def erf(x: numpy.ndarray) -> numpy.ndarray:
    """The error function, to 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""
    t = 1 / (1 + 0.3275911 * numpy.abs(x))
    sum_ = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return numpy.sign(x) * (1 - sum_ * numpy.exp(-x * x))


def read_safetensors(path: Path) -> dict[str, numpy.ndarray]:
    """The tensors of 32-bit floats of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    found = {}
    for name, about in json.loads(data[8 : 8 + length]).items():
        if about.get("dtype") == "F32":
            begin, end = (8 + length + offset for offset in about["data_offsets"])
            found[name] = numpy.frombuffer(data[begin:end], "<f4").reshape(about["shape"])
    return found


class Handler(BaseHTTPRequestHandler):
    """Routes of OpenAI's API for embeddings, and `/health`."""

    protocol_version = "HTTP/1.1"
    tokenizer: Tokenizer
    model: Bert
    name: str

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": self.name, "object": "model"}]})
        else:
            self.refuse(404, "no such route")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_REQUEST:
            self.close_connection = True
            self.refuse(413, f"a request has at most {MAX_REQUEST} bytes, and says how many")
            return
        body = self.rfile.read(int(length))
        if self.path != "/v1/embeddings":
            self.refuse(404, "no such route")
            return
        try:
            asked = json.loads(body)
            texts, form = asked["input"], asked.get("encoding_format", "float")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.refuse(400, "expected JSON with the member 'input'")
            return
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_TEXTS:
            self.refuse(400, f"'input' must be a text, or 1 to {MAX_TEXTS} texts")
        elif not all(isinstance(text, str) for text in texts):
            self.refuse(400, "'input' must be texts")
        else:
            self.answer(200, self.embedded(texts, form))

    def embedded(self, texts: list[str], form: object) -> dict:
        tokens = [self.tokenizer.encode(text, self.model.most) for text in texts]
        vectors = [self.model.embed(each).astype("<f4") for each in tokens]
        count = sum(map(len, tokens))
        written = [base64.b64encode(v.tobytes()).decode() if form == "base64" else v.tolist() for v in vectors]
        data = [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(written)]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data, "model": self.name, "usage": usage}

    def refuse(self, status: int, why: str) -> None:
        self.answer(status, {"error": {"message": why, "type": "invalid_request_error"}})

    def answer(self, status: int, what: dict) -> None:
        data = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: they may hold what nobody else should read."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a folder")
    parser.add_argument("--name", default="embeddings", help="of the model, as the API gives it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--longest", type=int, default=256, help="tokens of a text that count")
    given = parser.parse_args()
    Handler.tokenizer, Handler.model = Tokenizer(given.model / "vocab.txt"), Bert(given.model, given.longest)
    Handler.name = given.name
    server = ThreadingHTTPServer((given.host, given.port), Handler)
    print(f"serving {given.name} at http://{given.host}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
