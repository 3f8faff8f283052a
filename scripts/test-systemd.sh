#!/usr/bin/env bash
# Boots a real systemd in a container, with a PostgreSQL server in it, and proves that the daemon works as the unit in
# systemd/ runs it: inside its sandbox, through reloads, stops, kills and hangs. Prints what was proven, line by line, and
# ends with the first thing that was not. Needs root. The system is made once and kept under target/.
# usage: test-systemd.sh PROGRAM
set -Eeuo pipefail

program=$(realpath "$1")
cd "$(dirname "$0")/.."
. scripts/booted-system.sh

make_system systemd,systemd-sysv,dbus,procps,postgresql,age

is_scratch_running() {
    [ -n "$(find "$root/var/lib/ernstfall/scratch" -name postmaster.pid)" ]
}

# usage: usual_configuration BACKUP [SQL]    how often, and what the check of a restored copy runs
usual_configuration() {
    configure <<CONF
state_dir = "/var/lib/ernstfall"

[repository]
url = "file:///var/lib/ernstfall/repository"

[encryption]
recipients = ["$recipient"]
identity = { credential = "age-key" }

[scratch]
isolation = "required"

[limits]
jitter = "0s"

[[target]]
name = "shop"
url = { credential = "shop-url" }
rpo = "1h"
rto = "15m"
backup = "$1"
restore_test = "after every backup"

[[target.check]]
name = "orders are there"
sql = "${2:-select count(*) from orders}"
expect = "> 0"
CONF
}

boot
within 60 inside runuser -u postgres -- pg_isready --quiet
prove "systemd boots, with a PostgreSQL server"
proven "$(inside systemctl --version | head -n 1), PostgreSQL $(inside runuser -u postgres -- psql -XAtc 'show server_version')"

prove "unit, user and directories install by hand as systemd/README.md says"
install -D -m 0755 "$program" "$root/usr/local/bin/ernstfall"
install -m 0644 systemd/ernstfall.service "$root/etc/systemd/system/ernstfall.service"
install -m 0644 systemd/ernstfall.sysusers.conf "$root/usr/lib/sysusers.d/ernstfall.conf"
install -m 0644 systemd/ernstfall.tmpfiles.conf "$root/usr/lib/tmpfiles.d/ernstfall.conf"
inside systemd-sysusers 2>/dev/null
inside systemd-tmpfiles --create
inside systemctl daemon-reload
inside systemd-analyze verify --man=no /etc/systemd/system/ernstfall.service
proven

prove "its exposure is at most 2.5"
exposure=$(inside systemd-analyze security --no-pager --threshold=25 ernstfall.service | tail -n 1)
proven "${exposure#→ }"

inside runuser -u postgres -- psql -Xq <<'SQL'
create role backup login password 'correct-horse' in role pg_read_all_data;
create database shop;
\connect shop
create table orders as select id, md5(id::text) as text from generate_series(1, 100000) id;
alter table orders add primary key (id);
SQL
credentials=$root/etc/ernstfall/credentials
install -m 0600 /dev/stdin "$credentials/shop-url" <<<'postgresql://backup:correct-horse@127.0.0.1/shop'
inside age-keygen -o /etc/ernstfall/credentials/age-key 2>/dev/null
recipient=$(inside age-keygen -y /etc/ernstfall/credentials/age-key)
drop_in credentials <<'CONF'
[Service]
LoadCredential=shop-url:/etc/ernstfall/credentials/shop-url
LoadCredential=age-key:/etc/ernstfall/credentials/age-key
CONF
# Quicker than anybody wants it, so that the test does not wait; and a second for what hangs.
drop_in test <<'CONF'
[Service]
RestartSec=1s
CONF

prove "a faulty configuration fails the start, and is not tried again"
configure <<<'repositroy = "x"'
if inside systemctl start ernstfall 2>/dev/null; then exit 1; fi
within 10 is ActiveState failed
is ExecMainStatus 2
is NRestarts 0
proven "exit 2"

prove "it starts, is ready and says how it stands"
usual_configuration "every 5s"
inside systemctl reset-failed ernstfall
inside systemctl start ernstfall
inside systemctl is-active --quiet ernstfall
within 10 status_says 'targets: 1'
proven "$(property StatusText)"

passed='.kind == "restore_test" and .verdict == "passed"'
succeeded='.kind == "backup" and .outcome == "succeeded" and .trigger == "schedule"'
prove "backups run by schedule, with secrets from LoadCredential"
within 60 more_than 1 "$succeeded"
proven "$(count "$succeeded") so far, encrypted"

prove "a restore test passes inside the unit's sandbox, isolation required, with all layers"
within 60 more_than 0 "$passed"
layers=$(records | jq -r "map(select($passed)) | last | .scratch | select(.isolated) | .layers | join(\", \")")
[ "$layers" = "user namespace, network namespace, process namespace, ipc namespace, mount namespace, landlock, seccomp" ]
proven "$layers"

prove "status, run by hand as the daemon's user, knows of both"
inside runuser -u ernstfall -- env HOME=/var/lib/ernstfall ernstfall --config /etc/ernstfall/ernstfall.toml --json status \
    >"$directory/status" || [ $? = 4 ]
jq -e '(if type == "array" then .[0] else . end) | .proven_backup != null and .rpo.verdict == "met" and .rto.verdict == "met"' \
    "$directory/status" >/dev/null
proven "RPO and RTO met"

prove "a good configuration is taken by reload, without a restart"
main=$(property MainPID)
usual_configuration "every 4s"
inside systemctl reload ernstfall
within 20 said "the configuration was read again"
is MainPID "$main"
proven

prove "a faulty configuration is refused by reload with its reason, and the old one stays"
usual_configuration "every banana"
inside systemctl reload ernstfall
within 20 said "the configuration stays as it was"
said 'every banana'
before=$(count "$succeeded")
within 30 more_than "$before" "$succeeded"
is MainPID "$main"
within 10 status_says 'could not be reloaded'
proven "$(property StatusText)"

# From here on a restore test takes as long as somebody lets it, while backups go on.
hang="select count(pg_sleep(500))"
cancelled='.kind == "restore_test" and .verdict == "could-not-run" and .cancelled'
interrupted='.kind == "interrupted" and .task == "restore_test"'

prove "a stop cancels and records what runs, and removes its scratch, within its time"
usual_configuration "every 3s" "$hang"
inside systemctl restart ernstfall
within 60 is_scratch_running
before=$(count "$cancelled")
forget_the_journal
began=$SECONDS
inside systemctl stop ernstfall
[ $((SECONDS - began)) -lt 30 ]
is Result success
more_than "$before" "$cancelled"
nothing_is_left
# By the daemon itself: systemd had nobody to kill.
if said "Killing process" || said "SIGKILL"; then exit 1; fi
proven "$((SECONDS - began)) s"

prove "after kill -9 systemd starts it again, and the run that was cut off is recorded and its scratch removed"
inside systemctl start ernstfall
within 60 is_scratch_running
cut_off=$(find "$root/var/lib/ernstfall/scratch" -mindepth 1 -maxdepth 1 -type d)
before=$(count "$interrupted")
restarts=$(property NRestarts)
inside systemctl kill --kill-whom=main --signal=KILL ernstfall
within 30 is NRestarts $((restarts + 1))
within 30 is ActiveState active
within 30 more_than "$before" "$interrupted"
within 30 [ ! -e "$cut_off" ]
proven

prove "a daemon that hangs is killed by the watchdog and started again"
# A minute is the unit's; waiting for it would prove no more.
drop_in watchdog <<'CONF'
[Service]
WatchdogSec=6s
CONF
usual_configuration "every 3s"
inside systemctl restart ernstfall
main=$(property MainPID)
restarts=$(property NRestarts)
forget_the_journal
inside kill -STOP "$main"
within 60 said "Watchdog timeout"
within 30 is NRestarts $((restarts + 1))
within 30 is ActiveState active
before=$(count "$succeeded")
within 60 more_than "$before" "$succeeded"
proven

prove "while nothing hangs, the watchdog is fed"
restarts=$(property NRestarts)
before=$(count "$succeeded")
within 60 more_than $((before + 4)) "$succeeded"
is NRestarts "$restarts"
proven "five backups, 3 s apart"

prove "the last stop leaves nothing behind, and no secret is in journal or records"
inside systemctl stop ernstfall
is Result success
nothing_is_left
if inside journalctl --no-pager --output=cat --boot | grep -qF correct-horse; then exit 1; fi
if records | grep -qF correct-horse; then exit 1; fi
proven
