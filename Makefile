# The commands of the project; `make help` lists them. Each installs what it lacks.

T ?=
MINUTES ?= 20
KILL_EVERY ?= 60

.PHONY: help build demo test soak fuzz check lint fmt docs dashboards pictures charts weakened sanity e2e bench nightly clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

build: ## build the release binary
	cargo build --locked --release

demo: ## mount a real closure on this machine, show it, clean up (root)
	scripts/demo.sh

test: ## run the tests; T=word: those with the word in their path (root, or mounts are skipped)
	@scripts/install-nix.sh e2fsprogs openssh-server iproute2 strace
	@scripts/install-helm.sh >/dev/null
	@scripts/test.sh "$(T)"

soak: ## everything at once for MINUTES=n, the node killed each KILL_EVERY=seconds, 0 is never (root)
	@scripts/install-nix.sh
	NIX_CSI_SOAK_MINUTES=$(MINUTES) NIX_CSI_SOAK_KILL_EVERY=$(KILL_EVERY) \
		cargo test --locked --test soak -- --nocapture

fuzz: ## fuzz the parsers for MINUTES=n in all (T=word: those targets); docs/fuzzing.md
	scripts/fuzz.sh $(MINUTES) $(T)

check: ## lint, then test
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test

lint: ## format, lints, licences, workflows
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@# Which is no test of `cargo test`, since it needs a cluster.
	cargo clippy --locked --test e2e -- -D warnings
	"$$(scripts/install-cargo-deny.sh)" --locked check licenses bans sources
	"$$(scripts/install-cargo-deny.sh)" --locked --manifest-path fuzz/Cargo.toml --config deny.toml \
		check licenses bans sources
	"$$(scripts/install-actionlint.sh)"

fmt: ## format the code
	cargo fmt

docs: ## write what is rendered and generated anew: deploy/manifests, dashboards, tables of docs/security.md, threats.md, settings.md, metrics.md
	NIX_CSI_RENEW_DOCS=1 cargo test --locked --test deployed the_documentation_has

dashboards: ## write the dashboards anew, and list them
	@NIX_CSI_RENEW_DOCS=1 cargo test --locked --quiet --test deployed the_documentation_has_each_dashboard >/dev/null
	@awk -F'"' '/^  "description"/ {says = $$4} /^  "title"/ {print FILENAME "\t" says}' dashboards/*.json | expand -t 34

pictures: ## draw docs/dashboards/*.png from some minutes of load (root)
	@scripts/install-nix.sh openssh-server iproute2
	scripts/draw-dashboards.sh

charts: ## draw docs/performance/*.png from docs/performance/bench.json
	"$$(scripts/install-draw.sh)" scripts/draw-performance.py docs/performance/bench.json docs/performance

weakened: ## take each protection of docs/threats.md away and see its tests fail; T=word (root)
	@scripts/install-nix.sh e2fsprogs openssh-server iproute2 strace
	scripts/weakened.sh $(T)

sanity: ## csi-sanity against the real driver (root)
	scripts/sanity.sh

e2e: ## the driver in a real cluster, made and taken down here; T=word (root)
	scripts/e2e.sh $(T)

bench: ## run the benchmarks, which write target/bench.json (root)
	@scripts/install-nix.sh containerd erofs-utils rsync
	cargo bench --locked --bench publish

nightly: ## what is too slow for each change: benchmarks, builds of minutes, dashboards under load, a soak, fuzzing, protections taken away, aarch64, other versions of Nix, a build done twice, what newcomers do, all of e2e (root)
	@$(MAKE) --no-print-directory bench
	NIX_CSI_FULL=1 scripts/test.sh builds
	NIX_CSI_FULL=1 scripts/test.sh crowd
	NIX_CSI_FULL=1 scripts/test.sh swapped
	NIX_CSI_FULL=1 scripts/test.sh greedy
	NIX_CSI_FULL=1 scripts/test.sh observed
	@$(MAKE) --no-print-directory soak MINUTES=20
	@$(MAKE) --no-print-directory fuzz MINUTES=10
	@$(MAKE) --no-print-directory weakened
	scripts/check-aarch64.sh
	scripts/test-nix-versions.sh
	scripts/reproducible.sh
	scripts/newcomer.sh
	scripts/e2e.sh

clean: ## remove what was built; installed tools and roots stay in ~/.cache/nix-csi
	cargo clean
