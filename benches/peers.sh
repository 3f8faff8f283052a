#!/usr/bin/env bash
# Backup and restore against pg_dump and pg_restore, in turn on one machine and one server: only the ratios mean anything
# elsewhere. Prints each run, then the median ratio (below 1: Ernstfall was faster), and the peak memory of our process.
# usage: peers.sh PROGRAM    environment: SCALE (pgbench scale, 20), RUNS (3), JOBS (2)
set -euo pipefail

program=$(realpath "$1")
scale=${SCALE:-20} runs=${RUNS:-3} jobs=${JOBS:-2}
directory=$(mktemp -d /tmp/ernstfall-bench.XXXXXX)
if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses root, and the checkout may lie where the other user cannot read.
    "$(dirname "$0")/../scripts/system-user.sh" ernstfall-test
    install -m 0755 "$program" "$directory/ernstfall"
    install -m 0755 "$0" "$directory/peers.sh"
    chown -R ernstfall-test: "$directory"
    cd "$directory"
    code=0
    runuser -u ernstfall-test -- env SCALE="$scale" RUNS="$runs" JOBS="$jobs" "$directory/peers.sh" "$directory/ernstfall" || code=$?
    rm -rf "$directory"
    exit "$code"
fi

bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n 1)")
PATH=$bin:$PATH
export PGHOST=$directory PGPORT=5432 PGUSER=postgres
initdb --pgdata="$directory/data" --username=postgres --auth=trust --no-sync >/dev/null
postgres -D "$directory/data" -c listen_addresses= -c unix_socket_directories="$directory" -c fsync=off \
    >"$directory/log" 2>&1 &
server=$!
trap 'kill -INT $server; wait $server || true; rm -rf "$directory"' EXIT
until pg_isready --quiet; do kill -0 $server; done
createdb bench
pgbench --initialize --quiet --scale="$scale" bench 2>/dev/null

cat >"$directory/ernstfall.toml" <<END
state_dir = "$directory/state"
[repository]
url = "file://$directory/repository"
[[target]]
name = "bench"
url = "host=$directory user=postgres dbname=bench"
jobs = $jobs
source_count = "never"
END
ernstfall=("$program" --config "$directory/ernstfall.toml" --quiet)

# Prints how many milliseconds a command takes.
milliseconds() {
    local began ended
    began=$(date +%s%N)
    "$@" >/dev/null 2>"$directory/errors" || { cat "$directory/errors" >&2; return 1; }
    ended=$(date +%s%N)
    echo $(((ended - began) / 1000000))
}

# Prints the peak memory of a command in kB: of the process itself, not of the servers that it starts.
peak_memory() {
    "$@" >/dev/null 2>&1 &
    local pid=$! peak=0 now
    while now=$(awk '/^VmHWM/ {print $2}' "/proc/$pid/status" 2>/dev/null) && [ -n "$now" ]; do
        peak=$now
        sleep 0.1
    done
    wait "$pid"
    echo "$peak"
}

# The median of "ours theirs" pairs' ratios on standard input.
median_ratio() {
    awk '{printf "%.3f\n", $1 / $2}' | sort -n | awk '{r[NR] = $1} END {print r[int((NR + 1) / 2)]}'
}

for ((run = 1; run <= runs; run++)); do
    ours=$(milliseconds "${ernstfall[@]}" backup)
    rm -rf "$directory/dump"
    theirs=$(milliseconds pg_dump --format=directory --jobs="$jobs" --compress=1 --file="$directory/dump" bench)
    echo "backup: $ours ms, pg_dump --jobs=$jobs --compress=1: $theirs ms"
    echo "$ours $theirs" >>"$directory/backups"
    for name in ours theirs; do
        dropdb --if-exists "$name" 2>/dev/null
        createdb --template=template0 "$name"
    done
    # The comparison afterwards is more than pg_restore does: counted apart.
    "${ernstfall[@]}" --json restore bench --to "host=$directory user=postgres dbname=ours" --jobs "$jobs" >"$directory/restore.json"
    phases=$(awk -F'[:,]' '/"name":/ {name = $2} /"seconds":/ {if (name !~ /verify/) sum += $2; else verify = $2} END {printf "%d %d", sum * 1000, verify * 1000}' "$directory/restore.json")
    theirs=$(milliseconds pg_restore --jobs="$jobs" --dbname=theirs "$directory/dump")
    echo "restore: ${phases% *} ms and ${phases#* } ms to compare, pg_restore --jobs=$jobs: $theirs ms"
    echo "${phases% *} $theirs" >>"$directory/restores"
done
echo "median ratio to pg_dump: $(median_ratio <"$directory/backups")"
echo "median ratio to pg_restore: $(median_ratio <"$directory/restores")"
echo "peak memory: backup $(peak_memory "${ernstfall[@]}" backup) kB, restore test $(peak_memory "${ernstfall[@]}" restore-test) kB"
