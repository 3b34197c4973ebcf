package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"coinbit/internal/stream"
	"coinbit/test/bench/figure"
	"coinbit/test/bench/lab"
)

// whatif is how fast two rules, the one in force and another, are replayed over the
// whole deposit log.
var whatif = replayRow("whatif", "-service=whatif over the log, beside raw consume", nil, told, "-rule=5000/10m", "-json")

// statement is how fast the partition of a wallet is read for its statement, beside a
// consumer of that partition. The wallet has more deposits than any other.
var statement = replayRow("statement", "-service=statement of the busiest wallet, beside raw consume of its partition", &busiest, func(answer []byte) (records, seconds float64, err error) {
	lines := bytes.Split(bytes.TrimSpace(answer), []byte("\n"))
	var end struct{ Statement json.RawMessage }
	if err := json.Unmarshal(lines[len(lines)-1], &end); err != nil {
		return 0, 0, err
	}
	return told(end.Statement)
}, "-wallet="+lab.WalletID(0), "-json")

var busiest = stream.Partition(lab.WalletID(0), lab.Partitions)

// told is how many records a command says it read, and in what time from its first
// request to the last record.
func told(answer []byte) (records, seconds float64, err error) {
	var t struct{ Records, Seconds float64 }
	err = json.Unmarshal(answer, &t)
	if err == nil && t.Seconds == 0 {
		err = fmt.Errorf("it tells no time: %.200s", answer)
	}
	return t.Records, t.Seconds, err
}

func replayRow(service, about string, only *int32, of func([]byte) (records, seconds float64, err error), args ...string) lab.Row {
	return lab.Row{
		Name: service, About: about,
		Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
			load := lab.Load{Skewed: true, Records: l.Size(50_000, 2_000_000), Wallets: l.Size(5_000, 100_000)}
			if err := l.Fill(ctx, string(stream.DepositStream), load, groups(), append(tables(), string(stream.FlagWalletStream))...); err != nil {
				return err
			}
			rate := figure.Figure{What: service, Unit: "records/s", Must: 0.4, Note: fmt.Sprintf("%d deposits, %d wallets", load.Records, load.Wallets)}
			err := l.Alternate(func() error {
				answer, err := l.Command(ctx, service, args...)
				if err != nil {
					return err
				}
				records, seconds, err := of(answer)
				rate.Subject = append(rate.Subject, records/seconds)
				l.Say("%.0f records in %.3f s", records, seconds)
				return err
			}, func() error {
				c, err := l.Run(ctx, lab.Work{Do: lab.Consume, From: string(stream.DepositStream), Only: only})
				rate.Ceiling = append(rate.Ceiling, c.PerSecond())
				return err
			})
			r.Add(rate)
			return err
		},
	}
}
