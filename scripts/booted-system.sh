#!/usr/bin/env bash
# A real systemd in a container, for scripts that prove things in it: to be sourced, as root, from the repository's
# directory. Prints what was proven, line by line; ends with the first thing that was not, and leaves nothing running.
# What is made once is kept under target/.

if [ "$(id -u)" != 0 ]; then
    echo "${0##*/} boots a system, and needs root" >&2
    exit 1
fi
export PATH=$PATH:/usr/sbin

release=$(. /etc/os-release && echo "${VERSION_CODENAME:?this script knows Debian and its kin}")

# usage: make_system PACKAGES [KEY]    a small system with these packages, in $system; another one for another KEY.
# What add_to_system does with the directory of a new one, where a script has it, is kept as well.
make_system() {
    local packages=$1
    system=target/systemd-root/$release-$(cksum <<<"$packages${2:-}" | cut -d' ' -f1)
    [ ! -d "$system" ] || return 0
    echo "making a small system of $release with $packages" >&2
    rm -rf "$system.new"
    mkdir -p "$system.new"
    # From here on only what is installed counts: nothing of this machine takes part.
    if ! { debootstrap --variant=minbase --include="$packages" "$release" "$system.new" &&
        { ! declare -F add_to_system >/dev/null || add_to_system "$system.new"; }; } >"$system.log" 2>&1; then
        tail "$system.log" >&2
        exit 1
    fi
    mv "$system.new" "$system"
}

directory=$(mktemp -d /tmp/ernstfall-systemd.XXXXXX)
root=$directory/root
container=
init=
failed=

inside() {
    nsenter --target "$init" --all "$@"
}

finish() {
    local code=$?
    if [ "$code" != 0 ] && [ -n "$init" ]; then
        echo "NOT proven: ${step:-the system boots}: $failed. The last words of the unit and of the system:" >&2
        inside systemctl status --no-pager --lines=0 ernstfall >&2 || true
        inside journalctl --no-pager --output=cat --unit=ernstfall --lines=40 >&2 || true
    fi
    if [ -n "$container" ]; then
        inside systemctl poweroff >/dev/null 2>&1 || kill "$container" 2>/dev/null || true
        wait "$container" || true
    fi
    [ "$code" = 0 ] || tail -n 5 "$directory/console" >&2 || true
    rm -rf "$directory"
}
trap 'failed=$BASH_COMMAND' ERR
trap finish EXIT

# What is to be proven now, for the case that it is not.
prove() {
    step=$*
}

proven() {
    echo "ok  $step${1:+ ($1)}"
}

# Waits until a command succeeds, at most so many seconds.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then
            echo "waited in vain for: $*" >&2
            return 1
        fi
        sleep 0.2
    done
}

property() {
    inside systemctl show --property="$1" --value ernstfall
}

is() {
    [ "$(property "$1")" = "$2" ]
}

status_says() {
    grep -qF "$1" <<<"$(property StatusText)"
}

# Whether the daemon has said this, since the journal was last emptied.
said() {
    grep -qF -- "$1" <<<"$(inside journalctl --no-pager --output=cat --unit=ernstfall)"
}

forget_the_journal() {
    inside journalctl --quiet --rotate --vacuum-time=1s 2>/dev/null
}

# All records of the daemon's machine, in their order, as one list.
records() {
    find "$root/var/lib/ernstfall/records" -name '*.json' | sort | xargs cat | jq --slurp 'map(.record)'
}

count() {
    records | jq "map(select($1)) | length"
}

# Whether there are more such records than before.
more_than() {
    [ "$(count "$2")" -gt "$1" ]
}

# Nobody of the daemon's user is left, and no scratch.
nothing_is_left() {
    [ -z "$(find "$root/var/lib/ernstfall/scratch" -mindepth 1 -maxdepth 1 -type d)" ] || return 1
    ! inside pgrep --uid ernstfall >/dev/null
}

configure() {
    cat >"$root/etc/ernstfall/ernstfall.toml"
    chmod 0640 "$root/etc/ernstfall/ernstfall.toml"
    inside chgrp ernstfall /etc/ernstfall/ernstfall.toml
}

drop_in() {
    mkdir -p "$root/etc/systemd/system/ernstfall.service.d"
    cat >"$root/etc/systemd/system/ernstfall.service.d/$1.conf"
    inside systemctl daemon-reload
}

boot() {
    cp --archive "$system" "$root"
    # A container is no machine: what its manager would keep from the sandbox of scratch servers, a machine allows.
    systemd-nspawn --quiet --boot --directory="$root" --register=no --keep-unit --private-network --console=pipe \
        --system-call-filter='landlock_create_ruleset landlock_add_rule landlock_restrict_self' \
        </dev/null >"$directory/console" 2>&1 &
    container=$!
    within 60 has_booted
}

has_booted() {
    init=$(pgrep --parent "$container" --newest) && inside systemctl is-system-running --quiet
}
