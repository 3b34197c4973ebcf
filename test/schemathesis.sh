#!/usr/bin/env bash
# Sends what schemathesis makes of /openapi.json, right and wrong, to the whole suite
# (-service=all) on free ports, and holds every answer to the document.
#   test/schemathesis.sh BINARY SCHEMATHESIS
# What it starts ends with it.
set -euo pipefail
binary=$(realpath "$1") schemathesis=$(realpath -s "$2")
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
suite=''
finish() {
  code=$?
  trap - EXIT
  if [ -n "$suite" ]; then
    kill -TERM "$suite" 2>/dev/null || true
    wait "$suite" || { echo "the suite ended with $?"; code=1; }
  fi
  if [ "$code" -ne 0 ]; then tail -n 40 "$dir/log" || true; fi
  rm -rf "$dir"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

read -r broker api < <(python3 - <<'PY'
import socket
held = [socket.socket() for _ in range(2)]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
PY
)
cp "$here"/openapi/* "$dir"
cd "$dir" # where no config.env is, and what schemathesis writes goes with it
BROKER=127.0.0.1:$broker PORT=$api STATE_DIR=$dir/state DATA_DIR=$dir/kafka "$binary" -service=all 2>"$dir/log" &
suite=$!
for ((i = 0; ; i++)); do
  if curl -fsS -o /dev/null "http://127.0.0.1:$api/readyz" 2>/dev/null; then break; fi
  kill -0 "$suite" 2>/dev/null || { echo "the suite does not start"; exit 1; }
  if [ $i -ge 300 ]; then echo "the suite is not ready within 60 s"; exit 1; fi
  sleep 0.2
done
PYTHONDONTWRITEBYTECODE=1 "$schemathesis" --config-file schemathesis.toml run --no-color "http://127.0.0.1:$api/openapi.json" "${@:3}"
