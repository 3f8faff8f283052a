#!/usr/bin/env bash
# A repository of thousands of backups: what `status` takes the first time and later, and what only reading the files takes.
# usage: many-backups.sh PROGRAM    environment: BACKUPS (10000)
set -euo pipefail

program=$(realpath "$1")
backups=${BACKUPS:-10000}
directory=$(mktemp -d /tmp/ernstfall-bench.XXXXXX)
trap 'rm -rf "$directory"' EXIT
repository=$directory/repository chain=0123456789abcdef0123456789abcdef
mkdir -p "$repository/targets/bench/manifests" "$repository/records/$chain"
echo "{\"format\": 1, \"id\": \"$chain\", \"created_at\": \"2026-01-01T00:00:00Z\"}" >"$repository/ernstfall.json"

echo "making $backups manifests of 16 objects each, and as many records"
zeros=$(printf '0%.0s' {1..64})
totals='{"tables": 10, "rows": 1000, "bytes": 100000, "stored_bytes": 10000, "sequences": 0, "large_objects": 0, "not_covered": 0}'
previous=null
for ((number = 1; number <= backups; number++)); do
    printf -v suffix '%04x' $((number % 65536))
    TZ=UTC printf -v at '%(%Y-%m-%dT%H:%M:%SZ)T' $((1767225600 + number * 1800))
    id=${at//[-:]/}-$suffix
    objects=
    for name in contents.json schema.dump roles.sql sequences.sql data/{1..11}.sql; do
        objects+="{\"key\": \"targets/bench/backups/$id/$name.zst\", \"size_bytes\": 8388608, \"sha256\": \"$zeros\"}|"
    done
    IFS='|' read -ra object <<<"$objects"
    data=$(IFS=,; echo "${object[*]:4}")
    point="{\"at\": \"$at\", \"basis\": \"snapshot\"}"
    cat >"$repository/targets/bench/manifests/$id.json" <<END_OF_FILE
{"format": 1, "id": "$id", "target": "bench", "started_at": "$at", "finished_at": "$at", "duration_seconds": 1.0,
 "recovery_point": $point, "snapshot": "1:1:", "lsn": "0/1", "timeline": 1, "system_identifier": "1",
 "versions": {"ernstfall": "0.1.0", "server": "17.0", "pg_dump": "17.0"}, "contents": ${object[0]}, "schema": ${object[1]},
 "schema_list": null, "roles": ${object[2]}, "sequences": ${object[3]}, "recovery_guide": ${object[0]}, "data": [$data],
 "large_objects": [], "totals": $totals, "source_counted": false, "encryption": null, "shrank": null}
END_OF_FILE
    printf -v record '%s/records/%s/%08d.json' "$repository" "$chain" "$number"
    cat >"$record" <<END_OF_FILE
{"chain": "$chain", "sequence": $number, "previous_sha256": $previous, "record":
 {"kind": "backup", "format": 1, "id": "$id", "target": "bench", "environment": null, "owner": null, "trigger": "command",
  "outcome": "succeeded", "reason": null, "backup": "$id", "started_at": "$at", "finished_at": "$at",
  "recovery_point": $point, "clock_skew_seconds": 0.0, "attempts": 1, "phases": [{"name": "data", "seconds": 1.0}],
  "totals": $totals, "not_covered": [], "findings": []}}
END_OF_FILE
    previous=$(sha256sum "$record")
    previous="\"${previous%% *}\""
done

cat >"$directory/ernstfall.toml" <<END_OF_FILE
state_dir = "$directory/state"
[repository]
url = "file://$repository"
[[target]]
name = "bench"
url = "postgresql://nobody@localhost/nowhere"
END_OF_FILE

# Runs a command, and prints how long it took.
milliseconds() {
    local began
    began=$(date +%s%N)
    "$@" >"$directory/output" || true
    echo "$((($(date +%s%N) - began) / 1000000)) ms"
}

status=("$program" --config "$directory/ernstfall.toml" --json status bench)
read_all() { find "$repository" -name '*.json' -print0 | xargs -0 cat; }
echo "only reading the files: $(milliseconds read_all)"
echo "status, the first time: $(milliseconds "${status[@]}")"
echo "status, later:          $(milliseconds "${status[@]}")"
grep -q "\"backups\": $backups" "$directory/output"
grep -q '"never restore-tested"' "$directory/output"
