"""Pages for people in a browser: what is held, by whom, and what would break; after sign-in, how this node is.

words       the language of a page: message catalogues, and the template environment
cards       model cards as safe HTML
descent     under whose law the roots of the artifacts are, counted in the background
copies      which members claim which artifacts, and what the loss of a member would leave
index       artifacts by name, and their copies: read from the ledger by a background task
state       members, logs, drafts and alerts, as every page shows them
artifact    the page of one artifact
logs        the log explorer
offers      the compute board: offers of machines
loans       the compute board: who lends to whom
proposals   the open changes of the charter
member_map  the map of the members, as SVG
feeds       Atom feeds of new versions and warnings
page        one page: its reader, its headers, its text from a template, and the forms that browsers send from it
sessions    sessions of people who signed in
sign_in     signing in and out
oidc        signing in through an OpenID Connect provider
node_pages  how the node is, what waits for its people, sessions, tokens of the gateway, the audit log; costs of a year,
            and checks of continuity plans
log_pages   the pages of the log explorer
routes      the catalogue, an artifact, the overview and the other pages for everybody who may read
opening     puts the console together

No page runs a script, loads from another host, or reads a key. Each fact says who
vouches for it: verified here, claimed by a named party, or unknown.
"""
