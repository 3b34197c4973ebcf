package app

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"coinbit/internal/replay"
	"coinbit/internal/show"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

var teachStatement = []string{
	"Every record of the deposit log under the wallet's key, in the order of the log: what became",
	"of it, the balance after it, and the largest sum within one window that holds it. Last come",
	"those on a wrong partition, which balance set aside. Windows and crossings are by the rule in",
	"force now; the flag is what flag_wallet says. Kafka is only read.",
	"",
	"Why is this wallet flagged?",
	"    coinbit -service=statement -wallet 69da5a28 | grep crosses",
	"What did it hold at the end of January, and was it flagged?",
	"    coinbit -service=statement -wallet 69da5a28 -at 2026-01-31T23:59:59.999Z",
	"For a spreadsheet, and for a program:",
	"    coinbit -service=statement -wallet 69da5a28 -csv >statement.csv",
	"    coinbit -service=statement -wallet 69da5a28 -json | tail -1 | jq .statement.balance",
}

func statementFlags(fs *flag.FlagSet, c *Command) {
	fs.StringVar(&c.Wallet, "wallet", "", "whose deposits: a `WALLET_ID`")
	fs.StringVar(&c.At, "at", "", "leave out deposits, crossings and operator events after this `TIME`, RFC 3339")
	fs.BoolVar(&c.CSV, "csv", false, "a line for each deposit")
	fs.BoolVar(&c.JSON, "json", false, "an object a line: each deposit, then the statement's end")
}

func checkStatement(c *Command) error {
	if c.Wallet == "" {
		return errors.New("-wallet is missing: whose statement?")
	}
	return nil
}

// runStatement prints a wallet's deposits from the log. It only reads.
func runStatement(ctx context.Context, rt *Runtime, cmd Command) error {
	q := replay.Statement{Wallet: cmd.Wallet, Rule: rt.rule()}
	err := cmd.oneForm()
	if err == nil {
		var at time.Time
		at, err = timeOf("-at", cmd.At)
		q.At = lastMilli(at)
	}
	if err != nil {
		return usageError{err}
	}
	if err := wallet.ValidWalletID(cmd.Wallet); err != nil {
		return usageError{fmt.Errorf("-wallet: %w", err)}
	}
	rights := stream.RightsOf("statement")
	cluster, err := rt.client.Inspect(ctx, stream.TopicsIn(rights), rights...)
	if err != nil {
		return err
	}
	q.Partitions = cluster.Partitions
	began := time.Now()
	progress, end := rt.progress("statement", "records")
	defer end()
	// A bar and lines do not go together: the bar ends with the first line, and most
	// statements are printed as a whole.
	out := &firstWrite{w: rt.stdout, before: end}
	q.Progress = func(read, of int64) {
		if !out.begun {
			progress(read, of)
		}
	}
	buffered := bufio.NewWriterSize(out, 1<<20)
	var s show.Statement
	switch {
	case cmd.JSON:
		s = show.StatementJSON(buffered, q)
	case cmd.CSV:
		s = show.StatementCSV(buffered)
	default:
		s = show.StatementText(buffered, q)
	}
	closing, err := q.Read(ctx, rt.client.In(cluster), s.Entry)
	if err == nil {
		err = s.Close(closing, time.Since(began))
	}
	if err := errors.Join(err, buffered.Flush()); err != nil {
		return fmt.Errorf("statement: %w", err)
	}
	return nil
}

// firstWrite calls before once, ahead of what is written first. It is for one goroutine.
type firstWrite struct {
	w      io.Writer
	before func()
	begun  bool
}

func (f *firstWrite) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.before()
	}
	return f.w.Write(p)
}
