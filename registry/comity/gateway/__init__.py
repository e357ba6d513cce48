"""The HTTP face of a node: what unmodified clients of other worlds read here. Runs in the node's process and loop.

    running, beside    the parts of a node that routes use; how the gateway starts and ends with its node
    app                the one ASGI application: routes, errors, headers, bounds
    server             the listening socket
    access             who may read what: the node's tokens
    hub/               the Hugging Face Hub's read routes
    gguf/              the registry routes of Ollama and of older llama.cpp
    blobs/             a file server for large files and for peers, by signed URLs
    tlog/              the faces of transparency logs, witnesses and mirrors

Nothing is decided here that `comity.trust` decides, and nothing is kept that `comity.ledger` keeps.
"""
