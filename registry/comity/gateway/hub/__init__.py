"""The read routes of a Hugging Face Hub for unmodified clients. Sources: the hub protocol notes of the design.

views          request paths, snapshots, and the JSON that clients expect
catalogue      resolves a repository and revision to an artifact, and lists repositories
mirrored       repositories that nodes mirrored from an upstream
judge          the policy decision of this node, and the cache of its results
list_items     items of lists, made ahead and kept until a statement about them is proven
list_file      where they are kept
read_through   repositories that are mirrored on demand
files, routes  file bodies, and HTTP routes

An artifact has no type: it is served as a model, a dataset or a space, as the client asks. Routes are read-only,
nothing is compressed, and no response mentions Xet.
"""
