package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/test/bench/figure"
	"coinbit/test/bench/lab"
)

// bulk is how fast deposits come in over one HTTP request, beside a raw producer
// of the same deposits.
var bulk = lab.Row{
	Name:  "bulk",
	About: "deposits through one POST /api/deposits, beside a raw producer",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		load := lab.Load{Records: l.Size(50_000, 1_000_000), Wallets: l.Size(5_000, 100_000), Skewed: true}
		const topic = "ceiling-deposit"
		rate := figure.Figure{What: "bulk deposits over HTTP", Unit: "deposits/s", Must: 0.5, Try: 0.8}
		if err := l.Reset(ctx, groups(), append(tables(), string(stream.DepositStream), string(stream.FlagWalletStream))...); err != nil {
			return err
		}
		api, err := l.Start("api", "api")
		if err != nil {
			return err
		}
		if _, err := api.Ready(ctx, time.Minute); err != nil {
			return err
		}
		err = l.Alternate(func() error {
			perSecond, err := postAll(ctx, "http://"+api.Addr+"/api/deposits", load)
			if err == errNoBulk { //nolint:errorlint // it is never wrapped
				rate.Note = "POST /api/deposits is not there yet"
				return nil
			}
			rate.Subject = append(rate.Subject, perSecond)
			return err
		}, func() error {
			if err := l.Reset(ctx, nil, topic); err != nil {
				return err
			}
			if err := l.Create(ctx, topic, false); err != nil {
				return err
			}
			c, err := l.Run(ctx, lab.Work{Do: lab.Produce, To: topic, Load: load})
			rate.Ceiling = append(rate.Ceiling, c.PerSecond())
			return err
		})
		r.Add(rate)
		if err != nil {
			return err
		}
		return l.Stop(api)
	},
}

var errNoBulk = fmt.Errorf("no bulk endpoint")

// postAll streams the load as lines of JSON in one request and returns the rate
// of the answers.
func postAll(ctx context.Context, url string, load lab.Load) (float64, error) {
	body, lines := io.Pipe()
	go func() {
		w := bufio.NewWriterSize(lines, 64<<10)
		var line []byte
		err := load.Each(func(_ string, value []byte) error {
			var d pb.Deposit
			if err := proto.Unmarshal(value, &d); err != nil {
				return err
			}
			line = fmt.Appendf(line[:0], `{"wallet_id":%q,"amount":%d.%02d}`+"\n", d.WalletId, d.Units, d.Nanos/10_000_000)
			_, err := w.Write(line)
			return err
		})
		if err == nil {
			err = w.Flush()
		}
		lines.CloseWithError(err)
	}()
	defer func() { _ = body.Close() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusNotFound {
		return 0, errNoBulk
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("POST %s: %s", url, res.Status)
	}
	n := 0
	for in := bufio.NewScanner(res.Body); in.Scan(); n++ {
		var problem struct {
			Code int `json:"code"`
		}
		if n == 0 && json.Unmarshal(in.Bytes(), &problem) == nil && problem.Code >= 300 {
			return 0, fmt.Errorf("first deposit: %s", in.Bytes())
		}
	}
	if n < load.Records {
		return 0, fmt.Errorf("%d answers to %d deposits", n, load.Records)
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
