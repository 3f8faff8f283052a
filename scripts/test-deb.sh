#!/usr/bin/env bash
# Installs the Debian package in a fresh system that systemd has booted, and proves what it does there: dependencies,
# rights, the first start, upgrade, removal, purge. Prints what was proven, line by line, and ends with the first thing that
# was not. Needs root. The system, with the packages that apt wants for this one, is made once and kept under target/.
# usage: test-deb.sh PACKAGE
set -Eeuo pipefail

package=$(realpath "$1")
cd "$(dirname "$0")/.."
. scripts/booted-system.sh

# Nothing of what the package needs, but the archives of it: a container without a network installs them.
add_to_system() {
    cp "$package" "$1/srv/ernstfall.deb" &&
        chroot "$1" apt-get --quiet update &&
        chroot "$1" apt-get --quiet --yes --download-only install /srv/ernstfall.deb apparmor &&
        rm "$1/srv/ernstfall.deb"
}
make_system systemd,systemd-sysv,dbus "$(dpkg-deb --field "$package" Depends Recommends)"

state=/var/lib/ernstfall
configuration=/etc/ernstfall/ernstfall.toml
key=/etc/ernstfall/credentials/age-key
documents=/usr/share/doc/ernstfall
switched_off=/etc/apparmor.d/disable/ernstfall

# What somebody types, with nobody there to answer a question.
apt() {
    if ! inside env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes "$@" </dev/null >"$directory/apt" 2>&1; then
        tail -n 30 "$directory/apt" >&2
        return 1
    fi
}

apt_said() {
    grep -qF -- "$1" "$directory/apt"
}

# The same package of another version, in the container.
of_version() {
    dpkg-deb --raw-extract "$package" "$directory/package"
    sed -i "s/^Version: .*/Version: $1/" "$directory/package/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone --build "$directory/package" "$root/srv/ernstfall-$1.deb" >/dev/null
    rm -r "$directory/package"
}

rights() {
    inside stat --format=%U:%G:%a "$1"
}

installed() {
    inside dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

nothing_has_failed() {
    [ -z "$(inside systemctl --failed --no-legend --plain)" ]
}

another_apparmor_has_come() {
    inside dpkg-trigger --by-package=apparmor /etc/apparmor.d/abi
    inside dpkg --configure --pending >/dev/null
}

# Whether AppArmor could load all profiles at the next boot.
apparmor_reads_its_profiles() {
    inside apparmor_parser --skip-kernel-load --skip-cache /etc/apparmor.d 2>/dev/null
}

boot
cp "$package" "$root/srv/ernstfall.deb"
version=$(dpkg-deb --field "$package" Version)

prove "it installs on a fresh system, and apt finds all that it needs"
if installed postgresql || installed procps; then exit 1; fi
apt install /srv/ernstfall.deb
for one in ernstfall procps postgresql locales-all age zstd ca-certificates; do installed "$one"; done
inside ernstfall --version >/dev/null
[ -z "$(inside dpkg --verify ernstfall)" ]
proven "$version"

prove "the unit is known and sound, neither enabled nor started, and what to do next is said"
is LoadState loaded
is ActiveState inactive
[ "$(inside systemctl is-enabled ernstfall)" = disabled ]
inside systemd-analyze verify --man=no ernstfall.service
nothing_has_failed
apt_said "not started yet: name your databases in $configuration"
proven

prove "user, directories and configuration are there, with their rights"
[ "$(inside id --name --user ernstfall)" = ernstfall ]
[ "$(rights $configuration)" = root:ernstfall:640 ]
[ "$(rights /etc/ernstfall)" = root:ernstfall:750 ]
[ "$(rights /etc/ernstfall/credentials)" = root:root:700 ]
[ "$(rights $state)" = ernstfall:ernstfall:700 ]
proven

prove "pages, completions and documents are there, and what they link to"
[ -f "$root$documents/runbook.md" ]
for link in $(inside ernstfall rules | grep -o 'file://[^#"]*' | sort -u); do [ -f "$root${link#file://}" ]; done
[ -n "$link" ]
for page in "$root$documents"/*.md; do
    for link in $(grep -oP '\]\(\K(?!https?:)[^)#]+' "$page"); do
        [ -e "$root$documents/$link" ] || { echo "$page: $link" >&2; exit 1; }
    done
done
zgrep -q 'ernstfall\\-restore\\-test(1)' "$root/usr/share/man/man1/ernstfall.1.gz"
zgrep -q 'ernstfall restore\\-test' "$root/usr/share/man/man1/ernstfall-restore-test.1.gz"
bash -n "$root/usr/share/bash-completion/completions/ernstfall"
grep -q '^#compdef ernstfall' "$root/usr/share/zsh/vendor-completions/_ernstfall"
grep -q 'complete -c ernstfall' "$root/usr/share/fish/vendor_completions.d/ernstfall.fish"
proven

prove "an AppArmor that does not understand the profile is spared it"
[ "$(readlink "$root$switched_off")" = "$documents/README.Debian" ]
apt install apparmor
apparmor_reads_its_profiles
# Without that, it would fail over it.
mv "$root$switched_off" "$root/srv/switched-off"
if apparmor_reads_its_profiles; then exit 1; fi
mv "$root/srv/switched-off" "$root$switched_off"
proven "$(inside apparmor_parser --version | head -n 1)"

prove "an AppArmor that understands the profile gets it, and who switched it off keeps it off"
for program in apparmor_parser aa-enabled; do
    install -m 0755 /dev/stdin "$root/usr/local/sbin/$program" <<<'#!/bin/sh
echo "${0##*/} $*" >>/srv/apparmor-calls'
done
another_apparmor_has_come
[ ! -L "$root$switched_off" ]
grep -qx "apparmor_parser --replace --write-cache /etc/apparmor.d/ernstfall" "$root/srv/apparmor-calls"
ln -s /etc/apparmor.d/ernstfall "$root$switched_off"
rm "$root/srv/apparmor-calls"
another_apparmor_has_come
[ "$(readlink "$root$switched_off")" = /etc/apparmor.d/ernstfall ]
if grep -q -- --replace "$root/srv/apparmor-calls"; then exit 1; fi
rm "$root$switched_off" "$root"/usr/local/sbin/{apparmor_parser,aa-enabled}
another_apparmor_has_come
[ "$(readlink "$root$switched_off")" = "$documents/README.Debian" ]
proven "by a stand-in for AppArmor 4"

prove "started as it is shipped, it says what is missing, and is not tried again"
if inside systemctl start ernstfall 2>/dev/null; then exit 1; fi
within 10 is ActiveState failed
is ExecMainStatus 2
is NRestarts 0
said "$configuration has 1 fault"
said "add a [[target]] with a name and a url"
inside systemctl reset-failed ernstfall
proven

within 60 inside runuser -u postgres -- pg_isready --quiet
inside runuser -u postgres -- psql -Xq <<'SQL'
create role ernstfall login in role pg_read_all_data;
create database shop;
\connect shop
create table orders as select id, md5(id::text) as text from generate_series(1, 1000) id;
SQL
inside age-keygen -o "$key" 2>/dev/null
drop_in credentials <<CONF
[Service]
LoadCredential=age-key:$key
CONF
# What the shipped file proposes, more often.
sed -i -e 's/^#\(\[encryption\]\|identity = \|\[\[target\]\]\|name = \|url = "postgresql:\|rpo = \|rto = \|restore_test = \)/\1/' \
    -e "s/^#recipients = .*/recipients = [\"$(inside age-keygen -y "$key")\"]/" \
    -e 's/^#backup = .*/backup = "every 5s"/' "$root$configuration"

succeeded='.kind == "backup" and .outcome == "succeeded" and .trigger == "schedule"'
passed='.kind == "restore_test" and .verdict == "passed"'
prove "with a database named, it starts, is ready, backs up by schedule, and a restore test passes"
inside systemctl enable --quiet --now ernstfall
is ActiveState active
within 10 status_says 'targets: 1'
within 60 more_than 1 "$succeeded"
within 60 more_than 0 "$passed"
inside runuser -u ernstfall -- ernstfall --json status >"$directory/status" || [ $? = 4 ]
jq -e '(if type == "array" then .[0] else . end) | .proven_backup != null' "$directory/status" >/dev/null
proven "$(property StatusText)"

prove "an upgrade while it runs keeps state and configuration, asks nothing, and starts the new program"
of_version "$version+1"
edited=$(sha256sum <"$root$configuration")
stored=$(find "$root$state/records" "$root$state/repository" -name '*.json')
main=$(property MainPID)
apt install "/srv/ernstfall-$version+1.deb"
[ "$(inside dpkg-query --show --showformat='${Version}' ernstfall)" = "$version+1" ]
is ActiveState active
[ "$(property MainPID)" != "$main" ]
[ "$(inside readlink "/proc/$(property MainPID)/exe")" = /usr/bin/ernstfall ]
[ "$(sha256sum <"$root$configuration")" = "$edited" ]
[ "$(rights $configuration)" = root:ernstfall:640 ]
if apt_said 'Configuration file' || compgen -G "$root/etc/ernstfall/*.dpkg-*"; then exit 1; fi
for file in $stored; do [ -f "$file" ]; done
before=$(count "$succeeded")
within 60 more_than "$before" "$succeeded"
nothing_has_failed
proven

prove "an upgrade while it is stopped does not start it, and keeps rights that somebody changed"
inside systemctl stop ernstfall
chmod 0600 "$root$configuration"
of_version "$version+2"
apt install "/srv/ernstfall-$version+2.deb"
is ActiveState inactive
[ "$(inside systemctl is-enabled ernstfall)" = enabled ]
[ "$(rights $configuration)" = root:ernstfall:600 ]
chmod 0640 "$root$configuration"
inside systemctl start ernstfall
proven

prove "removal stops it, and keeps configuration, key and state"
apt remove ernstfall
is ActiveState inactive
[ ! -e "$root/usr/bin/ernstfall" ]
[ ! -e "$root/usr/lib/systemd/system/ernstfall.service" ]
nothing_is_left
nothing_has_failed
[ "$(sha256sum <"$root$configuration")" = "$edited" ]
[ -f "$root$key" ]
for file in $stored; do [ -f "$file" ]; done
before=$(count "$succeeded")
proven

prove "installed again, it goes on where it was"
apt install /srv/ernstfall.deb
[ "$(inside systemctl is-enabled ernstfall)" = enabled ]
[ "$(sha256sum <"$root$configuration")" = "$edited" ]
inside systemctl start ernstfall
within 60 more_than "$before" "$succeeded"
proven

prove "a purge keeps backups, records and keys, and says so"
apt purge ernstfall
[ ! -e "$root$configuration" ]
[ ! -e "$root/etc/apparmor.d/ernstfall" ]
[ ! -L "$root$switched_off" ]
[ ! -e "$root$state/scratch" ]
[ ! -e "$root$state/cache" ]
[ -f "$root$key" ]
for file in $stored; do [ -f "$file" ]; done
apt_said "kept, since it may hold backups, records or keys: $state ("
apt_said "kept, since backups may be encrypted to a key in it: /etc/ernstfall (credentials)"
[ "$(rights $state)" = ernstfall:ernstfall:700 ]
[ -z "$(inside find /etc/systemd/system -name 'ernstfall.service' -print)" ]
nothing_has_failed
proven "$(grep -oF 'repository' "$directory/apt" | head -n 1), $(wc -w <<<"$stored") files"

prove "records of a repository elsewhere are kept as well, and a repository without records, whatever it is called"
mv "$root$state/repository" "$root/srv/repository"
apt install /srv/ernstfall.deb
apt purge ernstfall
apt_said "kept, since it may hold backups, records or keys: $state ("
more_than "$before" "$succeeded"
rm -r "$root$state/records"
mv "$root/srv/repository" "$root$state/scratch"
apt install /srv/ernstfall.deb
apt purge ernstfall
[ -f "$root$state/scratch/ernstfall.json" ]
[ ! -e "$root$state/chain" ]
proven

prove "a purge without any of them leaves nothing but the user"
rm -r "$root$state" "$root$key" "$root/etc/systemd/system/ernstfall.service.d"
apt install /srv/ernstfall.deb
[ "$(rights $configuration)" = root:ernstfall:640 ]
inside install --directory --owner=ernstfall "$state"/{scratch/1,cache,records,repository}
apt purge ernstfall
if apt_said 'kept, since'; then exit 1; fi
[ -z "$(inside find /etc /var/lib /usr /run -name '*ernstfall*' -print)" ]
[ "$(inside id --name --user ernstfall)" = ernstfall ]
nothing_has_failed
proven
