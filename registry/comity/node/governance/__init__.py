"""The charter as a node follows it. What is decided is computed from signed lines (`comity.trust.charter`).

annals       the epochs held, and the branch that is followed
hearing      what is said about one next epoch, within a share for each log
proceedings  the hearings, filled from the logs as they grow
witnesses    lines of those without a seat on which a draft rests
bodies, memo charter bodies from the store; signatures that were judged before
chamber      the loop: deliberate, take up, accuse, stop at a fork
asks         requests to join
"""
