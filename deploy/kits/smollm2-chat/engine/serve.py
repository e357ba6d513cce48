"""Serve a GGUF model by llama.cpp with the routes of OpenAI's API, until it is stopped."""

import argparse
import signal

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--name", default="chat", help="of the model, as the API gives it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=1, help="of one answer")
    parser.add_argument("--context", type=int, default=2048, help="tokens of a conversation")
    given = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.model_alias = {given.name}
    params.hostnames = [given.host]
    params.port = given.port
    params.n_ctx = given.context
    params.n_parallel = 1
    params.cpuparams.n_threads = given.threads
    params.sampling.temp = 0
    params.sampling.seed = 1
    params.cache_prompt = False  # equal questions get equal answers, whatever was asked before
    params.warmup = False
    params.ui = False
    params.offline = True
    server = xllamacpp.Server(params)
    print(f"serving {given.name} at {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
