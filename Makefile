# make help says what there is.

PREFIX  ?= /usr/local
DESTDIR ?=
# Further arguments of the demo, the benchmark and the fuzzer: make demo ARGS="--play song.wav"
ARGS    ?=

CARGO   ?= cargo
# rustup's place, which a shell that is no login shell may not have in its path
export PATH := $(PATH):$(HOME)/.cargo/bin

BUILD_PACKAGES := gcc libc6-dev pkg-config libclang-dev libpipewire-0.3-dev libspa-0.2-dev libpulse-dev
# What the demo plays into when no PipeWire runs.
DEMO_PACKAGES  := pipewire pipewire-bin libspa-0.2-modules wireplumber dbus
TEST_PACKAGES  := libxen-dev pipewire-pulse pulseaudio-utils python3-gi
LINT_PACKAGES  := shellcheck groff-base
# libFuzzer is C++.
FUZZ_PACKAGES  := g++
# A program of its own, installed from its source below target, once.
DENY           := target/tools/cargo-deny-0.20.2/bin/cargo-deny
# The letters in the plots, and the other sound server.
BENCH_PACKAGES := fonts-dejavu-core pulseaudio pulseaudio-utils
# The Xen lab keeps its own list.
LAB_PACKAGES   := $(shell sed 's/\#.*//' tests/xen/packages 2>/dev/null)

BINDIR      := $(PREFIX)/bin
UNITDIR     := $(PREFIX)/lib/systemd/user
UDEVDIR     := $(PREFIX)/lib/udev/rules.d
SYSUSERSDIR := $(PREFIX)/lib/sysusers.d
DOCDIR      := $(PREFIX)/share/doc/vsnd-bridge
MANDIR      := $(PREFIX)/share/man/man1
DBUSDIR     := $(PREFIX)/share/dbus-1
BASHDIR     := $(PREFIX)/share/bash-completion/completions
ZSHDIR      := $(PREFIX)/share/zsh/site-functions
FISHDIR     := $(PREFIX)/share/fish/vendor_completions.d

PROGRAMS := target/release/vsnd-bridge target/release/vsndctl
SCRIPTS = .ci/run $(wildcard contrib/*.sh tests/support/*.sh tests/fuzz/run.sh tests/xen/*.sh tests/xen/cases/*.sh tests/xen/dom0/*.sh) \
	$(addprefix tests/xen/,dom0/init dom0/vif guest/init guest/notes guest/servers)

.PHONY: help deps deps-demo build demo test test-fast test-xen bench-timing fuzz lint install uninstall
.DEFAULT_GOAL := help

help:
	@echo 'make demo        a simulated guest plays and records through your PipeWire, or a private one; needs no Xen'
	@echo '                 ARGS="--play song.wav" plays a file'
	@echo 'make test        every test: unit, property, headless PipeWire, and real guests on real Xen under emulation'
	@echo 'make test-fast   the same without real Xen'
	@echo 'make bench-timing  how true positions are and how late sound is, on this machine: 15 minutes; for less ARGS="--long 60"'
	@echo 'make fuzz        hostile guests guided by coverage, without end; for less ARGS="--seconds 60 --rounds 1 stream"'
	@echo 'make build       target/release/vsnd-bridge and vsndctl'
	@echo 'make lint        formatting, clippy, one sound server alone, documentation, shell scripts, the unit, licences'
	@echo 'make deps        install what the above need (Debian 12; sudo when not root); the others call it themselves'
	@echo 'make install     PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'
	@echo 'make uninstall'

deps:
	@contrib/deps.sh $(BUILD_PACKAGES) $(DEMO_PACKAGES) $(TEST_PACKAGES) $(LINT_PACKAGES) $(BENCH_PACKAGES) $(LAB_PACKAGES)

deps-demo:
	@contrib/deps.sh $(BUILD_PACKAGES) $(DEMO_PACKAGES)

build: deps-demo
	$(CARGO) build --locked --release -p vsnd-bridge -p vsnd-dbus

demo: build
	target/release/vsnd-bridge demo $(ARGS)

test: test-fast test-xen

test-fast: deps
	$(CARGO) test --locked --workspace
	RUSTFLAGS='--cfg loom' $(CARGO) test --locked -p vsnd-pw-module --no-default-features --lib --target-dir target/loom loom_tests

# With CI set, a lab that can't be built is a failure and not a remark.
test-xen: deps test-fast
	$(CARGO) build --locked --release -p vsnd-bridge -p vsnd-dbus
	CI=1 $(CARGO) test --locked -p vsnd-tests --test xen

# Prints tables; target/bench gets timing.json and the plots of docs/timing.md.
bench-timing: deps-demo
	@contrib/deps.sh $(BENCH_PACKAGES)
	$(CARGO) bench --locked -p vsnd-tests --bench timing -- $(ARGS)

# Over and over until it is stopped; prints executions.
fuzz: deps
	@contrib/deps.sh $(FUZZ_PACKAGES)
	tests/fuzz/run.sh $(ARGS)

$(DENY):
	$(CARGO) install --locked --quiet --root $(DENY:/bin/cargo-deny=) --version $(patsubst cargo-deny-%,%,$(notdir $(DENY:/bin/cargo-deny=))) cargo-deny

lint: deps $(DENY)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	CARGO='$(CARGO)' contrib/verify-features.sh
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps
	shellcheck -x -P tests/xen $(SCRIPTS)
	contrib/verify-unit.sh
	contrib/verify-man.sh
	$(DENY) --locked check licenses bans sources

$(PROGRAMS):
	$(error $@ is not built yet: make build)

install: $(PROGRAMS)
	install -D -m 755 -t $(DESTDIR)$(BINDIR) $(PROGRAMS)
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/bin/|$(BINDIR)/|' contrib/systemd/vsnd-bridge.service \
		> $(DESTDIR)$(UNITDIR)/vsnd-bridge.service
	chmod 644 $(DESTDIR)$(UNITDIR)/vsnd-bridge.service
	install -D -m 644 -t $(DESTDIR)$(UDEVDIR) contrib/udev/70-vsnd-bridge.rules
	install -D -m 644 -t $(DESTDIR)$(SYSUSERSDIR) contrib/sysusers.d/vsnd-bridge.conf
	install -D -m 644 -t $(DESTDIR)$(DBUSDIR)/interfaces dbus/org.vsnd.Bridge1*.xml
	install -d $(DESTDIR)$(DBUSDIR)/services
	sed 's|/usr/bin/|$(BINDIR)/|' contrib/dbus/org.vsnd.Bridge1.service \
		> $(DESTDIR)$(DBUSDIR)/services/org.vsnd.Bridge1.service
	chmod 644 $(DESTDIR)$(DBUSDIR)/services/org.vsnd.Bridge1.service
	install -D -m 644 -t $(DESTDIR)$(MANDIR) contrib/man/vsnd-bridge.1 contrib/man/vsndctl.1
	install -D -m 644 contrib/completions/vsndctl.bash $(DESTDIR)$(BASHDIR)/vsndctl
	install -D -m 644 -t $(DESTDIR)$(ZSHDIR) contrib/completions/_vsndctl
	install -D -m 644 -t $(DESTDIR)$(FISHDIR) contrib/completions/vsndctl.fish
	install -D -m 644 -t $(DESTDIR)$(DOCDIR) CHANGELOG.md LICENSE-MIT LICENSE-APACHE
	sed 's|(contrib/[a-z]*/|(examples/|' README.md > $(DESTDIR)$(DOCDIR)/README.md
	chmod 644 $(DESTDIR)$(DOCDIR)/README.md
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/docs docs/*.md docs/*.svg docs/*.png
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/docs/timing docs/timing/*
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/examples contrib/xl/guest-with-sound.cfg
	install -D -m 755 -t $(DESTDIR)$(DOCDIR)/examples contrib/examples/vsnd-ask-capture
ifeq ($(DESTDIR),)
	@echo 'Now, once, as root:'
	@echo '  systemd-sysusers && udevadm control --reload && udevadm trigger --subsystem-match=misc'
	@echo '  usermod -aG vsnd USER      # the user whose desktop plays; log in anew'
	@echo 'and as that user:'
	@echo '  vsnd-bridge check && systemctl --user enable --now vsnd-bridge'
endif

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/vsnd-bridge $(DESTDIR)$(BINDIR)/vsndctl $(DESTDIR)$(UNITDIR)/vsnd-bridge.service \
		$(DESTDIR)$(UDEVDIR)/70-vsnd-bridge.rules $(DESTDIR)$(SYSUSERSDIR)/vsnd-bridge.conf \
		$(DESTDIR)$(DBUSDIR)/interfaces/org.vsnd.Bridge1*.xml \
		$(DESTDIR)$(DBUSDIR)/services/org.vsnd.Bridge1.service \
		$(DESTDIR)$(MANDIR)/vsnd-bridge.1 $(DESTDIR)$(MANDIR)/vsndctl.1 $(DESTDIR)$(BASHDIR)/vsndctl \
		$(DESTDIR)$(ZSHDIR)/_vsndctl $(DESTDIR)$(FISHDIR)/vsndctl.fish
	rm -rf $(DESTDIR)$(DOCDIR)
