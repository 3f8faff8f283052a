#!/usr/bin/env bash
# Installs the Debian packages behind the named programs that are missing; elsewhere says what is missing.
# usage: install-debian.sh PROGRAM…    of: cc make postgres psql openssl pgbouncer zstd age plperl plpython3 pg_cron locales radosgw
#        ceph-mon ceph-mgr ceph-osd ceph python3 debootstrap systemd-nspawn jq prometheus promtool prometheus-alertmanager
#        systemd-analyze aiosmtpd dpkg-shlibdeps lintian
set -euo pipefail

# The newest major of the server's programs: the installed one, or else the one that Debian would install.
major() {
    local newest
    newest=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | cut -d/ -f5 | sort -n | tail -n 1 || true)
    if [ -z "$newest" ]; then
        newest=$(apt-cache depends postgresql 2>/dev/null | sed -nE 's/.*Depends: postgresql-([0-9]+)$/\1/p' | head -n 1)
    fi
    echo "$newest"
}

# Extensions are told by their control files, a library of Python's by its import, and locales by one that is not among the usual ones.
found() {
    case $1 in
        plperl) compgen -G "/usr/share/postgresql/$(major)/extension/plperlu.control" >/dev/null; return ;;
        plpython3) compgen -G "/usr/share/postgresql/$(major)/extension/plpython3u.control" >/dev/null; return ;;
        pg_cron) compgen -G "/usr/share/postgresql/$(major)/extension/pg_cron.control" >/dev/null; return ;;
        aiosmtpd) /usr/bin/python3 -c 'import aiosmtpd' 2>/dev/null; return ;;
        locales) locale -a 2>/dev/null | grep -i '^tr_TR\.utf-\?8$' >/dev/null; return ;;
    esac
    # Server programs of Debian are not in PATH, nor is /usr/sbin for everybody.
    PATH=$PATH:/usr/sbin command -v "$1" >/dev/null || { [ "$1" = postgres ] && compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
}

package_of() {
    case $1 in
        cc) echo gcc libc6-dev ;;
        make) echo make ;;
        postgres) echo postgresql ;;
        psql) echo postgresql-client ;;
        openssl) echo openssl ;;
        pgbouncer) echo pgbouncer ;;
        zstd | age) echo "$1" ;;
        plperl) echo "postgresql-plperl-$(major)" ;;
        plpython3) echo "postgresql-plpython3-$(major)" ;;
        pg_cron) echo "postgresql-$(major)-cron" ;;
        locales) echo locales-all ;;
        radosgw | ceph-mon | ceph-mgr | ceph-osd | python3) echo "$1" ;;
        debootstrap | jq | lintian) echo "$1" ;;
        dpkg-shlibdeps) echo dpkg-dev ;;
        aiosmtpd) echo python3-aiosmtpd ;;
        systemd-analyze) echo systemd ;;
        systemd-nspawn) echo systemd-container ;;
        ceph) echo ceph-common ;;
        prometheus | promtool) echo prometheus ;;
        prometheus-alertmanager) echo "$1" ;;
        *) echo "install-debian.sh: no package known for $1" >&2; exit 2 ;;
    esac
}

packages=()
for program in "$@"; do
    found "$program" && continue
    names=$(package_of "$program")
    read -ra names <<<"$names"
    packages+=("${names[@]}")
done
[ ${#packages[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo --non-interactive)
fi
if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} -gt 0 ] && ! "${as_root[@]}" true 2>/dev/null; }; then
    echo "missing: ${packages[*]} (names of Debian packages). Install them, then try again." >&2
    exit 1
fi

# Debian's package would create a server on port 5432 of this machine, which nobody asked for. The setting is
# there only while we install: servers that somebody asks for later are made as ever.
setting=/etc/postgresql-common/createcluster.d/ernstfall.conf
"${as_root[@]}" mkdir -p "${setting%/*}"
echo 'create_main_cluster = false' | "${as_root[@]}" tee "$setting" >/dev/null
trap '"${as_root[@]}" rm -f "$setting"' EXIT

echo "installing: ${packages[*]}" >&2
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes)
"${apt[@]}" update </dev/null
"${apt[@]}" install --no-install-recommends "${packages[@]}" </dev/null

# These packages start a pooler on port 6432 and servers on 9090 and 9093, which nobody asked for either.
if command -v systemctl >/dev/null; then
    for service in pgbouncer prometheus prometheus-alertmanager; do
        if [[ " ${packages[*]} " == *" $service "* ]]; then
            "${as_root[@]}" systemctl disable --now "$service" >/dev/null 2>&1 || true
        fi
    done
fi
