#!/usr/bin/env bash
# A database of thousands of small tables: what each costs, how many locks are held, and what pg_dump takes.
# usage: many-tables.sh PROGRAM    environment: TABLES (5000), JOBS (2)
set -euo pipefail

program=$(realpath "$1")
tables=${TABLES:-5000} jobs=${JOBS:-2}
directory=$(mktemp -d /tmp/ernstfall-bench.XXXXXX)
if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses root, and the checkout may lie where the other user cannot read.
    "$(dirname "$0")/../scripts/system-user.sh" ernstfall-test
    install -m 0755 "$program" "$directory/ernstfall"
    install -m 0755 "$0" "$directory/many-tables.sh"
    chown -R ernstfall-test: "$directory"
    cd "$directory"
    code=0
    runuser -u ernstfall-test -- env TABLES="$tables" JOBS="$jobs" "$directory/many-tables.sh" "$directory/ernstfall" || code=$?
    rm -rf "$directory"
    exit "$code"
fi

bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n 1)")
PATH=$bin:$PATH
export PGHOST=$directory PGPORT=5432 PGUSER=postgres
initdb --pgdata="$directory/data" --username=postgres --auth=trust --no-sync >/dev/null
# Locks for them all beside an application's: a server of that many tables is set up so.
postgres -D "$directory/data" -c listen_addresses= -c unix_socket_directories="$directory" -c fsync=off \
    -c max_locks_per_transaction=1024 >"$directory/log" 2>&1 &
server=$!
trap 'kill -INT $server; wait $server || true; rm -rf "$directory"' EXIT
until pg_isready --quiet; do kill -0 $server; done
createdb bench
echo "making $tables tables, each with an index, a foreign key to the one before, a sequence and 20 rows"
seq 1 "$tables" | awk '{
    print "create table t" $1 " (id serial primary key, other int" ($1 > 1 ? " references t" ($1 - 1) : "") ", text text);"
    print "create index on t" $1 " (text);"
    print "insert into t" $1 " (other, text) select n, md5(n::text) from generate_series(1, 20) n;"
}' | psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 bench

cat >"$directory/ernstfall.toml" <<END_OF_FILE
state_dir = "$directory/state"
[repository]
url = "file://$directory/repository"
[[target]]
name = "bench"
url = "host=$directory user=postgres dbname=bench"
jobs = $jobs
source_count = "never"
END_OF_FILE
ernstfall=("$program" --config "$directory/ernstfall.toml" --quiet --json)

# Runs a command, and prints the most locks that all sessions together held on tables of the database meanwhile.
locks_during() {
    local most=0 now
    "$@" >"$directory/record.json" 2>"$directory/errors" &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        now=$(psql --no-psqlrc --tuples-only --no-align --command="select count(*) from pg_locks where locktype = 'relation' and pid <> pg_backend_pid()" bench)
        [ "$now" -le "$most" ] || most=$now
    done
    wait "$pid" || { cat "$directory/errors" >&2; return 1; }
    echo "$most"
}

# The phases of a record on one line, and their sum.
phases() {
    awk -F'[:,]' -v tables="$tables" '/"name":/ {gsub(/[" ]/, "", $2); name = $2}
        /"seconds":/ {printf "%s %.1f s, ", name, $2; sum += $2}
        END {printf "in all %.1f s, %.1f ms a table\n", sum, sum * 1000 / tables}' "$directory/record.json"
}

echo "backup: at most $(locks_during "${ernstfall[@]}" backup bench) locks"
phases
began=$(date +%s%N)
echo "pg_dump --jobs=$jobs: at most $(locks_during pg_dump --format=directory --jobs="$jobs" --compress=1 --file="$directory/dump" bench) locks"
echo "$((($(date +%s%N) - began) / 1000000)) ms"
"${ernstfall[@]}" restore-test bench >"$directory/record.json"
echo "restore test:"
phases
createdb again
began=$(date +%s%N)
pg_restore --jobs="$jobs" --dbname=again "$directory/dump"
echo "pg_restore --jobs=$jobs: $((($(date +%s%N) - began) / 1000000)) ms"
