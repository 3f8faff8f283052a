#!/usr/bin/env bash
# Builds the Debian package, target/debian/ernstfall_VERSION_ARCHITECTURE.deb, and has lintian look it over.
# usage: build-deb.sh [PROFILE]    of the program: dist, or release, which is built sooner
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-dist}
cargo_deb=3.8.0
if [ "$(cargo deb --version 2>/dev/null)" != "cargo-deb $cargo_deb" ]; then
    cargo install --locked --version "$cargo_deb" cargo-deb
fi

cargo build --locked --profile "$profile"
built=${CARGO_TARGET_DIR:-target}/$profile/ernstfall
version=$("$built" --version | cut -d' ' -f2)

# The same commit gives the same package.
if epoch=$(git log -1 --format=%ct 2>/dev/null); then
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$epoch}
fi
changed=$(date --utc --rfc-email ${SOURCE_DATE_EPOCH:+--date=@$SOURCE_DATE_EPOCH})

# What is made for the package only: named in Cargo.toml, below [package.metadata.deb].
stage=target/package
rm -rf "$stage"
mkdir -p "$stage"/{completions,man,doc}
for shell in bash zsh fish; do
    "$built" completions "$shell" >"$stage/completions/ernstfall.$shell"
done
"$built" man --directory "$stage/man"

# By these names cargo-deb knows what they are. A program of the package lies in /usr/bin.
sed 's#/usr/local/bin/#/usr/bin/#' systemd/ernstfall.service >"$stage/ernstfall.service"
cp systemd/ernstfall.sysusers.conf "$stage/ernstfall.sysusers"
cp systemd/ernstfall.tmpfiles.conf "$stage/ernstfall.tmpfile"

# All pages lie in one folder when they are installed, and what is only for developers stays here.
cp README.md docs/* "$stage/doc/"
cp systemd/README.md "$stage/doc/systemd.md"
cp CHANGELOG.md "$stage/doc/changelog"
sed -i -E \
    -e 's#\]\((\.\./)?docs/#](#g' \
    -e 's#\]\((\.\./)?systemd/README\.md#](systemd.md#g' \
    -e 's#\]\((\.\./)?config/?#](examples/#g' \
    -e 's#\]\((\.\./)?README\.md#](README.md#g' \
    -e 's#\]\((\.\./)?CHANGELOG\.md#](changelog.gz#g' \
    -e 's#\]\(LICENSE\)#](copyright)#g' \
    -e 's#\[([A-Z]+\.md)\]\((ARCHITECTURE|CONTRIBUTING)\.md\)#\1#g' \
    "$stage"/doc/*.md "$stage/doc/changelog"

cat >"$stage/changelog.Debian" <<CHANGELOG
ernstfall ($version-1) stable; urgency=medium

  * What is new: changelog.gz beside this file.

 -- $(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)  $changed
CHANGELOG

rm -f target/debian/ernstfall_*.deb
cargo deb --locked --no-build --profile "$profile" --strip
lintian --fail-on=error,warning "target/debian/ernstfall_$version-1_$(dpkg --print-architecture).deb"
