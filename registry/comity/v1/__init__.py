"""Generated from proto/comity/v1 by proto/generate.sh. Nothing here is written by hand; only `comity.wire` imports it."""
