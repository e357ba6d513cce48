"""The running node: what it serves, how it follows the others, what it signs.

    config, keys, membership   what the operator decides, which keys there are, who is who
    app, core, doors           assembly: an opened home, three doors, an orderly end
    services/                  the thinking halves of the calls
    publishing/                statements and bytes coming in from publishers
    replication/               following peers: logs, cosignatures, artifacts, misbehaviour
    own_log, tasks, status     the log it writes, its background loops, how it is

What is true is decided in `comity.trust`, how bytes travel in `comity.wire`, what is remembered in `comity.ledger`.
"""
