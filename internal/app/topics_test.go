package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"coinbit/internal/stream"
)

// The admin's step makes every topic once and shows what is there.
func TestTopics(t *testing.T) {
	b := startBrokerAt(t, t.TempDir(), "127.0.0.1:0")
	defer b.Close()
	for range 2 {
		var out bytes.Buffer
		if code := Main(context.Background(), []string{"-service=topics"}, []string{"BROKER=" + b.Addr(), "PARTITIONS=3"}, &out, io.Discard); code != exitOK {
			t.Fatalf("exit %d: %s", code, &out)
		}
		for _, topic := range stream.Topics() {
			if want := fmt.Sprintf("%s 3 1 %s\n", topic.Name, topic.Carries); !strings.Contains(strings.Join(strings.Fields(out.String()), " "), strings.TrimSpace(want)) {
				t.Errorf("no %q in\n%s", want, &out)
			}
		}
	}
}

// With -acls it prints commands, and needs no Kafka for that.
func TestTopicsACLs(t *testing.T) {
	var out bytes.Buffer
	code := Main(context.Background(), []string{"-service=topics", "-acls", "-principal=User:CN=it's %s"}, []string{"BROKER=k1:1,k2:2"}, &out, io.Discard)
	if code != exitOK {
		t.Fatalf("exit %d", code)
	}
	for _, want := range []string{
		"--bootstrap-server k1:1,k2:2 ", `--allow-principal 'User:CN=it'\''s api' --operation Write --topic deposit` + "\n",
		`balance' --operation Write --resource-pattern-type prefixed --transactional-id balance-` + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
