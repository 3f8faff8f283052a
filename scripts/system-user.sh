#!/usr/bin/env bash
# Creates a system user when root asks for one that does not exist. Others run servers as themselves.
set -euo pipefail

[ "$(id -u)" = 0 ] || exit 0
id -u "$1" >/dev/null 2>&1 || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "$1"
