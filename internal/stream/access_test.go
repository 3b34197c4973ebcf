package stream_test

import (
	"slices"
	"strings"
	"testing"

	"coinbit/internal/stream"
)

// The rights follow the map: who writes a topic may, and nobody else.
func TestRights(t *testing.T) {
	seen := make(map[stream.Right]bool)
	for _, r := range stream.Rights() {
		if seen[r] {
			t.Errorf("%s has %s twice", r.Service, r)
		}
		seen[r] = true
	}
	for _, topic := range stream.Topics() {
		for _, s := range []string{"api", "balance", "threshold", "flagger", "flag"} {
			for op, who := range map[string][]string{stream.Write: topic.Writers, stream.Read: topic.Readers} {
				r := stream.Right{Service: s, Operation: op, Resource: stream.TopicResource, Name: topic.Name}
				if seen[r] != slices.Contains(who, s) {
					t.Errorf("%s has %s: %v", s, r, seen[r])
				}
			}
		}
	}
	for r := range seen {
		if r.Operation == stream.Write && slices.Contains([]string{"verify", "whatif", "statement", "deadletter", "topics"}, r.Service) {
			t.Errorf("%s only looks, yet has %s", r.Service, r)
		}
		if r.Operation == stream.Create && r.Service != "topics" {
			t.Errorf("%s may make topics", r.Service)
		}
	}
	if got := stream.RightsOf("api", "deposit", "balance-table"); len(got) != 2 || got[0].String() != "Read on topic balance-table" || got[1].String() != "Write on topic deposit" {
		t.Errorf("%v", got)
	}
	if got := stream.TopicsIn(stream.RightsOf("balance")); len(got) != 3 {
		t.Errorf("balance touches %v", got)
	}
	if id, r := stream.BalanceGroup.TransactionalID(3), stream.BalanceGroup.FenceRight(); id != "balance-3" || !strings.HasPrefix(id, r.Name) {
		t.Errorf("%s is not under %s", id, r)
	}
}

// One row a resource, one column a service, and every right in one of them.
func TestAccessMatrix(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(stream.AccessMatrix()), "\n")
	cells := 0
	for _, l := range lines[2:] {
		if strings.Count(l, "|") != strings.Count(lines[0], "|") {
			t.Errorf("columns of %s", l)
		}
		for _, op := range []string{"Read", "Write", "Create", "Describe"} {
			cells += strings.Count(l, op)
		}
	}
	if cells != len(stream.Rights()) {
		t.Errorf("%d rights in the matrix, want %d", cells, len(stream.Rights()))
	}
	for _, r := range stream.Rights() {
		if !strings.Contains(stream.AccessCommands("b:1", "User:%s"), "--"+r.Resource+" "+r.Name) {
			t.Errorf("no command for %s", r)
		}
	}
}
