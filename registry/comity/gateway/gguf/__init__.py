"""GGUF files for programs that do not speak Hub: Ollama, and llama.cpp before it did. Their registry routes, read-only.

    models    which file of an artifact a tag means, and the manifest that wraps it
    routes    /v2/{namespace}/{name}/manifests/{tag} and blobs/{digest}

Newer llama.cpp (`-hf`) uses the Hub's own routes and finds nothing special here.
"""
