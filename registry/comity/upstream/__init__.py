"""Imports a repository of an upstream, with every check that was made on the way.

    listed_files  what is requested, what is listed, and comparing with it
    hub_api    which hosts a download may use and with which credentials; HTTP limits; listings of a commit
    http_list  a list of files with digests at a web server
    s3_prefix  objects below a prefix of an S3 bucket
    oci_image  an image in an OCI registry, whose layers are files or archives
    packed_layers  the files in a layer that is an archive
    registry_tokens  the credentials that such a registry demands
    model_scope  a repository of ModelScope
    git_objects  what a git server answers: packet lines, packs, trees, LFS pointers
    git_repository  a git repository with LFS
    download   one file: ranges, resumption, hashing
    mirror     a whole commit into a folder, from an upstream or from a local folder

Blocking: call from a thread. huggingface-hub's own download functions are not used: they do not hash, have no limits,
and do not resume what another process began.
"""
