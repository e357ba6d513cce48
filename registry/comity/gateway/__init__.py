"""The HTTP gateway of a node: read routes for unmodified clients. Runs in the process and event loop of the node.

app           the ASGI application, and the start and end of the gateway
console/      pages for browsers
http          listening socket, connection limits, access tokens, errors, headers, bounds
hub/          the read routes of the Hugging Face Hub
ollama        the registry routes of Ollama and of older llama.cpp
fileserver/   a file server for large files and for peers, with signed URLs
tlog/         the HTTP APIs of transparency logs, witnesses and mirrors

`comity.trust` makes all trust decisions, and `comity.ledger` stores all state.
"""
