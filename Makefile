# What can be done here; `make` alone lists it. Needed: Rust, Go, python3 with pip, and apt on a Debian machine.
.DEFAULT_GOAL := help
.PHONY: help build demo servers test cluster cluster-down e2e lint reliability fuzz bench bench-large bench-cluster

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

build: ## the program, optimised: target/release/redis-backup
	cargo build --release --locked

demo: ## back up, verify, destroy and restore a private Redis, telling what is done; leaves nothing behind
	tests/demo

servers: ## fetch the servers that tests talk to: Redis, Valkey, S3. Installs nothing; see tests/servers/fetch
	tests/servers/fetch

test: servers ## unit and integration tests, on those servers
	cargo test --locked

cluster: ## a real Kubernetes of one node on this machine, as root; see tests/cluster/README.md
	tests/cluster/up

cluster-down: ## end that cluster; what was built for it stays
	tests/cluster/down

# A node takes 110 pods, and some tests have fifteen.
E2E_THREADS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
e2e: servers ## end-to-end tests on a real Kubernetes: that cluster, or with KUBECONFIG set yours
	@if [ -z "$$KUBECONFIG" ]; then tests/cluster/up && tests/cluster/install-operators && tests/cluster/build-product; fi
	cargo test --locked --test e2e -- --test-threads $(E2E_THREADS)

lint: ## format, clippy with its warnings as errors, and dependencies where cargo-deny is installed
	cargo fmt --check
	cargo clippy --locked --all-targets -- --deny warnings
	cargo clippy --locked --test e2e -- --deny warnings
	cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir target
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --locked check --config .deny.toml licenses bans sources; fi

reliability: servers ## inject every fault and write what came of it to docs/RELIABILITY.md; some minutes
	tests/reliability

fuzz: ## feed what reads foreign bytes with any bytes, each target for SECONDS=10
	SECONDS_EACH=$(or $(SECONDS),10) fuzz/run

bench: servers ## time and memory beside redis-cli, redis-check-rdb and zstd, written to docs/BENCHMARKS.md; some minutes
	cargo bench --locked --bench program

bench-large: servers ## the same with four times the data: 2.4 GB of RDB, 6 GiB of memory
	cargo bench --locked --bench program -- --large --rounds 1

# Linked as in the image, and one build for both.
STATIC := RUSTFLAGS="-C target-feature=+crt-static" PRODUCT_IMAGE=localhost/redis-backup:bench
bench-cluster: ## reading out of pods beside `kubectl exec … cat`, and worker Jobs, on the cluster of `make e2e`; some minutes
	$(STATIC) cargo bench --locked --no-run --target x86_64-unknown-linux-gnu --bench cluster
	$(STATIC) tests/cluster/build-product target/x86_64-unknown-linux-gnu/release/redis-backup
	$(STATIC) cargo bench --locked --target x86_64-unknown-linux-gnu --bench cluster
