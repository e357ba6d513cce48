"""The logs for everybody: the faces that C2SP gives transparency logs, witnesses and mirrors, over HTTP.

    known       which logs these faces know, and under which prefix
    tiles       reading: checkpoints, tiles, entries (tlog-tiles)
    witness     add-checkpoint: what logs submit (tlog-witness)
    witness_key the plain witness's own key
    mirror      add-entries: a log that is pushed here, not pulled (tlog-mirror)
    body        the body of an upload, read in parts
    routes      the addresses

The node's cosigner is a mirror: here, as everywhere, it signs only what it holds. The plain witness has another key and
another name, and signs what continues what it signed before. How our own log is shown to outside witnesses is said in
`comity.node.outside`.
"""
