"""The logs for everybody: the faces that C2SP gives transparency logs, witnesses and mirrors, over HTTP.

    known       which logs these faces know, and under which prefix
    tiles       reading: checkpoints, tiles, entries (tlog-tiles)
    witness     add-checkpoint, and the plain witness's own key (tlog-witness)
    mirror      add-entries: a log that is pushed here, not pulled (tlog-mirror)
    body        the body of an upload, read in parts
    submit      our own log before outside witnesses
    routes      the addresses

The node's cosigner is a mirror: here, as everywhere, it signs only what it holds. The plain witness has another key and
another name, and signs what continues what it signed before.
"""
