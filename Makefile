# fairway: build, try and test. `make help` lists the targets.
#
#   KEEP=1 make demo           leave the demo's lab up, to look around in it
#   STORE=etcd make demo       with a store, in which the network is made once for all hosts (make demo-store)
#   ROOTFS=bookworm make demo  engines of that Debian suite; several, separated by commas, are used in turn
#   RUN=TestName make e2e      only the tests whose names match
#
# Some targets need root and use sudo for it. None of them installs Docker or starts a service on this machine.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
LINT    := $(GO) tool -modfile=tools/go.mod golangci-lint

# Everything but what needs engines.
PACKAGES = $(shell $(GO) list ./... | grep -v '/test/e2e')

# The engines of the end-to-end tests: Debian's current one and a newer one; elsewhere the machine's own.
ROOTFS ?= $(shell . /etc/os-release; [ "$$ID" = debian ] && echo bookworm,forky || echo "$${UBUNTU_CODENAME:-$$VERSION_CODENAME}")

# Tests that need root are compiled without it.
ENV_KEPT := CI,FAIRWAY_TEST_FULL,FAIRWAY_TEST_ROOTFS,FAIRWAY_TEST_BIN,FAIRWAY_REQUIRE_NETNS,FAIRWAY_REQUIRE_FRR,FAIRWAY_LAB_CACHE,FAIRWAY_LAB_DIR,FAIRWAY_LAB_MIRROR
ifneq ($(shell id -u),0)
SUDO    := sudo --preserve-env=$(ENV_KEPT)
AS_ROOT := -exec '$(SUDO)'
endif
export FAIRWAY_TEST_BIN := $(CURDIR)/bin/fairway
export FAIRWAY_TEST_ROOTFS := $(ROOTFS)
# In CI a test that cannot make namespaces fails; at home it is skipped.
ifeq ($(CI),true)
export FAIRWAY_REQUIRE_NETNS := 1
endif

.DEFAULT_GOAL := build
.PHONY: build image test unit netns e2e rootfs demo demo-down bench lint fmt setup clean help demo-store

build: ## build bin/fairway, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/fairway ./cmd/fairway

image: build ## bin/fairway-image.tar, for `docker load`: the image fairway:latest, from scratch
	$(GO) run ./packaging/image -o bin/fairway-image.tar bin/fairway

test: netns e2e ## all tests: unit, namespaces, real engines

unit: ## tests that need nothing (those that need root are skipped without it)
	$(GO) test $(PACKAGES)

netns: setup rootfs ## unit tests and the ones that make network namespaces, as root
	$(GO) test $(AS_ROOT) -timeout 20m $(PACKAGES)

e2e: build setup rootfs ## end-to-end tests on real engines, as root
	$(GO) test $(AS_ROOT) -count=1 -timeout 45m -run '$(RUN)' ./test/e2e/...

bench: build setup rootfs ## a table of ratios against host to host, Docker's bridge and its overlay (BENCH="-only run")
	CGO_ENABLED=0 $(GO) run $(AS_ROOT) ./test/bench $(BENCH)

demo: build ## three Docker hosts on this machine, whose containers reach each other
	@scripts/setup.sh demo$(if $(STORE),-store)
	@$(SUDO) env KEEP=$(KEEP) STORE=$(STORE) DEMO_ROOTFS=$(if $(filter undefined default file,$(origin ROOTFS)),,$(ROOTFS)) scripts/demo.sh

demo-store: ## the demo with a store: a network made once, for all hosts
	@$(MAKE) --no-print-directory demo STORE=etcd

demo-down: ## take down the lab that KEEP=1 make demo has left up
	@$(SUDO) bin/fairway lab down

rootfs: build setup ## build the root file systems of the tests' engines, once
	$(SUDO) bin/fairway lab rootfs $(subst $(comma), ,$(ROOTFS))

setup: ## install what the tests need on this machine and is missing
	@scripts/setup.sh test

lint: ## static checks
	$(LINT) run ./...

fmt: ## format the code
	$(LINT) fmt ./...

clean: ## remove what was built here (not the cached root file systems)
	rm -rf bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

comma := ,
