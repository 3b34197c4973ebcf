package stream

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Topic is one row of the map: a topic, what it is for and who may touch it.
type Topic struct {
	Name string
	// Copartitioned topics are keyed by wallet_id and must all have the same
	// number of partitions: a wallet has one partition number everywhere.
	Copartitioned bool
	// Config is set when the topic is created; an existing topic is left alone.
	Config  map[string]string
	Writers []string
	Readers []string
	Carries string
}

// Folded tells whether the topic is a table: it can be made anew from the logs.
func (t Topic) Folded() bool {
	return slices.ContainsFunc(Groups(), func(g Group) bool { return t.Name == string(g.Table()) })
}

// keepForever is the configuration of a log that is the source of truth.
func keepForever() map[string]string {
	return map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
}

// MaxDeadLetter is the size limit of dead letters, in bytes.
const MaxDeadLetter = 4 << 20

// deadLetterConfig lets a record at the size limit of its source through,
// although the headers that say why make it a little larger.
func deadLetterConfig() map[string]string {
	c := keepForever()
	c["max.message.bytes"] = strconv.Itoa(MaxDeadLetter)
	return c
}

func compacted() map[string]string { return map[string]string{"cleanup.policy": "compact"} }

// FoldAnew is how an operator has the tables made from the logs again. The logs stay.
const FoldAnew = "stop all services, delete the topics balance-table, threshold-table and flagger-table and the offsets of " +
	"the groups balance, threshold and flagger, and start again (never delete deposit or flag_wallet: they are the record)"

// Topics lists every topic of the suite.
func Topics() []Topic {
	return []Topic{
		{Name: string(DepositStream), Copartitioned: true, Config: keepForever(),
			Writers: []string{"api"}, Readers: []string{"balance", "threshold"}, Carries: "Deposit"},
		{Name: string(FlagWalletStream), Copartitioned: true, Config: keepForever(),
			Writers: []string{"threshold", "flag"}, Readers: []string{"flagger"}, Carries: "FlagEvent"},
		{Name: string(BalanceGroup.Table()), Copartitioned: true, Config: compacted(),
			Writers: []string{"balance"}, Readers: []string{"balance", "api"}, Carries: "Balance"},
		{Name: string(ThresholdGroup.Table()), Copartitioned: true, Config: compacted(),
			Writers: []string{"threshold"}, Readers: []string{"threshold", "api"}, Carries: "Counter"},
		{Name: string(FlaggerGroup.Table()), Copartitioned: true, Config: compacted(),
			Writers: []string{"flagger"}, Readers: []string{"flagger", "api", "flag"}, Carries: "Flag"},
		{Name: string(DepositDeadLetter), Config: deadLetterConfig(),
			Writers: []string{"balance"}, Carries: "what could not be applied, as it came"},
		{Name: string(FlagWalletDeadLetter), Config: deadLetterConfig(),
			Writers: []string{"flagger"}, Carries: "what could not be applied, as it came"},
	}
}

// Diagram draws the map as a Mermaid flowchart: services as boxes, topics as
// cylinders.
func Diagram() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for _, t := range Topics() {
		fmt.Fprintf(&b, "  %s[(%q)]\n", id(t.Name), t.Name)
		for _, w := range t.Writers {
			fmt.Fprintf(&b, "  %s([%s]) --> %s\n", w, w, id(t.Name))
		}
		for _, r := range t.Readers {
			if writes(t, r) { // a group reads its own table only to recover
				continue
			}
			fmt.Fprintf(&b, "  %s --> %s([%s])\n", id(t.Name), r, r)
		}
	}
	return b.String()
}

func id(name string) string { return "t_" + strings.NewReplacer("-", "_").Replace(name) }

func writes(t Topic, service string) bool {
	for _, w := range t.Writers {
		if w == service {
			return true
		}
	}
	return false
}
