#!/usr/bin/env bash
# Fetches what the page uses of others, at just these versions, checks it against
# the digests below and puts it into static/vendor with its licences. `make vendor-web`.
set -euo pipefail
cd "$(dirname "$0")"

# package, version, digest of the archive as npm has it
packages='
uplot 1.6.32 sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==
@fontsource-variable/inter 5.3.0 sha512-OupL48va4JNofb97w6NYeF9S7W/kHNKM0Er8Dem5nqi4jeOLrVJDoE8tZEpnMJmtkvNbB1EIPPwHcdkF6b1oUA==
'

to=$PWD/static/vendor
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
command -v npm >/dev/null || { echo 'npm is missing: install Node.js with it'; exit 1; }
while read -r name version digest; do
  [ -n "$name" ] || continue
  archive=$(cd "$tmp" && npm pack --ignore-scripts --silent "$name@$version")
  got=sha512-$(openssl dgst -sha512 -binary "$tmp/$archive" | base64 -w0)
  [ "$got" = "$digest" ] || { echo "$name@$version is not what it was: $got"; exit 1; }
  mkdir -p "$tmp/$name"
  tar -xzf "$tmp/$archive" -C "$tmp/$name" --strip-components=1
done <<<"$packages"

rm -rf "$to"
mkdir -p "$to"
cp "$tmp/uplot/dist/uPlot.iife.min.js" "$to/uplot.js"
cp "$tmp/uplot/dist/uPlot.min.css" "$to/uplot.css"
cp "$tmp/uplot/LICENSE" "$to/uplot.licence.txt"
cp "$tmp/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2" "$to/inter.woff2"
cp "$tmp/@fontsource-variable/inter/LICENSE" "$to/inter.licence.txt"
(cd "$to" && sha256sum -- *.* >../../vendor.sha256)
echo "vendored:" && cat vendor.sha256
