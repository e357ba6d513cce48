"""The read routes of a Hugging Face Hub, as unmodified clients ask for them. Facts: the design's hub protocol notes.

    address     what a request's path asks for
    catalogue   from a repository and a revision to the artifact that this node stands by
    judging     whether the node's own policy lets it be served, and what to warn of
    shelf       the repositories there are, for lists and search
    views       the JSON that clients expect
    content     the bytes of one file
    routes      all of it as HTTP

An artifact has no type: it is a model, a dataset or a space to whoever reads it as one. Nothing is ever written here,
nothing is compressed, and no answer names Xet.
"""
