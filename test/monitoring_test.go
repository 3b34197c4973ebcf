package test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

type alertRules struct {
	Groups []struct {
		Rules []struct {
			Alert       string
			Annotations map[string]string
		}
	}
}

type alertTests struct {
	Tests []struct {
		Alerts []struct {
			Name  string `yaml:"alertname"`
			Fires []any  `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	}
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(readRepo(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestEveryAlertIsExplainedAndTested: a paragraph that its annotation leads to, a
// test that it fires and one that it stays silent (promtool runs them). No
// paragraph without an alert.
func TestEveryAlertIsExplainedAndTested(t *testing.T) {
	var rules alertRules
	readYAML(t, "docs/monitoring/prometheus/alerts.yml", &rules)
	var tests alertTests
	readYAML(t, "docs/monitoring/prometheus/alerts_test.yml", &tests)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, group := range tests.Tests {
		for _, a := range group.Alerts {
			if len(a.Fires) > 0 {
				fires[a.Name] = true
			} else {
				silent[a.Name] = true
			}
		}
	}
	page := "docs/operations.md"
	paragraphs := map[string]string{} // by heading
	for _, section := range strings.Split(readRepo(t, page), "\n### ")[1:] {
		heading, text, _ := strings.Cut(section, "\n")
		paragraphs[heading] = text
	}
	var names []string
	for _, group := range rules.Groups {
		for _, r := range group.Rules {
			names = append(names, r.Alert)
			for _, part := range []string{"**Means**", "**Look at**", "**Do**"} {
				if !strings.Contains(paragraphs[r.Alert], part) {
					t.Errorf("%s: %s does not say %s", r.Alert, page, part)
				}
			}
			if want := page + "#" + strings.ToLower(r.Alert); r.Annotations["runbook"] != want {
				t.Errorf("%s: runbook is %q, want %q", r.Alert, r.Annotations["runbook"], want)
			}
			if !fires[r.Alert] || !silent[r.Alert] {
				t.Errorf("%s: seen to fire %v, seen silent %v", r.Alert, fires[r.Alert], silent[r.Alert])
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("no alerts: not understood")
	}
	for heading := range paragraphs {
		if !slices.Contains(names, heading) {
			t.Errorf("%s explains %s, which is no alert", page, heading)
		}
	}
}

// compose is what the tests ask of docker-compose.yml as a whole.
type compose struct {
	Services map[string]struct {
		Image    string
		Profiles []string
		Volumes  []string
	}
}

// TestComposeMonitoring: images are pinned, and what is mounted is there.
func TestComposeMonitoring(t *testing.T) {
	var c compose
	readYAML(t, "docker-compose.yml", &c)
	for name, s := range c.Services {
		image, tag, _ := strings.Cut(s.Image, ":")
		if image != "coinbit" && strings.Count(tag, ".") != 2 {
			t.Errorf("%s: the image %q is not pinned", name, s.Image)
		}
		monitoring := name == "prometheus" || name == "grafana"
		if optional := slices.Equal(s.Profiles, []string{"monitoring"}); optional != monitoring {
			t.Errorf("%s has the profiles %v", name, s.Profiles)
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(source, ".") {
				continue // a named volume
			}
			if _, err := os.Stat("../" + source); err != nil || !strings.HasSuffix(v, ":ro") {
				t.Errorf("%s mounts %s: must be there, and mounted read-only: %v", name, v, err)
			}
		}
	}
	if len(c.Services) != 7 {
		t.Errorf("%d services, want seven", len(c.Services))
	}
}
