package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

func someCluster() kafka.Cluster {
	return kafka.Cluster{ID: "c", Partitions: 8, TopicIDs: map[string]string{
		"deposit": "D", "flag_wallet": "F", "balance-table": "B", "threshold-table": "T", "flagger-table": "L"}}
}

func TestInput(t *testing.T) {
	c := someCluster()
	flagger := inputOf(stream.FlaggerGroup, c)
	if got := inputOf(stream.BalanceGroup, c).String(); got != "format=2 partitions=8 deposit=D" {
		t.Errorf("got %q", got)
	}
	if got := flagger.String(); got != "format=2 partitions=8 flag_wallet=F deposit=D" {
		t.Errorf("got %q", got)
	}
	for was, want := range map[string]string{
		"format=2 partitions=8 flag_wallet=F deposit=D": "",
		"F": "another build",
		"":  "another build",
		"format=1 partitions=8 flag_wallet=F deposit=D":  "another build",
		"format=2 partitions=4 flag_wallet=F deposit=D":  "from 4 partitions, and 8 are in use",
		"format=2 partitions=8 flag_wallet=F deposit=D2": "earlier topic deposit: restore that one",
		"format=2 partitions=8 flag_wallet=F2 deposit=D": "earlier topic flag_wallet: restore that one",
	} {
		err := flagger.differs("flagger-table", was)
		if want == "" {
			must(t, err)
			continue
		}
		if !errors.Is(err, kafka.ErrLayout) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "flagger-table") {
			t.Errorf("%q: got %v", was, err)
			continue
		}
		for _, word := range []string{"delete the topics balance-table, threshold-table and flagger-table",
			"groups balance, threshold and flagger", "never delete deposit or flag_wallet"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
	}
}

// An API finds out whichever it learns first: what the tables are folded from, or where
// its deposits go.
func TestLedger(t *testing.T) {
	c := someCluster()
	good, bad := folded{"B", "format=2 partitions=8 deposit=D"}, folded{"B", "format=2 partitions=8 deposit=D0"}
	var l ledger
	must(t, l.read(stream.BalanceGroup, bad)) // nothing is known yet
	if err := l.write(c); !errors.Is(err, kafka.ErrLayout) {
		t.Errorf("got %v", err)
	}
	must(t, l.read(stream.BalanceGroup, good))
	must(t, l.write(c))
	if err := l.read(stream.BalanceGroup, bad); !errors.Is(err, kafka.ErrLayout) {
		t.Errorf("got %v", err)
	}
	bad.table = "B0" // a table of before
	must(t, l.read(stream.BalanceGroup, bad))
	delete(c.TopicIDs, "flag_wallet") // an API need not know it
	must(t, l.write(c))
	must(t, l.read(stream.FlaggerGroup, folded{"L", "format=2 partitions=8 flag_wallet=F deposit=D"}))
}

// While a view follows the table of another log than deposits go to, its rows say nothing
// of their positions.
func TestLedgerApart(t *testing.T) {
	var l ledger
	l.follow(stream.BalanceGroup, "B0")
	if l.apart.Load() {
		t.Error("apart before anything is written")
	}
	for _, step := range []struct {
		do   func()
		want bool
	}{
		{func() { must(t, l.write(someCluster())) }, true}, // the writer is first
		{func() { l.follow(stream.BalanceGroup, "B") }, false},
		{func() { l.follow(stream.FlaggerGroup, "L0") }, true},
		{func() { l.follow(stream.FlaggerGroup, "L") }, false},
	} {
		if step.do(); l.apart.Load() != step.want {
			t.Errorf("apart: %t", !step.want)
		}
	}
}

// runUntil runs a service until it ends by itself and returns why.
func runUntil(t *testing.T, service string, env ...string) error {
	t.Helper()
	rt, log := runtimeOf(t, Options{}, env...)
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	err := rt.Run(ctx, Command{Service: service})
	if ctx.Err() != nil {
		t.Fatalf("%s does not end\n%s", service, log)
	}
	return err
}

// deposit made anew under the tables: the flagger refuses like the others, and so does
// an API.
func TestDepositMadeAnew(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	env := []string{"BROKER=" + w.addr, "STATE_DIR=" + dir, "PARTITIONS=2", "PORT=0"}
	stop := groupUntilReady(t, stream.FlaggerGroup, env...)
	must(t, stop())
	w.remake(t, string(stream.DepositStream))
	for _, service := range []string{"flagger", "api"} {
		err := runUntil(t, service, env...)
		if !errors.Is(err, kafka.ErrLayout) || !strings.Contains(err.Error(), "flagger-table was folded from an earlier topic deposit") ||
			!strings.Contains(err.Error(), "groups balance, threshold and flagger") {
			t.Errorf("%s: got %v", service, err)
		}
	}
}

// Topics that were there before, with the defaults of a broker: the admin's step names
// each setting with the command that mends it, and a service does not start.
func TestTopicsThatLose(t *testing.T) {
	b := startBrokerAt(t, t.TempDir(), "127.0.0.1:0")
	defer b.Close()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin([]string{b.Addr()}, cfg)
	must(t, err)
	defer func() { must(t, admin.Close()) }()
	week, small, del := "604800000", "8192", "delete"
	must(t, admin.CreateTopic("deposit", &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"cleanup.policy": &del, "retention.ms": &week, "max.message.bytes": &small}}, false))
	env := []string{"BROKER=" + b.Addr(), "PARTITIONS=2", "STATE_DIR=" + t.TempDir(), "PORT=0"}
	var out, errs bytes.Buffer
	if code := Main(context.Background(), []string{"-service=topics"}, env, &out, &errs); code != exitFailed {
		t.Errorf("exit %d", code)
	}
	for setting, want := range map[string]string{"retention.ms": "-1", "max.message.bytes": "1048576"} {
		command := fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name deposit --add-config %s=%s\n", b.Addr(), setting, want)
		if !strings.Contains(out.String(), command) {
			t.Errorf("no %q in\n%s", command, &out)
		}
	}
	if !strings.Contains(errs.String(), "2 settings of topics lose money") {
		t.Errorf("%s", &errs)
	}
	for _, service := range []string{"balance", "threshold", "api"} {
		if err := runUntil(t, service, env...); !errors.Is(err, kafka.ErrLosing) || !strings.Contains(err.Error(), "retention.ms is 604800000") {
			t.Errorf("%s: got %v", service, err)
		}
	}
	forever := "-1"
	must(t, admin.AlterConfig(sarama.TopicResource, "deposit", map[string]*string{"cleanup.policy": &del, "retention.ms": &forever}, false))
	if code := Main(context.Background(), []string{"-service=topics"}, env, io.Discard, &errs); code != exitOK {
		t.Errorf("exit %d: %s", code, &errs)
	}
}
