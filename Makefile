# SPDX-License-Identifier: Apache-2.0
# `make help` lists what there is.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=

TARGET  := $(or $(CARGO_TARGET_DIR),target)
bindir  := $(DESTDIR)$(PREFIX)/bin
mandir  := $(DESTDIR)$(PREFIX)/share/man/man1
sharedir := $(DESTDIR)$(PREFIX)/share
unitdir := $(DESTDIR)$(PREFIX)/lib/systemd/system

.PHONY: help demo build release test soak test-v2 lint docs bench install uninstall clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build, start an engine in a temporary place, run hello-world, clean up (root)
	@scripts/demo.sh

build: ## build everything, quickly (unoptimised)
	$(CARGO) build --locked --workspace

release: ## build everything, optimised
	$(CARGO) build --locked --workspace --release

test: ## install what the tests need, then run all of them (root for the end-to-end ones)
	@scripts/test-deps.sh
	@scripts/test.sh

soak: ## the long runs of docs/reliability.md, optimised (root; about an hour)
	@scripts/soak.sh

test-v2: ## tests of runtime and engine on cgroup v2, in a virtual machine (root; ten minutes)
	@scripts/test-v2.sh v2

lint: ## formatting, clippy, licences and bans of dependencies, documentation
	@scripts/lint.sh

bench: release ## side by side with docker, podman, ctr, crun, runc (those installed; root)
	@benches/peers/run.sh

install: release ## install programs, systemd unit, man pages, completions (PREFIX, DESTDIR)
	install -d $(bindir) $(unitdir) $(mandir)
	install -m 0755 $(TARGET)/release/berthd $(TARGET)/release/berth-shim $(TARGET)/release/berth-oci $(TARGET)/release/berth $(bindir)
	sed 's|/usr/local/bin/berthd|$(PREFIX)/bin/berthd|' contrib/systemd/berth.service >$(unitdir)/berth.service
	chmod 0644 $(unitdir)/berth.service
	$(TARGET)/release/berth man $(mandir)
	install -d $(sharedir)/bash-completion/completions $(sharedir)/zsh/site-functions $(sharedir)/fish/vendor_completions.d
	$(TARGET)/release/berth completion bash >$(sharedir)/bash-completion/completions/berth
	$(TARGET)/release/berth completion zsh >$(sharedir)/zsh/site-functions/_berth
	$(TARGET)/release/berth completion fish >$(sharedir)/fish/vendor_completions.d/berth.fish

uninstall: ## remove what install put there
	rm -f $(bindir)/berthd $(bindir)/berth-shim $(bindir)/berth-oci $(bindir)/berth $(unitdir)/berth.service
	rm -f $(mandir)/berth.1 $(mandir)/berth-*.1
	rm -f $(sharedir)/bash-completion/completions/berth $(sharedir)/zsh/site-functions/_berth
	rm -f $(sharedir)/fish/vendor_completions.d/berth.fish

clean: ## remove everything built
	$(CARGO) clean
