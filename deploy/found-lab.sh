#!/bin/sh
# Found the four-node lab of compose.yaml in a folder, as its members would by mail: cards out, consents back, one file.
#   deploy/found-lab.sh LAB        makes LAB/node-{ch,es,kr,sg}/ and LAB/public/federation.json, once
set -eu
lab=$1
nodes='node-ch:CH:Example Institute Zurich
node-es:ES:Example Centre Barcelona
node-kr:KR:Example Institute Daejeon
node-sg:SG:Example Agency Singapore'

mkdir -p "$lab/public"
if [ -e "$lab/public/federation.json" ]; then
  echo "already founded: $lab/public/federation.json"
  exit 0
fi
mail=$(mktemp -d)
trap 'rm -rf "$mail"' EXIT

echo "$nodes" | while IFS=: read -r name jurisdiction organisation; do
  comity init --quiet --dir "$lab/$name" --name "$name" --jurisdiction "$jurisdiction" --org "$organisation" \
    --mutual "$name:7443" --open "$name:7444"
  cp "$lab/$name/node-card.json" "$mail/card-$name.json"
done
comity found draft --quiet "$mail"/card-*.json --out "$mail/genesis.json"
echo "$nodes" | while IFS=: read -r name _; do
  comity found consent --quiet --yes "$mail/genesis.json" --dir "$lab/$name" --out "$mail/consent-$name.line"
done
comity found seal --quiet "$mail/genesis.json" "$mail"/consent-*.line "$mail"/card-*.json --out "$mail/federation.json"
echo "$nodes" | while IFS=: read -r name _; do
  cp "$mail/federation.json" "$lab/$name/federation.json"
done
cp "$mail/federation.json" "$lab/public/federation.json"
echo "founded: $lab/public/federation.json"
