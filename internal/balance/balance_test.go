package balance

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lovoo/goka"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/stream/streamtest"
	"coinbit/internal/wallet"
)

// deposit is the value of a record.
func deposit(units int64) []byte {
	return streamtest.Value(&pb.Deposit{WalletId: "w", Units: units, AcceptedAtMs: 1_700_000_000_000, Origin: 7, Sequence: 1})
}

func row(a wallet.Account) any { return &stream.Kept[wallet.Account]{Row: a} }

// set is the one row that was set.
func set(t *testing.T, m *streamtest.Message) *wallet.Account {
	t.Helper()
	if len(m.Set) != 1 {
		t.Fatalf("%d rows were set", len(m.Set))
	}
	return &m.Set[0].(*stream.Kept[wallet.Account]).Row
}

func TestGraph(t *testing.T) {
	g := Graph((&streamtest.Book{}).Env())
	if g.Group() != "balance" || g.GroupTable().Topic() != "balance-table" ||
		len(g.InputStreams()) != 1 || g.InputStreams()[0].Topic() != "deposit" || len(g.OutputStreams()) != 0 {
		t.Fatalf("%s", g.Group())
	}
}

func TestDepositIsFolded(t *testing.T) {
	var b streamtest.Book
	m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: 4}
	if err := m.Run(processor{b.Env()}.deposit, deposit(5)); err != nil {
		t.Fatal(err)
	}
	a := set(t, m)
	if a.NextOffset != 5 || a.Balance.Units != 5 || a.Deposits != 1 || len(a.Origins) != 1 {
		t.Fatalf("%v", a)
	}
	if len(b.Counted) != 1 || b.Counted[0] != wallet.Applied || len(b.Aside) != 0 {
		t.Fatalf("%+v", b)
	}
}

// A redelivery sets the very row again: its changelog write may be what was lost.
func TestRedeliverySetsTheRowAgain(t *testing.T) {
	held := wallet.Account{NextOffset: 9, Balance: wallet.Amount{Units: 70, Nanos: 5}, Deposits: 2, Origins: []wallet.Origin{{ID: 6, Sequence: 1}, {ID: 7, Sequence: 1}}}
	for offset := int64(0); offset < 9; offset += 4 {
		var b streamtest.Book
		m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: offset, Row: row(held)}
		if err := m.Run(processor{b.Env()}.deposit, deposit(5)); err != nil {
			t.Fatal(err)
		}
		if got := set(t, m); !reflect.DeepEqual(*got, held) {
			t.Fatalf("offset %d: the row became %v", offset, got)
		}
		if b.Counted[0] != wallet.Redelivered {
			t.Fatalf("counted as %s", b.Counted[0])
		}
	}
}

// What stands twice in the log counts once, and the row moves on over it.
func TestRepeatCountsOnce(t *testing.T) {
	held := wallet.Account{NextOffset: 9, Balance: wallet.Amount{Units: 70}, Deposits: 1, Origins: []wallet.Origin{{ID: 7, Sequence: 1}}}
	var b streamtest.Book
	m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: 9, Row: row(held)}
	if err := m.Run(processor{b.Env()}.deposit, deposit(5)); err != nil {
		t.Fatal(err)
	}
	if a := set(t, m); a.NextOffset != 10 || a.Balance.Units != 70 || b.Counted[0] != wallet.Repeated {
		t.Fatalf("%v, counted %v", a, b.Counted)
	}
}

func TestSetAside(t *testing.T) {
	for _, c := range []struct {
		key    string
		value  any
		reason string
	}{
		{"w", nil, "no value"},
		{"w", []byte{0xff}, "malformed: not a Deposit message"},
		{"", deposit(5), "no key"},
		{"x", deposit(5), "differ"},
		{"w", deposit(0), "impossible amount"},
		{"w", deposit(-5), "impossible amount"},
		{"w", streamtest.Value(&pb.Deposit{WalletId: "w", Units: 5}), "impossible time"},
	} {
		var b streamtest.Book
		// A row that cannot be read does not matter: the message is judged first.
		m := &streamtest.Message{From: stream.DepositStream, ID: c.key, Row: &stream.Malformed{}}
		if err := m.Run(processor{b.Env()}.deposit, c.value); err != nil {
			t.Fatal(err)
		}
		if len(b.Aside) != 1 || !strings.Contains(b.Aside[0], c.reason) || len(m.Set)+len(b.Counted) != 0 {
			t.Errorf("%q: set aside for %v, want %q; rows %v, counted %v", c.key, b.Aside, c.reason, m.Set, b.Counted)
		}
	}
}

func full() wallet.Account {
	return wallet.Account{NextOffset: 3, Balance: wallet.Amount{Units: math.MaxInt64}, Deposits: 1}
}

// The row that says "applied" comes after the dead letter is stored: afterwards
// a redelivery could not tell that one was due.
func TestOverflowWaitsForItsDeadLetter(t *testing.T) {
	var b streamtest.Book
	env := b.Env()
	promise, finish := goka.NewPromiseWithFinisher()
	asked := make(chan string, 1)
	env.SetAside = func(_ goka.Context, reason error) *goka.Promise {
		asked <- reason.Error()
		return promise
	}
	m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: 3, Row: row(full())}
	done := make(chan error, 1)
	go func() { done <- m.Run(processor{env}.deposit, deposit(5)) }()
	select {
	case reason := <-asked:
		if !strings.Contains(reason, "overflow") {
			t.Fatal(reason)
		}
	case err := <-done:
		t.Fatalf("it set nothing aside: %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(20 * time.Millisecond): // only ever too short to see a mistake
	}
	finish(nil, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if a := set(t, m); a.NextOffset != 4 || a.Balance.Units != math.MaxInt64 || b.Counted[0] != wallet.Overflow {
		t.Fatalf("%v, %+v", a, b)
	}
}

var errBroker = errors.New("the broker refused it")

func TestOverflowWithoutADeadLetterFails(t *testing.T) {
	b := streamtest.Book{Stored: errBroker}
	m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: 3, Row: row(full())}
	panicked := m.Run(processor{b.Env()}.deposit, deposit(5))
	if panicked == nil || !errors.Is(m.Failed, errBroker) || len(m.Set) != 0 {
		t.Fatalf("panicked %v, failed %v, set %v", panicked, m.Failed, m.Set)
	}
}

// The session ends while the dead letter is under way. The message must not be
// marked when that is stored in the end: its row was not set.
func TestOverflowAtTheEndOfASession(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	b := streamtest.Book{Pending: true}
	env := b.Env()
	setAside := env.SetAside
	env.SetAside = func(c goka.Context, reason error) *goka.Promise {
		defer cancel()
		return setAside(c, reason)
	}
	m := &streamtest.Message{Ctx: ctx, From: stream.DepositStream, ID: "w", Position: 3, Row: row(full())}
	done := make(chan error, 1)
	go func() { done <- m.Run(processor{env}.deposit, deposit(5)) }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the callback hangs")
	}
	if len(b.Aside) != 1 {
		t.Fatalf("set aside for %v", b.Aside)
	}
	if len(m.Set) != 0 || len(m.Deferred) != 1 || !errors.Is(m.Deferred[0], stream.ErrSessionOver) {
		t.Fatalf("set %v, deferred %v: the message would be marked", m.Set, m.Deferred)
	}
}

func TestFailures(t *testing.T) {
	t.Run("a row that is no row", func(t *testing.T) {
		for _, bad := range []any{&stream.Malformed{Reason: "x"}, &pb.Flag{}, "text",
			&pb.Balance{Account: &pb.Account{RecentKeys: &pb.Keys{Units: []uint64{1}}}}} {
			var b streamtest.Book
			m := &streamtest.Message{From: stream.DepositStream, ID: "w", Row: bad}
			streamtest.WantFailure(t, m, &b, m.Run(processor{b.Env()}.deposit, deposit(5)), stream.ErrRow)
		}
	})
	t.Run("a row from the future", func(t *testing.T) {
		b := streamtest.Book{High: 5}
		m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: 4, Row: row(wallet.Account{NextOffset: 6})}
		err := m.Run(processor{b.Env()}.deposit, deposit(5))
		streamtest.WantFailure(t, m, &b, err, nil)
		if !strings.Contains(err.Error(), "re-created") || !strings.Contains(err.Error(), "deposit 0:4") {
			t.Fatal(err)
		}
	})
	t.Run("the session is over", func(t *testing.T) {
		var b streamtest.Book
		m := &streamtest.Message{Ctx: streamtest.Over(), From: stream.DepositStream, ID: "w"} // Goka then has no row for anybody
		if err := m.Run(processor{b.Env()}.deposit, deposit(5)); err != nil {
			t.Fatal(err)
		}
		if len(m.Set) != 0 || len(m.Deferred) != 1 || !errors.Is(m.Deferred[0], stream.ErrSessionOver) {
			t.Fatalf("set %v, deferred %v", m.Set, m.Deferred)
		}
	})
}

// A deposit of a build before the first release is neither folded nor set aside: the
// service ends with one line that says what to do.
func TestEarlierBuildIsRefused(t *testing.T) {
	var b streamtest.Book
	m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: 9}
	old := streamtest.Value(&pb.Deposit{WalletId: "w", Units: 5, AcceptedAtMs: 1_700_000_000_000})
	err := m.Run(processor{b.Env()}.deposit, append(old, 0x29, 1, 0, 0, 0, 0, 0, 0, 0))
	if err == nil || len(m.Set)+len(b.Aside)+len(b.Counted) != 0 || len(b.Refused) != 1 || !strings.Contains(b.Refused[0], "deposit 0:9: this deposit was written by a build before the first release") {
		t.Fatalf("%v, rows %v, refused %q", err, m.Set, b.Refused)
	}
}
