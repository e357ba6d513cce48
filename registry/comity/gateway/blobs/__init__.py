"""Bytes of blobs over HTTP: a small file server beside the ASGI application, at the speed of one.

    urls        signed, short-lived URLs, each bound to one blob
    request     the head of a request: parsed or refused
    ranges      which bytes of a file a request asks for
    checked     bytes that are known to be right when they leave
    response    what a request is answered
    connection  one client: requests in, answers out, and how long that may take
    server      sockets, threads, and how many of each

Who may have a blob is decided by whoever signs its URL; names, artifacts and tokens are not known here.
"""
