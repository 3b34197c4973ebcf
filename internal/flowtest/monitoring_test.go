package flowtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"
)

const monitoring = "../../docs/monitoring/"

// TestMonitoringNamesWhatIsExported holds every expression of the alerts and of
// the dashboard against what the running services export.
func TestMonitoringNamesWhatIsExported(t *testing.T) {
	s := newSuite(t, startBroker(t))
	body := fmt.Sprintf(`{"wallet_id":"m.%d","amount":10001}`, time.Now().UnixNano())
	if status, text := s.do(http.MethodPost, "api", "/api/deposit", body, nil); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	s.eventually("the flagger has seen the crossing", func() error {
		if _, text := s.get("flagger", "/metrics", nil); !strings.Contains(text, `coinbit_apply_delay_seconds_count{group="flagger"}`) {
			return fmt.Errorf("%.300s", text)
		}
		return nil
	})
	// What Prometheus itself adds.
	series := []labels.Labels{
		labels.FromStrings(model.MetricNameLabel, "ALERTS", "alertname", "", "alertstate", "firing", "severity", ""),
	}
	var targets []string
	for _, target := range targetsOf(t) {
		targets = append(targets, target["service"])
		series = append(series, s.scrape(target)...)
	}
	if slices.Sort(targets); !slices.Equal(targets, slices.Sorted(slices.Values(services))) {
		t.Errorf("prometheus.yml scrapes %v, the services are %v", targets, services)
	}
	for from, expression := range expressions(t) {
		parsed, err := parser.ParseExpr(strings.ReplaceAll(expression, "$__rate_interval", "1m"))
		if err != nil {
			t.Errorf("%s: %v", from, err)
			continue
		}
		for _, fault := range unknown(parsed, series) {
			t.Errorf("%s: %s: %s", from, expression, fault)
		}
	}
	// The judge itself: a name, a label, a value and a grouping that are not there.
	for _, wrong := range []string{
		`coinbit_lag > 0`, `coinbit_lag_messages{wallet="x"} > 0`, `coinbit_lag_messages{group="balances"} > 0`,
		`sum by (table) (coinbit_lag_messages) > 0`, `rate(coinbit_messages_total{verdict=~"lost"}[5m]) > 0`,
	} {
		parsed, err := parser.ParseExpr(wrong)
		if err != nil {
			t.Fatal(err)
		}
		if len(unknown(parsed, series)) == 0 {
			t.Errorf("%s passes", wrong)
		}
	}
}

// targetsOf are the labels of each target that prometheus.yml scrapes.
func targetsOf(t *testing.T) []map[string]string {
	t.Helper()
	var conf struct {
		Jobs []struct {
			Name    string `yaml:"job_name"`
			Targets []struct {
				Targets []string          `yaml:"targets"`
				Labels  map[string]string `yaml:"labels"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, monitoring+"prometheus/prometheus.yml", &conf)
	var all []map[string]string
	for _, job := range conf.Jobs {
		for _, group := range job.Targets {
			for _, address := range group.Targets {
				target := maps.Clone(group.Labels)
				target["job"], target["instance"] = job.Name, address
				all = append(all, target)
			}
		}
	}
	return all
}

// scrape returns the series of a service as Prometheus would store them.
func (s *suite) scrape(target map[string]string) []labels.Labels {
	s.t.Helper()
	status, text := s.get(target["service"], "/metrics", nil)
	if status != http.StatusOK {
		s.t.Fatalf("%s: /metrics: %d", target["service"], status)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	one := func(name string, more map[string]string) labels.Labels {
		all := maps.Clone(target)
		maps.Copy(all, more)
		all[model.MetricNameLabel] = name
		return labels.FromMap(all)
	}
	all := []labels.Labels{one("up", nil)}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			own := map[string]string{}
			for _, l := range m.GetLabel() {
				own[l.GetName()] = l.GetValue()
			}
			if m.Histogram == nil {
				all = append(all, one(name, own))
				continue
			}
			all = append(all, one(name+"_sum", own), one(name+"_count", own))
			for _, b := range m.GetHistogram().GetBucket() {
				own["le"] = fmt.Sprint(b.GetUpperBound())
				all = append(all, one(name+"_bucket", own))
			}
		}
	}
	return all
}

// expressions are those of the alerts and the dashboard, by where they stand.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
				Expr  string `yaml:"expr"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	readYAML(t, monitoring+"prometheus/alerts.yml", &rules)
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			all["alert "+r.Alert] = r.Expr
		}
	}
	text, err := os.ReadFile(monitoring + "grafana/coinbit.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard any
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	before := len(all)
	collect("dashboard", dashboard, all)
	if before < 5 || len(all)-before < 10 {
		t.Fatalf("%d alerts and %d expressions on the dashboard: not understood", before, len(all)-before)
	}
	return all
}

// collect finds every "expr" below a node of the dashboard.
func collect(path string, node any, all map[string]string) {
	switch node := node.(type) {
	case map[string]any:
		for key, child := range node {
			if text, ok := child.(string); ok && key == "expr" {
				all[path] = text
			}
			collect(path+"."+key, child, all)
		}
	case []any:
		for i, child := range node {
			collect(fmt.Sprintf("%s[%d]", path, i), child, all)
		}
	}
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// unknown says which selectors of an expression match none of the series, and
// which labels it groups by that the series below do not have.
func unknown(e parser.Expr, series []labels.Labels) (faults []string) {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			if len(matching(node, series)) == 0 {
				faults = append(faults, fmt.Sprintf("no service exports %s", node))
			}
		case *parser.AggregateExpr:
			parser.Inspect(node.Expr, func(below parser.Node, _ []parser.Node) error {
				selector, ok := below.(*parser.VectorSelector)
				if !ok {
					return nil
				}
				for _, l := range matching(selector, series) {
					for _, name := range node.Grouping {
						if !l.Has(name) {
							faults = append(faults, fmt.Sprintf("%s has no label %s", l, name))
						}
					}
				}
				return nil
			})
		}
		return nil
	})
	return faults
}

func matching(selector *parser.VectorSelector, series []labels.Labels) (all []labels.Labels) {
	for _, l := range series {
		// A matcher for what is not there matches emptiness: no label of a typo does.
		if !slices.ContainsFunc(selector.LabelMatchers, func(m *labels.Matcher) bool { return !l.Has(m.Name) || !m.Matches(l.Get(m.Name)) }) {
			all = append(all, l)
		}
	}
	return all
}
