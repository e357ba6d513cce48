"""The charter: who the members of a federation are, and how a quorum of them, and nobody else, changes that.

    body         the document of one epoch; the quorum floor
    founding     epoch 0, by everybody's consent
    succession   what every body must keep of the one before it
    proposing    drafts, consents, leaving, adopting
    readings     INTENT and RATIFY: what they say, and what is void on its face
    pile         signed lines, sorted by what they are about
    docket       which of them count
    certificate  what makes a body the successor of another, for ever
    lies         pairs of readings that no honest member signs
    voting       what an honest member may sign next, and must not
    stranding    whether a body would leave its members unable to change it again
    proceedings  the values that a council is made of
    council      all of it over any set of lines: epochs, open drafts, lies, forks, and (`duties`) who must do what

Pure functions over bytes and frozen values: the same lines give everybody the same answers. Source: protocol,
section 7.
"""
