"""The wheels among the files of an artifact as a simple index of Python packages, for pip, uv and other installers.

The index names each wheel with the SHA-256 that the publisher signed. The file itself is at the address that it has for
every other client, so that one policy, one access and one reader of files serve it.
"""
