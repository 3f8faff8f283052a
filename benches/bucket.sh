#!/usr/bin/env bash
# The same database backed up and restore-tested in a directory and in a bucket, clear and encrypted: sizes and times.
# usage: with-ceph.sh bucket.sh PROGRAM    environment: SCALE (20), RUNS (3), JOBS (2), ERNSTFALL_TEST_S3_*
set -euo pipefail

program=$(realpath "$1")
scale=${SCALE:-20} runs=${RUNS:-3} jobs=${JOBS:-2}
directory=$(mktemp -d /tmp/ernstfall-bench.XXXXXX)
if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses root, and the checkout may lie where the other user cannot read.
    "$(dirname "$0")/../scripts/system-user.sh" ernstfall-test
    install -m 0755 "$program" "$directory/ernstfall"
    install -m 0755 "$0" "$directory/bucket.sh"
    chown -R ernstfall-test: "$directory"
    cd "$directory"
    code=0
    runuser -u ernstfall-test --preserve-environment -- env HOME="$directory" "$directory/bucket.sh" "$directory/ernstfall" || code=$?
    rm -rf "$directory"
    exit "$code"
fi

bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n 1)")
PATH=$bin:$PATH
export PGHOST=$directory PGPORT=5432 PGUSER=postgres
initdb --pgdata="$directory/data" --username=postgres --auth=trust --no-sync >/dev/null
postgres -D "$directory/data" -c listen_addresses= -c unix_socket_directories="$directory" -c fsync=off >"$directory/log" 2>&1 &
server=$!
trap 'kill -INT $server; wait $server || true; rm -rf "$directory"' EXIT
until pg_isready --quiet; do kill -0 $server; done
createdb bench
pgbench --initialize --scale="$scale" --quiet bench 2>/dev/null
# pgbench's rows compress to almost nothing.
psql --quiet --no-psqlrc bench --command="create table noise as
    select n, md5(n::text) || md5((-n)::text) as text from generate_series(1, $((scale * 50000))) n"
"$program" init "$directory/with-key.toml" --url "host=$directory user=postgres dbname=bench" --quiet >/dev/null
recipient=$(sed -nE 's/^# public key: //p' "$directory/age.key")

# A configuration of its own for each place.
configure() {
    local name=$1 repository=$2 encryption=$3
    cat >"$directory/$name.toml" <<END_OF_FILE
state_dir = "$directory/state-$name"
[repository]
$repository
$encryption
[[target]]
name = "bench"
url = "host=$directory user=postgres dbname=bench"
jobs = $jobs
source_count = "never"
END_OF_FILE
}
bucket="url = \"s3://${ERNSTFALL_TEST_S3_BUCKETS%%,*}/bench-$$\"
endpoint = \"$ERNSTFALL_TEST_S3_ENDPOINT\"
path_style = true
access_key_id = { env = \"ERNSTFALL_TEST_S3_KEY\" }
secret_access_key = { env = \"ERNSTFALL_TEST_S3_SECRET\" }"
key="[encryption]
recipients = [\"$recipient\"]
identity = { file = \"$directory/age.key\" }"
configure directory "url = \"file://$directory/repository\"" ''
configure directory-encrypted "url = \"file://$directory/repository-encrypted\"" "$key"
configure bucket "$bucket" ''
configure bucket-encrypted "${bucket/bench-/bench-encrypted-}" "$key"

# The seconds of all phases of a record, and what is stored.
seconds() { awk -F'[:,]' '/"seconds":/ {sum += $2} END {printf "%.2f", sum}' "$directory/record.json"; }
stored() { sed -nE 's/.*"stored_bytes": ([0-9]+).*/\1/p' "$directory/record.json" | head -n 1; }
for run in $(seq "$runs"); do
    for name in directory directory-encrypted bucket bucket-encrypted; do
        ernstfall=("$program" --config "$directory/$name.toml" --quiet --json)
        "${ernstfall[@]}" backup bench >"$directory/record.json"
        line="run $run, $name: backup $(seconds) s, $(stored) bytes stored"
        "${ernstfall[@]}" restore-test bench >"$directory/record.json"
        echo "$line; restore test $(seconds) s"
    done
done
