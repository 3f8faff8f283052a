#!/usr/bin/env bash
# Starts a Ceph object gateway on loopback, in a temporary directory and in memory, and runs a command with it; ends
# only what it started.
# usage: with-ceph.sh COMMAND [ARGUMENT…]
# The command finds ERNSTFALL_TEST_S3_ENDPOINT, _KEY, _SECRET and _BUCKETS: one plain, one that keeps versions, one with
# Object Lock.
set -euo pipefail

directory=$(mktemp -d /tmp/ernstfall-ceph.XXXXXX)
started=()
finish() {
    local code=$?
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${started[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    if [ "$code" != 0 ]; then
        echo "the last words of the gateway and of the others:" >&2
        tail -n 5 "$directory"/log/* >&2 || true
    fi
    rm -rf "$directory"
}
trap finish EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
    "$@" >>"$directory/log/${1##*/}.out" 2>&1 &
    started+=($!)
}

wait_for() {
    local what=$1
    shift
    for _ in $(seq 240); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.5
    done
    echo "waited in vain for $what" >&2
    return 1
}

mon_port=$(free_port)
gateway_port=$(free_port)
mkdir -p "$directory"/{log,run,mon,mgr,osd}
export CEPH_CONF=$directory/ceph.conf
cat >"$CEPH_CONF" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = [v2:127.0.0.1:$mon_port]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = $directory/keyring
admin socket = $directory/run/\$name.\$pid.asok
run dir = $directory/run
log file = $directory/log/\$name.log
mon data = $directory/mon
mgr data = $directory/mgr
osd data = $directory/osd
crash dir = $directory
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
rgw frontends = beast endpoint=127.0.0.1:$gateway_port
CONF

export PATH=$PATH:/usr/sbin
key() {
    ceph-authtool "$directory/keyring" --gen-key --name "$@" >/dev/null
}
: >"$directory/keyring"
key mon. --cap mon 'allow *'
key client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
key mgr.test --cap mon 'allow profile mgr' --cap osd 'allow *'
key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'
key client.gateway --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'

fsid=$(sed -nE 's/^fsid = //p' "$CEPH_CONF")
monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon_port]" "$directory/monmap" >/dev/null
ceph-mon --mkfs --id a --monmap "$directory/monmap" --keyring "$directory/keyring"
start ceph-mon --id a --foreground
wait_for 'the monitor' timeout 5 ceph status
start ceph-mgr --id test --foreground
osd=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$osd" 0 >/dev/null
ceph-osd --id 0 --mkfs --osd-uuid "$osd" >/dev/null 2>&1
start ceph-osd --id 0 --foreground
wait_for 'the disk' bash -c 'timeout 5 ceph osd stat | grep -q "1 up"'
start radosgw --name client.gateway --foreground

export ERNSTFALL_TEST_S3_ENDPOINT=http://127.0.0.1:$gateway_port
export ERNSTFALL_TEST_S3_KEY=test-key ERNSTFALL_TEST_S3_SECRET=test-secret-hunter2
export ERNSTFALL_TEST_S3_BUCKETS=plain,versioned,locked
wait_for 'the gateway' python3 -c "import socket; socket.create_connection(('127.0.0.1', $gateway_port), 1)"
radosgw-admin user create --uid=test --display-name=test \
    --access-key="$ERNSTFALL_TEST_S3_KEY" --secret-key="$ERNSTFALL_TEST_S3_SECRET" >/dev/null
python3 "$(dirname "$0")/make-buckets.py"
echo "gateway: $(radosgw --version) at $ERNSTFALL_TEST_S3_ENDPOINT" >&2
"$@"
