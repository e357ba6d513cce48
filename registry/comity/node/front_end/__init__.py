"""A front end: a process that only reads the ledger and the blobs that its node's writer writes, and serves them.

home        opens the database, the blobs and the public files of the node; no signing key is read
following   follows what the writer commits: entries, members, epochs; and how old that is
app         starts a front end and runs it until it is stopped, or until the ledger is another one; what it refuses,
            with the address of the writer
"""
