"""Bytes of blobs over HTTP: a small file server beside the ASGI application, at the speed of one.

    urls        signed, short-lived URLs, each bound to one blob
    request     the head of a request: parsed or refused
    ranges      which bytes of a file a request asks for
    checked     bytes that are known to be right when they leave; cut, proofs: how that is known
    response    what a request is answered
    pipe        ways out of a socket, and the patience they have
    connection  one client: requests in, answers out, and how long that may take
    server      sockets, threads, and how many of each
    serving     the servers of a running node

Who may have a blob is decided by whoever signs its URL; names, artifacts and tokens are not known here.
"""
