# Everything one does with this repository. `make` alone lists it.

# --- Versions of the tools, all in one place; Python's in test/openapi -------
PROTOC_GEN_GO_VERSION := v1.36.12
GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION   := v1.9.0
GO_LICENSES_VERSION   := v1.6.0
INFERNO_VERSION       := 0.12.4
# Also in internal/kafkatest (pom.xml, Version) and docker-compose.yml; a test compares them.
KAFKA_VERSION         := 4.3.1
# ----------------------------------------------------------------------------

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN  := $(CURDIR)/bin
JARS := $(CURDIR)/.cache/kafka-$(KAFKA_VERSION)/libs
SCHEMATHESIS := $(CURDIR)/.cache/schemathesis/bin/schemathesis
INFERNO := $(CURDIR)/.cache/inferno-$(INFERNO_VERSION)
export PATH := $(BIN):$(PATH)

FUZZTIME ?= 10s
TEST     ?= .
ROUNDS   ?= 3
ROWS     ?= .
SIZE     ?= full
STORE_ROWS ?= 1000000
# A full run writes the figures of docs/performance.md.
OUT      ?= $(if $(filter full,$(SIZE)),docs,.cache/bench)

##@ Run

.PHONY: run run-dev-api run-dev-broker-balance run-dev-broker-flagger run-dev-broker-detector run-kafka
run: ## everything in one process, with the embedded broker
	go run cmd/main.go -service=all

run-dev-api: ## the HTTP API (needs a Kafka on BROKER)
	go run cmd/main.go -service=api

run-dev-broker-balance: ## the balance processors
	go run cmd/main.go -service=broker -broker_name=balance

run-dev-broker-flagger: ## the flagger processors
	go run cmd/main.go -service=broker -broker_name=flagger

run-dev-broker-detector: ## the detector: the threshold processors
	go run cmd/main.go -service=broker -broker_name=threshold

run-kafka: kafka-jars ## one real Apache Kafka on 127.0.0.1:9092, without containers (needs Java 17)
	go run ./internal/kafkatest/cmd/kafka -port 9092 -dir data/real-kafka

##@ Test

.PHONY: test test-kafka test-openapi test-twin test-browser chaos planted fuzz
test: ## all tests that need only Go
	go test -race -timeout 10m ./...
	SCHEDULES=1000000 go test -count=1 -run TestSchedules -v ./internal/model

# Packages one after another: each starts a Kafka, and one of them measures.
test-kafka: $(if $(BROKER),,kafka-jars) ## the tests against a real Kafka: their own, or the one on BROKER; TEST=regexp chooses
	go test -race -tags kafka -count=1 -timeout 30m -p 1 -v -run '$(TEST)' $(if $(BROKER),,./internal/kafkatest/...) ./internal/kafka/... ./internal/flowtest/... ./test/...

test-openapi: build $(SCHEMATHESIS) ## what schemathesis makes of /openapi.json, against the whole suite (needs Python 3.11)
	$(dir $(SCHEMATHESIS))openapi-spec-validator internal/api/openapi.json
	test/schemathesis.sh $(BIN)/coinbit $(SCHEMATHESIS)

test-twin: build ## every answer on random histories, held against a naive fold of the raw log in Python (3.11): SEED=number
	SEED='$(SEED)' PYTHONDONTWRITEBYTECODE=1 python3 test/twin/run.py $(BIN)/coinbit

CHROMIUM    ?= /usr/bin/chromium
SCREENSHOTS ?= $(CURDIR)/.cache/browser

test-browser: ## the live page in a real Chromium (needs Node.js 20 and chromium); SCREENSHOTS=dir
	@for tool in node npm; do command -v $$tool >/dev/null || { echo "$$tool is missing: install Node.js 20 or newer with npm (Debian: apt-get install nodejs npm)"; exit 1; }; done
	@test -x '$(CHROMIUM)' || { echo "CHROMIUM: there is no $(CHROMIUM): install it (Debian: apt-get install chromium), or name another with CHROMIUM=path"; exit 1; }
	go build -o $(CURDIR)/.cache/coinbit-browser ./cmd
	cd test/browser && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	cd test/browser && COINBIT=$(CURDIR)/.cache/coinbit-browser CHROMIUM='$(CHROMIUM)' SCREENSHOTS='$(SCREENSHOTS)' npm test --silent

chaos: $(if $(or $(BROKER),$(filter embedded,$(BROKERS)),$(filter list,$(KINDS))),,kafka-jars) ## faults under load, judged by an oracle: FAULTS=60 SEED=1 BROKERS=embedded|1|3 KINDS=names,groups; KINDS=list lists them
	FAULTS=$(or $(FAULTS),0) SEED=$(SEED) BROKERS=$(or $(BROKERS),1) KINDS='$(KINDS)' go test -race -count=1 -timeout 24h -v -run '^TestChaos$$' ./test

planted: ## known bugs, put one at a time into a copy of the tree: a test must notice each
	go test -tags planted -count=1 -timeout 20m -v ./test/planted

# At the end of FUZZTIME Go before 1.27 may say FAIL with "context deadline exceeded"
# and no failing input (go.dev/issue/75804). That alone is passed over, and said.
fuzz: ## every fuzz function for FUZZTIME (default 10s)
	@n=0; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "fuzz $$pkg $$f"; n=$$((n+1)); \
	    go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg 2>&1 | tee "$$log" || { \
	      [ "$$(grep '^    ' "$$log")" = '    context deadline exceeded' ] || exit 1; \
	      echo "no failing input: the end of FUZZTIME, go.dev/issue/75804"; }; \
	  done; \
	done; echo "$$n fuzz functions run"

##@ Measure

.PHONY: bench bench-stores
bench: kafka-jars ## figures beside their ceilings on a real Kafka, as table and plots: ROUNDS=3 ROWS=regexp SIZE=small|full OUT=dir PROFILES=dir
	go build -o $(BIN)/bench ./test/bench
	$(BIN)/bench -rounds '$(ROUNDS)' -rows '$(ROWS)' -size '$(SIZE)' -out '$(OUT)' -profiles '$(PROFILES)'

bench-stores: ## embedded stores beside each other, on what the local store asks of one: ROUNDS=3 STORE_ROWS=1000000
	cd test/stores && go build -o $(BIN)/stores . && $(BIN)/stores -rows '$(STORE_ROWS)' -rounds '$(ROUNDS)'

.PHONY: flame
flame: ## a flame graph of a CPU profile that bench wrote (needs cargo, once): PROFILE=file.cpu >graph.svg
	@[ -f '$(PROFILE)' ] || { echo "PROFILE: got '$(PROFILE)', takes a .cpu file that make bench PROFILES=dir wrote"; exit 1; } >&2
	@[ -x $(INFERNO)/bin/inferno-flamegraph ] || cargo install --quiet --locked --root $(INFERNO) --version $(INFERNO_VERSION) --no-default-features --features cli inferno >&2
	@go tool pprof -traces '$(PROFILE)' | awk -f test/bench/folded.awk | \
	  $(INFERNO)/bin/inferno-flamegraph --title '$(basename $(notdir $(PROFILE)))' --countname µs --minwidth 0.3 --hash --width 1200

##@ Check

.PHONY: verify check-format check-vet check-lint check-modules check-generated check-licences check-monitoring check-vulnerabilities
verify: check-format check-vet check-lint check-modules check-generated check-licences check-monitoring check-vulnerabilities ## format, vet, lint, modules, generated files, licences, alerts, vulnerabilities
	@echo "verify: all passed"

check-format:
	@out=$$(gofmt -l cmd docs internal test); \
	if [ -n "$$out" ]; then echo "gofmt differs; run gofmt -w on:"; echo "$$out"; exit 1; fi

check-vet:
	go vet ./...
	go vet -tags kafka ./...
	go vet -tags planted ./test/planted
	cd test/stores && go vet ./...

check-lint: $(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION)
	golangci-lint run ./...

check-modules:
	go mod tidy -diff
	go mod verify
	cd test/stores && go mod tidy -diff && go mod verify

# The comment that names the protoc version is not compared: any protoc will do.
check-generated: $(BIN)/.protoc-gen-go-$(PROTOC_GEN_GO_VERSION)
	@command -v protoc >/dev/null || { echo "protoc is missing, so the generated files cannot be checked: install it (Debian: apt-get install protobuf-compiler)"; exit 1; }
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	protoc --go_out="$$tmp" ./proto/*.proto; \
	diff -r -u -I '^//[[:space:]]*protoc  *v' internal/pb "$$tmp/internal/pb" || { echo "generated files are stale: run make proto-gen"; exit 1; }

# go-licenses would look for a URL of each licence on the network. None is
# printed, so a proxy that is not there saves the time.
licence_list = go mod download; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	list=$$(HTTP_PROXY=127.0.0.1:1 HTTPS_PROXY=127.0.0.1:1 go-licenses report ./cmd --ignore coinbit --template docs/licences.tmpl 2>"$$log") || { cat "$$log"; exit 1; }; \
	if grep -E '^\| [a-z]+\.' <<<"$$list" | grep -vE '\| (MIT|ISC|Apache-2.0|BSD-[23]-Clause(-FreeBSD)?|MPL-2.0) \|$$'; then echo "the licences above are not among those agreed on"; exit 1; fi

check-licences: $(BIN)/.go-licenses-$(GO_LICENSES_VERSION)
	@$(licence_list); diff -u docs/licences.md - <<<"$$list" || { echo "docs/licences.md is stale: run make licences"; exit 1; }

check-monitoring: ## the alert rules and their tests (needs promtool)
	@command -v promtool >/dev/null || { echo "promtool is missing, so the alerts cannot be checked: install it (Debian: apt-get install prometheus)"; exit 1; }
	promtool check config docs/monitoring/prometheus/prometheus.yml
	promtool test rules docs/monitoring/prometheus/alerts_test.yml

# Exit code 3 means vulnerabilities were found. Anything else that is not 0 is a
# failure too, unless the reason is that the database cannot be reached.
check-vulnerabilities: $(BIN)/.govulncheck-$(GOVULNCHECK_VERSION)
	@rc=0; out=$$(govulncheck ./... 2>&1) || rc=$$?; echo "$$out"; \
	if [ $$rc -ne 0 ] && [ $$rc -ne 3 ] && grep -qE 'fetching vulnerabilities|dial tcp|lookup |connection refused|i/o timeout|[0-9]{3} (Forbidden|Bad Gateway|Service Unavailable)' <<<"$$out"; then \
	  echo "NOT CHECKED: govulncheck could not reach its vulnerability database"; exit 0; \
	fi; exit $$rc

##@ Build

.PHONY: build proto-gen openapi licences vendor-web kafka-jars clean
build: ## the binary, as ./bin/coinbit
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/coinbit ./cmd

proto-gen: $(BIN)/.protoc-gen-go-$(PROTOC_GEN_GO_VERSION) ## the Go code in internal/pb from proto/ (needs protoc)
	protoc --go_out=. ./proto/*.proto

openapi: ## openapi.json, docs.html and docs/errors.md, from internal/api
	go test -count=1 -run '^TestDocument$$' ./internal/api -update

licences: $(BIN)/.go-licenses-$(GO_LICENSES_VERSION) ## docs/licences.md, from the modules in the binary
	@$(licence_list); cat <<<"$$list" >docs/licences.md

vendor-web: ## what the live page uses of others, into internal/web/static/vendor (needs npm)
	./internal/web/vendor.sh

kafka-jars: $(if $(KAFKA_LIBS),,$(JARS)/.complete) ## the jars of a real Apache Kafka, for tests (needs Maven)

clean: ## remove what was built and fetched; data stays
	rm -rf $(BIN) $(CURDIR)/.cache

# A stamp file says that just this version is installed.
$(BIN)/.protoc-gen-go-$(PROTOC_GEN_GO_VERSION):
	@rm -f $(BIN)/.protoc-gen-go-*
	GOBIN=$(BIN) go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION)
	@touch $@

$(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION):
	@rm -f $(BIN)/.golangci-lint-*
	GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@touch $@

$(BIN)/.go-licenses-$(GO_LICENSES_VERSION):
	@rm -f $(BIN)/.go-licenses-*
	GOBIN=$(BIN) go install github.com/google/go-licenses@$(GO_LICENSES_VERSION)
	@touch $@

$(BIN)/.govulncheck-$(GOVULNCHECK_VERSION):
	@rm -f $(BIN)/.govulncheck-*
	GOBIN=$(BIN) go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	@touch $@

$(SCHEMATHESIS): test/openapi/requirements.txt
	rm -rf $(dir $(@D))
	python3 -m venv $(dir $(@D))
	$(@D)/pip install --quiet --require-hashes -r $<
	@touch $@

$(JARS)/.complete: internal/kafkatest/pom.xml
	@command -v mvn >/dev/null || { echo "Maven is missing: install it, or set KAFKA_LIBS to the libs directory of an unpacked Apache Kafka $(KAFKA_VERSION)"; exit 1; }
	rm -rf $(JARS)
	mvn -q -B -Dstyle.color=never -f internal/kafkatest/pom.xml dependency:copy-dependencies -DoutputDirectory=$(JARS)
	@touch $@

##@ Help

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  %-26s %s\n", $$1, $$2}' Makefile
