# Everything a developer runs. Tests and demo share one profile (dev), so that little is compiled twice.
.PHONY: help build deb test test-ceph test-systemd test-deb soak demo check bench bench-s3 test-user
.DEFAULT_GOAL := help

help: ## Say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## Build the program: target/debug/ernstfall
	cargo build --locked

# The profile that the program in the package is built with.
PROFILE ?= dist

deb: ## Build the Debian package: target/debian/ernstfall_*.deb (PROFILE=release is built sooner)
	scripts/install-debian.sh cc dpkg-shlibdeps lintian
	scripts/build-deb.sh $(PROFILE)

test: test-user ## Install what tests need (PostgreSQL with languages and pg_cron, pgbouncer, Prometheus, age and the like), run all tests
	scripts/install-debian.sh cc postgres psql openssl pgbouncer zstd age
	scripts/install-debian.sh plperl plpython3 pg_cron locales prometheus promtool prometheus-alertmanager aiosmtpd systemd-analyze
	scripts/test.sh

test-ceph: test-user ## Install a Ceph object gateway and run on it what is said of S3: the contract of stores, and the whole program
	scripts/install-debian.sh cc postgres psql radosgw ceph-mon ceph-mgr ceph-osd ceph python3
	cargo test --locked --no-run --test it
	scripts/with-ceph.sh cargo test --locked --test it -- --ignored --nocapture --test-threads=1 real_bucket

test-systemd: ## Boot a real systemd in a container, as root, and try the unit in it: sandbox, reload, stop, kill, watchdog
	scripts/install-debian.sh cc debootstrap systemd-nspawn jq
	cargo build --locked
	scripts/test-systemd.sh target/debug/ernstfall

test-deb: deb ## Boot a fresh Debian in a container, as root, and try the package in it: install, upgrade, removal, purge (PROFILE)
	scripts/install-debian.sh debootstrap systemd-nspawn jq
	scripts/test-deb.sh target/debian/ernstfall_*.deb

soak: test-user ## Schedules in seconds for an hour, with faults at random: growth, gaps, leftovers (SOAK_SECONDS, SOAK_SEED)
	scripts/install-debian.sh cc postgres psql
	cargo test --locked --test it -- --ignored --exact --nocapture soak::soak

demo: ## Install what the demo needs (PostgreSQL), build, show everything on a throw-away database
	scripts/install-debian.sh cc postgres psql
	cargo build --locked
	scripts/demo.sh

bench: ## Against pg_dump and pg_restore, as ratios; 5,000 small tables; 10,000 backups (SCALE, RUNS, JOBS, TABLES, BACKUPS)
	scripts/install-debian.sh cc postgres psql
	cargo build --locked --release
	benches/peers.sh target/release/ernstfall
	benches/many-tables.sh target/release/ernstfall
	benches/many-backups.sh target/release/ernstfall

bench-s3: ## The same database in a directory and in a bucket of a Ceph object gateway, clear and encrypted (SCALE, RUNS, JOBS)
	scripts/install-debian.sh cc postgres psql radosgw ceph-mon ceph-mgr ceph-osd ceph python3
	cargo build --locked --release
	scripts/with-ceph.sh benches/bucket.sh target/release/ernstfall

check: ## Format, lints and documentation
	cargo fmt --check
	cargo clippy --locked --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps --document-private-items

# PostgreSQL refuses root: a test run of root hands its servers to this user.
test-user:
	@scripts/system-user.sh ernstfall-test
