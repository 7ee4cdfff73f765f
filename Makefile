# On a fresh Debian 12 host with Rust and Go, run `make demo` or `make test` as root. Both install and build what they need.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(or $(KEYPLANE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyplane)
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
# The Debian packages of the lab; e2e/kubernetes builds the rest. cloud-init and systemd only validate rendered files.
PACKAGES := busybox-static cloud-init conntrack containernetworking-plugins curl ethtool faketime haproxy iproute2 \
  iptables nftables openssl runc socat systemd util-linux

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|'

.PHONY: demo
demo: build ## Boot a cluster from examples/cluster.yaml, show its objects, and keep it until Ctrl-C
	target/debug/keyplane-lab demo

.PHONY: demo-down
demo-down: ## Stop a demo and remove all its processes and files
	cargo build --quiet --package keyplane-e2e
	target/debug/keyplane-lab demo-down

.PHONY: test
test: packages kubernetes check unit lab ## Run everything: format, lints, unit, golden and oracle tests, and real clusters

.PHONY: check
check: $(CARGO_DENY) prose ## Check format, lints, licences and documentation
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	$(CARGO_DENY) --log-level error check bans licenses sources
	RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --no-deps --locked --quiet

.PHONY: prose
prose: ## Check the prose of the documentation, the CRDs and the CLI help, with Vale
	docs/lint.sh

.PHONY: unit
unit: ## Run the fast tests, which need neither a cluster nor root
	cargo test --workspace --locked

.PHONY: lab
lab: build static ## Run the tests on real control planes and nodes; they need root
	cargo test --workspace --locked --test lab -- --ignored

.PHONY: lab-smoke
lab-smoke: build ## Boot a whole cluster, and take the first steps of a user
	@target/debug/keyplane-lab smoke

.PHONY: lab-rotation
lab-rotation: build ## Rotate all keys and CAs on five nodes under a load that must not fail, and print failures (one hour)
	@target/debug/keyplane-lab rotation

HOURS ?= 12
.PHONY: endurance
endurance: build ## Run a cluster with short-lived keys under the same load, for HOURS=12 hours
	@target/debug/keyplane-lab endurance --hours $(HOURS)

# What takes hours, and of which `make test` has one small form each: nobody_notices_a_rotation, each_stage_lets_in_whom_it_says
# and the test of encryption at rest.
.PHONY: soak
soak: build ## Everything that takes hours: all rotations under the load without and with faults, then endurance for HOURS=12 hours
	target/debug/keyplane-lab rotation
	target/debug/keyplane-lab rotation --faults
	target/debug/keyplane-lab endurance --faults --hours $(HOURS)

.PHONY: bench-approver
bench-approver: packages kubernetes ## Compare the CSR approver with a raw client and an approver in Go (ten minutes, an idle host)
	cargo build --release --locked --package keyplane --package keyplane-e2e
	target/release/keyplane-lab bench-approver

.PHONY: build
build: packages kubernetes ## Build the operator, the lab, and the components that the lab runs
	cargo build --workspace --locked

# The lab's image contains this binary. Building it in advance keeps the build time out of the tests.
.PHONY: static
static:
	CARGO_TARGET_DIR=$(CACHE)/cargo cargo build-static --profile lab

.PHONY: image
image: ## Build the container image without Docker: an archive for `docker load` or `ctr images import`
	cargo run --quiet --package keyplane-e2e --bin keyplane-lab -- image

.PHONY: kubernetes
kubernetes: ## Build the pinned Kubernetes versions, etcd, containerd and add-ons into the cache (twenty minutes the first time)
	e2e/kubernetes/build.sh

# A newly installed cloud-init must not configure this host at its next boot, so a file disables it.
.PHONY: packages
packages: ## Install the missing Debian packages of the lab
	@missing=(); for package in $(PACKAGES); do \
	  dpkg-query --show --showformat '$${Status}\n' $$package 2>/dev/null | grep --quiet '^install ok installed$$' || missing+=($$package); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  [ "$$(id -u)" = 0 ] || { echo "missing: $${missing[*]}; as root: apt-get install $${missing[*]}" >&2; exit 1; }; \
	  case " $${missing[*]} " in *" cloud-init "*) mkdir -p /etc/cloud; touch /etc/cloud/cloud-init.disabled ;; esac; \
	  apt-get update; \
	  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$${missing[@]}"; \
	fi

.PHONY: bless
bless: ## Accept the current output: the golden files and charts/keyplane-crds
	cargo run --quiet --package keyplane -- crds > charts/keyplane-crds/templates/crds.yaml
	INSTA_UPDATE=always cargo test --package keyplane --test golden --test join
	git diff --stat -- charts operator/tests/snapshots

$(CARGO_DENY):
	cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked --root $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)
