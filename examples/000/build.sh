#!/bin/sh
# build.sh VERSION [ERROR_RATE]: makes dist/auth-service-VERSION. A version with an ERROR_RATE above 0
# is a bad one, to see it come back.
set -eu
cd "$(dirname "$0")"
version=${1:?build.sh VERSION [ERROR_RATE]}
folder=dist/auth-service-$version
mkdir -p "$folder"
cp src/app.py "$folder/"
printf '{"version": "%s", "errorRate": %s}\n' "$version" "${2:-0}" >"$folder/settings.json"
echo "$folder"
