# `make help` lists the targets. CARGO_FLAGS is passed to every cargo call that builds.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Tests that need root, mounts or namespaces are files called root_*.rs or *_root.rs.
ALL_TESTS := $(wildcard soloist/tests/*.rs testkit/tests/*.rs model/tests/*.rs)
ROOT_FILES := $(filter %_root.rs,$(ALL_TESTS)) $(foreach file,$(ALL_TESTS),$(if $(filter root_%,$(notdir $(file))),$(file)))
# Tests of real servers: testbed_*.rs need a control plane, nodes_*.rs two nodes with pods, consul_*.rs Consul.
CLUSTER_FILES := $(filter testkit/tests/testbed_%.rs,$(ALL_TESTS))
NODES_FILES := $(filter testkit/tests/nodes_%.rs,$(ALL_TESTS))
CONSUL_FILES := $(filter testkit/tests/consul_%.rs,$(ALL_TESTS))
# Files called promtool_*.rs need the program of that name, which the testbed builds.
PROMTOOL_FILES := $(filter testkit/tests/promtool_%.rs,$(ALL_TESTS))
# Files called packages_*.rs need what is released, made of an unoptimised build.
PACKAGES_FILES := $(filter testkit/tests/packages_%.rs,$(ALL_TESTS))
PLAIN_FILES := $(filter-out $(ROOT_FILES) $(PACKAGES_FILES) $(CLUSTER_FILES) $(NODES_FILES) $(CONSUL_FILES) $(PROMTOOL_FILES),$(ALL_TESTS))
names = $(foreach file,$(1),--test $(basename $(notdir $(file))))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## See it work: three members, and everything that can happen to the active one
	cargo run --locked --release -- demo

.PHONY: check
check: lint unit process ## All tests that need neither root nor other tools

.PHONY: test
test: tools check dashboard dashboard-controller alerts root cluster consul nodes packages docs deny small-demo ## All tests; installs what it needs, needs root
	@[ ! -e target/second-tries ] || { echo "passed at a second try only:"; cat target/second-tries; rm target/second-tries; }
	@echo "all tests passed"

.PHONY: lint
lint: ## Format and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: unit
unit: ## Unit tests
	scripts/tests --locked --workspace --lib --bins

.PHONY: process
process: ## Tests with real processes, without root
	cargo build --locked --workspace --bins --examples
	scripts/tests --locked --workspace $(call names,$(PLAIN_FILES))

.PHONY: root
root: ## Tests that need root: mounts, namespaces, cgroups, other users
	@[ "$$(id -u)" = 0 ] || { echo "these tests need root: sudo make root" >&2; exit 1; }
	cargo build --locked --workspace --bins
	scripts/tests --locked --workspace $(call names,$(ROOT_FILES))

.PHONY: docs
docs: ## The API documentation builds without a warning, and its examples run
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	cargo test --locked --doc --package election --package soloist

.PHONY: dashboard
dashboard: ## The page of --http in a real Chromium; its pictures are in out/dashboard
	cargo build --locked -p soloist
	cd testkit/dashboard && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && node --test --test-timeout=600000

.PHONY: dashboard-controller
dashboard-controller: testbed ## The page of a controller in a real Chromium, beside a real API server; needs root
	cargo build --locked -p soloist
	cd testkit/dashboard && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	testbed/run control-plane -- node --test --test-timeout=120000 testkit/dashboard/controller.cluster.js

PROMTOOL := $(or $(TESTBED_CACHE),$(HOME)/.cache/soloist-testbed)/bin/promtool

.PHONY: alerts
alerts: testbed ## Metrics and alert rules, by Prometheus' own promtool
	$(PROMTOOL) check rules --lint=all --lint-fatal examples/prometheus/soloist-alerts.yml
	$(PROMTOOL) test rules examples/prometheus/soloist-alerts.test.yml
	cargo build --locked --workspace --bins
	PROMTOOL=$(PROMTOOL) scripts/tests --locked -p testkit $(call names,$(PROMTOOL_FILES))

.PHONY: small-demo
small-demo: ## The demo, a round of each kind
	cargo run --locked --bin soloist -- demo --rounds 5

.PHONY: deny
deny: ## Licences, sources and bans of all dependencies
	cargo deny --offline --locked check bans licenses sources

.PHONY: advisories
advisories: tools ## Known weaknesses of all dependencies; asks for the database of advisories on the network
	cargo deny --locked check advisories

.PHONY: model
model: ## The model, small and deep instances: every schedule, some minutes
	cargo run --locked --profile fast -p model

.PHONY: sim
sim: ## A million simulated histories, every fault, and as many as SLOTS_HISTORIES says with 2, 3 and 5 slots; HISTORIES and SEED choose others
	@mkdir -p out
	cargo run --locked --profile fast -p testkit --bin sim -- --histories $${HISTORIES:-1000000} --seed $${SEED:-40000000} --json out/sim.json
	@for slots in 2 3 5; do \
		cargo run --locked --profile fast -p testkit --bin sim -- --slots $$slots --histories $${SLOTS_HISTORIES:-100000} \
			--seed $${SEED:-40000000} --json out/sim-$$slots-slots.json || exit 1; \
	done

.PHONY: mutants
mutants: ## Break soloist on purpose, one rule at a time; fails if nothing notices; some need root
	scripts/mutants.sh

.PHONY: campaign
campaign: ## A thousand rounds over all kinds of end, and a thousand of the demo with its journal; ROUNDS chooses
	@mkdir -p out
	cargo build --locked --release --workspace --bins
	SOLOIST_BIN=$(CURDIR)/target/release/soloist target/release/campaign --rounds $${ROUNDS:-1000} --json out/campaign.json
	target/release/soloist demo --rounds $${ROUNDS:-1000} --json > out/demo.json && tail -7 out/demo.json
	ROUNDS=$${SLOT_ROUNDS:-100} cargo test --locked --release -p testkit --test slots
	HISTORIES=$${SLOT_HISTORIES:-1000} cargo test --locked --release -p testkit --test real_driver

.PHONY: campaign-lease
campaign-lease: testbed ## Black holes between members and a real API server, short leases and default ones; needs root
	$(call black_holes,control-plane,kubernetes)

.PHONY: campaign-consul
campaign-consul: testbed ## The same between members and a real Consul; needs root
	$(call black_holes,consul,consul)

define black_holes
	@mkdir -p out
	cargo build --locked --release --workspace --bins
	for lease in "4s --rounds 208" "15s --rounds 16"; do \
		SOLOIST_BIN=$(CURDIR)/target/release/soloist testbed/run $(1) -- target/release/campaign --lock $(2) \
			--groups 8 --lease $$lease --json out/holes-$(2)-$${lease%% *}.json || exit 1; \
	done
endef

# By itself: built together, it would get what only the other needs of a crate that they share.
soloist = cargo build --locked --release -p soloist

.PHONY: bench
bench: ## Handovers beside flock and the raw limit, memory, size, wake-ups; fails when a target is missed
	cargo build --locked --release -p bench
	$(soloist)
	target/release/bench --rounds $${ROUNDS:-100} --json out/bench.json

.PHONY: bench-lease
bench-lease: testbed ## The same on a Lease of a real API server: handovers, memory, requests; needs root
	cargo build --locked --release -p bench
	$(soloist)
	TESTBED_AUDIT=audited testbed/run control-plane -- \
		target/release/bench --rounds $${ROUNDS:-100} --json out/bench-lease.json lease

.PHONY: duel
duel: testbed ## Beside what people use instead on one API server, half an hour; PEERS="--peer NAME=PATH" adds a program
	cargo build --locked --release -p bench
	$(soloist)
	TESTBED_AUDIT=audited testbed/run control-plane -- \
		target/release/bench --rounds $${ROUNDS:-20} --json out/duel.json duel $${PEERS:-}

.PHONY: bench-consul
bench-consul: testbed ## Beside the real consul lock and the raw limit on one Consul, twenty minutes; fails when a target is missed
	cargo build --locked --release -p bench
	$(soloist)
	testbed/run consul -- target/release/bench --rounds $${ROUNDS:-50} --json out/bench-consul.json consul

.PHONY: bench-notices
bench-notices: ## From the decision that a member is active to the notice at a warm workload; fails when a target is missed
	cargo build --locked --release -p bench -p testkit --bins
	$(soloist)
	target/release/bench --rounds $${ROUNDS:-100} --json out/bench-notices.json notices

.PHONY: bench-sidecar
bench-sidecar: testbed ## Elections beside an application: who is named, killed containers, beside client-go; PEERS="--peer old=PATH" adds a program; needs root
	cargo build --locked --release -p bench
	$(soloist)
	testbed/run control-plane -- target/release/bench --rounds $${ROUNDS:-50} --json out/bench-sidecar.json sidecar $${PEERS:-}

.PHONY: bench-controller
bench-controller: testbed ## Failovers by label, own handovers, 10,000 groups of two pods; PEERS="--peer icr=PATH" adds a program
	cargo build --locked --release -p bench
	$(soloist)
	testbed/run control-plane -- \
		target/release/bench --rounds $${ROUNDS:-100} --json out/bench-controller.json controller --groups $${GROUPS:-10000} $${PEERS:-}

.PHONY: growth
growth: testbed ## 1 to 200 groups on one API server: requests a second and handovers; needs root
	cargo build --locked --release -p bench
	$(soloist)
	testbed/run control-plane -- target/release/bench --rounds $${ROUNDS:-50} --json out/growth.json growth

.PHONY: fuzz
fuzz: ## Each parser against arbitrary input, for a minute
	cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	@for target in codec ids settings; do \
		mkdir -p fuzz/corpus/$$target && \
		cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$${TIME:-60} || exit 1; \
	done

.PHONY: size
size: ## Size of the release binary; fails above 8 MB
	cargo build --locked --release -p soloist
	@bytes=$$(stat -c %s target/release/soloist); echo "soloist: $$bytes bytes"; [ "$$bytes" -le 8000000 ]

.PHONY: packages
packages: tools ## Image, Debian package and list of parts, made of an unoptimised build and used; needs root
	@[ "$$(id -u)" = 0 ] || { echo "these tests need root: sudo make packages" >&2; exit 1; }
	@testbed/packages
	scripts/pack "$$(testbed/test-binaries)" out/packages
	SOLOIST_PACKAGES=$(CURDIR)/out/packages scripts/tests --locked -p testkit $(call names,$(PACKAGES_FILES))

.PHONY: release
release: tools ## Static binary, image, Debian package, list of parts and checksums in out/release; fails above their sizes
	scripts/release

.PHONY: reproducible
reproducible: tools ## A release of the last commit, twice, in clones in different folders, compared bit by bit
	scripts/reproducible

.PHONY: tools
tools: ## Install what the tests need
	scripts/install-tools

.PHONY: testbed
testbed: ## Build the real etcd, Kubernetes, Consul, promtool and helm, once; 45 minutes on two busy cores
	@testbed/packages
	@testbed/build

.PHONY: testbed-smoke
testbed-smoke: testbed image ## Each kind of testbed up, used and down, with times; needs root
	@testbed/smoke

.PHONY: image
image: ## A container image of the static release binary, without a container daemon
	@testbed/image

# Each file of tests has servers of its own, so that two of them go side by side: they mostly wait for leases,
# and the servers of more would keep each other waiting.
CLUSTER_PARTS := cluster-lock $(patsubst testkit/tests/%.rs,cluster-%,$(CLUSTER_FILES))

.PHONY: cluster
cluster: testbed ## Tests on a real API server; needs root
	@[ "$$(id -u)" = 0 ] || { echo "these tests need root: sudo make cluster" >&2; exit 1; }
	cargo build --locked --workspace --bins --examples
	cargo test --locked -p soloist --lib --no-run
	cargo test --locked -p testkit --no-run $(call names,$(CLUSTER_FILES))
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(CLUSTER_PARTS)

.PHONY: $(CLUSTER_PARTS)
cluster-lock:
	testbed/run control-plane -- scripts/tests --locked -p soloist --lib -- --ignored --test-threads=1 lock::kubernetes::testbed

$(filter-out cluster-lock,$(CLUSTER_PARTS)): cluster-%:
	TESTBED_AUDIT=audited testbed/run control-plane -- scripts/tests --locked -p testkit --test $*

# The same: consul_three_*.rs need three servers and take longest, consul_acl_*.rs need access control.
CONSUL_LONG := $(filter testkit/tests/consul_three_%.rs,$(CONSUL_FILES))
CONSUL_PARTS := $(patsubst testkit/tests/%.rs,consul-%,$(CONSUL_LONG) $(filter-out $(CONSUL_LONG),$(CONSUL_FILES))) consul-lock

.PHONY: consul
consul: testbed ## Tests on a real Consul; needs root
	@[ "$$(id -u)" = 0 ] || { echo "these tests need root: sudo make consul" >&2; exit 1; }
	cargo build --locked --workspace --bins --examples
	cargo test --locked -p soloist --lib --no-run
	cargo test --locked -p testkit --no-run $(call names,$(CONSUL_FILES))
	$(MAKE) --no-print-directory --jobs=3 --output-sync=target $(CONSUL_PARTS)

.PHONY: $(CONSUL_PARTS)
consul-lock:
	testbed/run consul -- scripts/tests --locked -p soloist --lib -- --ignored lock::consul::testbed route::consul_service

$(filter-out consul-lock,$(CONSUL_PARTS)): consul-%:
	$(if $(filter consul_acl_%,$*),TESTBED_CONSUL_ACL=1) testbed/run $(if $(filter consul_three_%,$*),consul-three,consul) -- \
		scripts/tests --locked -p testkit --test $* -- --test-threads=4

.PHONY: nodes
nodes: testbed ## Tests with real pods on two nodes; needs root
	@[ "$$(id -u)" = 0 ] || { echo "these tests need root: sudo make nodes" >&2; exit 1; }
	testbed/test-image
	cargo build --locked -p soloist
	cargo test --locked -p testkit --no-run $(call names,$(NODES_FILES))
	testbed/run two-nodes,consul -- scripts/tests --locked -p testkit $(call names,$(NODES_FILES)) -- --test-threads=1
