"""The running node: serves calls, mirrors the logs and artifacts of other nodes, and signs its own log.

    settings, config            each setting, its default and meaning, and where its value comes from
    home, members               opened keys, ledger and store; members, nodes and their keys
    app, listeners, supervisor  start and stop, the three listeners, background loops
    threads                     the ledger for the event loop, and threads for other blocking work
    services/                   implementations of the RPC services
    admission                   who may log what in this node's log
    publishing, uploads         statements and files from publishers
    replication/                logs, cosignatures, artifacts and misbehaviour proofs of peers
    own_log, intake             the log that this node writes; verification of the entries of all logs

Validity is decided in `comity.trust`, transport is in `comity.wire`, storage in `comity.ledger`.
"""
