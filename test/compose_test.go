// Package test holds the scenarios of the whole suite: real processes on a real
// Kafka (build tag kafka), and checks of the files the suite is delivered with.
package test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"coinbit/internal/kafkatest"
)

func readRepo(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// settingNames are the settings config.env lists; it is generated from the
// table the program reads.
func settingNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#?([A-Z][A-Z0-9_]*)=`).FindAllStringSubmatch(readRepo(t, "config.env"), -1) {
		names[m[1]] = true
	}
	if !names["BROKER"] {
		t.Fatal("config.env names no BROKER: not understood")
	}
	return names
}

// environments reads the names under every environment block of the compose
// file, by the service (or x- extension) they stand in. It knows just the block
// style that file is written in.
func environments(t *testing.T) map[string][]string {
	t.Helper()
	envs := map[string][]string{}
	section, inside := "", -1 // inside: the indentation of the environment key
	entry := regexp.MustCompile(`^ *([A-Za-z_][A-Za-z0-9_]*|<<): \S`)
	for line := range strings.Lines(readRepo(t, "docker-compose.yml")) {
		line = strings.TrimRight(line, "\n")
		text := strings.TrimLeft(line, " ")
		if text == "" || text[0] == '#' {
			continue
		}
		indent := len(line) - len(text)
		if indent <= inside {
			inside = -1
		}
		if inside >= 0 {
			m := entry.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("environment of %s: %q is not NAME: value", section, line)
			}
			if m[1] != "<<" {
				envs[section] = append(envs[section], m[1])
			}
			continue
		}
		key, _, _ := strings.Cut(text, ":")
		if indent == 0 || indent == 2 {
			section = key
		}
		if key == "environment" || key == "x-environment" {
			inside = indent
		}
	}
	return envs
}

func TestComposeNamesOnlySettings(t *testing.T) {
	known := settingNames(t)
	envs := environments(t)
	for _, section := range []string{"x-environment", "balance", "threshold", "flagger", "api"} {
		if len(envs[section]) == 0 {
			t.Errorf("%s has no environment", section)
		}
		for _, name := range envs[section] {
			if !known[name] {
				t.Errorf("%s sets %s, which is no setting", section, name)
			}
		}
	}
}

func TestComposePublishesOnThisMachineOnly(t *testing.T) {
	ports := regexp.MustCompile(`(?m)^ *ports:\n((?: +- .*\n)+)`).FindAllStringSubmatch(readRepo(t, "docker-compose.yml"), -1)
	if len(ports) != 4 {
		t.Fatalf("%d ports blocks, want those of kafka, api, prometheus and grafana", len(ports))
	}
	for _, p := range ports {
		for line := range strings.Lines(p[1]) {
			if !strings.HasPrefix(strings.TrimSpace(line), `- "127.0.0.1:`) {
				t.Errorf("published beyond this machine: %s", strings.TrimSpace(line))
			}
		}
	}
}

// No container may take all memory or all processes of the machine, or more rights than it
// was given.
func TestComposeBoundsContainers(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Memory string   `yaml:"mem_limit"`
			PIDs   int      `yaml:"pids_limit"`
			Drop   []string `yaml:"cap_drop"`
			Opt    []string `yaml:"security_opt"`
		}
	}
	must(t, yaml.Unmarshal([]byte(readRepo(t, "docker-compose.yml")), &file))
	if len(file.Services) != 7 {
		t.Fatalf("%d services", len(file.Services))
	}
	for name, s := range file.Services {
		if !regexp.MustCompile(`^[1-4]g$`).MatchString(s.Memory) || s.PIDs < 1 || s.PIDs > 1024 ||
			!slices.Contains(s.Drop, "ALL") || !slices.Contains(s.Opt, "no-new-privileges:true") {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// What is installed for tests and documents is what was looked at, and runs nothing while
// it is installed.
func TestInstallsArePinned(t *testing.T) {
	npm, pip := regexp.MustCompile(`npm (?:ci|install|pack)[^\n]*`), regexp.MustCompile(`pip(?:"[, ]+"|\s+)install[^\n]*`)
	found := 0
	for _, file := range []string{"Makefile", "internal/web/vendor.sh", "test/integrate_test.go", "docs/integrate.md", ".ci/run"} {
		for _, line := range npm.FindAllString(readRepo(t, file), -1) {
			if found++; !strings.Contains(line, "--ignore-scripts") && !strings.HasPrefix(line, "npm install -g") {
				t.Errorf("%s runs scripts: %s", file, line)
			}
		}
		for _, line := range pip.FindAllString(readRepo(t, file), -1) {
			if found++; !strings.Contains(line, "--require-hashes") {
				t.Errorf("%s takes what it is given: %s", file, line)
			}
		}
	}
	if found != 5 {
		t.Errorf("%d installs were found", found)
	}
	if !strings.Contains(readRepo(t, "test/browser/.npmrc"), "ignore-scripts=true\n") {
		t.Error("test/browser/.npmrc lets scripts run")
	}
	// Each pin stands for all of its files.
	for _, file := range []string{"test/openapi/requirements.txt", "docs/integrate/python/requirements.txt"} {
		text := readRepo(t, file)
		for _, pin := range regexp.MustCompile(`(?m)^[^ #\n].*\n(?: .*\n)*`).FindAllString(text, -1) {
			if !regexp.MustCompile(`^[a-z0-9-]+==[^ ]+ \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+$`).MatchString(pin) {
				t.Errorf("%s: %s", file, pin)
			}
		}
	}
}

// TestOneKafkaVersion compares the places that name Kafka's version.
func TestOneKafkaVersion(t *testing.T) {
	for file, want := range map[string]string{
		"Makefile":                   `(?m)^KAFKA_VERSION +:= ` + kafkatest.Version + `$`,
		"docker-compose.yml":         `image: apache/kafka:` + kafkatest.Version + `\n`,
		"internal/kafkatest/pom.xml": `<artifactId>kafka_2.13</artifactId>\s*<version>` + kafkatest.Version + `</version>`,
	} {
		if !regexp.MustCompile(want).MatchString(readRepo(t, file)) {
			t.Errorf("%s does not name Kafka %s", file, kafkatest.Version)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
