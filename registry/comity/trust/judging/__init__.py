"""From a pile of claims to who said what, for how long they spoke, and who saw it in a log: what `verify` stands on."""
