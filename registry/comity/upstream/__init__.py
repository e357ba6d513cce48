"""Bringing a repository of a Hub here, with everything that was checked on the way and nothing that was not.

    session    HTTP as huggingface-hub does it, held to one endpoint and to bounds
    listing    what a Hub lists for a commit, through huggingface-hub's own API
    reach      where a download may be led, and with which credentials
    download   one file: ranges, resumed after anything, hashed as it comes
    mirror     a whole commit into a folder
    folder     the same from a folder that came by other ways

Blocking, for threads. huggingface-hub's own download functions are not used: they hash nothing, know no bound, and do
not resume what another process began.
"""
