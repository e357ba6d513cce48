#!/bin/sh
# Generate registry/comity/v1 from the .proto files beside this script: see README.md.
# Usage: proto/generate.sh [OUTPUT-ROOT]      (PROTOC_PYTHON: an interpreter that has the pinned tools)
set -eu
proto=$(cd "$(dirname "$0")" && pwd)
out=${1:-$proto/../registry}
python=${PROTOC_PYTHON:-$proto/.tools/bin/python}

if [ ! -x "$python" ]; then
    python3 -m venv "$proto/.tools"
    "$python" -m pip --quiet install --requirement "$proto/requirements.txt"
fi
PATH=$(dirname "$python"):$PATH
export PATH
exec "$python" -m grpc_tools.protoc --proto_path="$proto" \
    --python_out="$out" --mypy_out=quiet:"$out" "$proto"/comity/v1/*.proto
