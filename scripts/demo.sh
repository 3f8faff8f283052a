#!/usr/bin/env bash
# Runs the demo of the built program. PostgreSQL refuses root, so root hands the demo to the user ernstfall, with a
# copy of the program, as the checkout may lie where that user cannot read.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    exec target/debug/ernstfall demo
fi
scripts/system-user.sh ernstfall
directory=$(mktemp -d /tmp/ernstfall-demo.XXXXXX)
trap 'rm -rf "$directory"' EXIT
install -d -o ernstfall -g ernstfall -m 0700 "$directory/state"
install -m 0755 target/debug/ernstfall "$directory/ernstfall"
chmod 0711 "$directory"
cd "$directory/state"
runuser -u ernstfall -- env HOME="$directory/state" TMPDIR="$directory/state" "$directory/ernstfall" demo
