"""Repositories elsewhere: their names, what their own hashes prove, and what nodes say of them.

naming      hf:org/name@commit
comparing   what an upstream lists, held against what was hashed here
observed    the `observed` statement: mirrored from there
news        `upstream-changed` and `upstream-gone`
"""
