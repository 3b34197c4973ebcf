package app

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"coinbit/internal/config"
	"coinbit/internal/kafka"
	"coinbit/internal/loadgen"
	"coinbit/internal/out"
	"coinbit/internal/replay"
	"coinbit/internal/show"
	"coinbit/internal/verify"
	"coinbit/internal/wallet"
)

// notPrintable says that a terminal would obey, or could not show, part of s.
func notPrintable(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) })
}

// outputs are all that the commands print, with data of others wherever there is some.
// Those for people have a line for each thing, those in JSON a value.
func outputs() map[string]func(o *out.Writer, data string) error {
	rule := wallet.Rule{Threshold: wallet.Amount{Units: 1}, PeriodMs: 1}
	statement := func(of func(w io.Writer) show.Statement) func(o *out.Writer, data string) error {
		return func(o *out.Writer, data string) error {
			s := of(o)
			return errors.Join(s.Entry(replay.Entry{SetAside: data + "!"}), s.Close(replay.Closing{}, 0))
		}
	}
	q := replay.Statement{Wallet: "w", Rule: rule}
	answer := func(print func(w io.Writer, a replay.Answer) error) func(o *out.Writer, data string) error {
		return func(o *out.Writer, data string) error {
			f := []replay.Flag{{Wallet: data, Evidence: wallet.Evidence{Rule: rule}}}
			return print(o, replay.Answer{Rules: []replay.Verdicts{{Rule: rule}, {Rule: rule, Flags: f, New: f, Gone: f}}})
		}
	}
	letter := func(print func(w io.Writer, l replay.Letter) error) func(o *out.Writer, data string) error {
		return func(o *out.Writer, data string) error {
			b := []byte(data)
			return print(o, replay.Letter{Topic: "t", SourceTopic: data, SourcePosition: data, Reason: data, Key: b, Value: b, Undecoded: len(b),
				Fields:    []replay.Field{{Name: "wallet_id", Text: data}},
				Headers:   []replay.Header{{Key: b, Value: b}},
				Described: &kafka.Description{KeySize: data, KeyHash: data, ValueSize: data, ValueHash: data, HeadersSize: data}})
		}
	}
	difference := func(data string) verify.Difference {
		return verify.Difference{Where: "balance-table", Wallet: data + "!", Field: "key", Got: data, Want: data}
	}
	note := func(data string) verify.Note {
		return verify.Note{Kind: verify.Late, Wallet: data, Offsets: []int64{1}}
	}
	report := func(data string) verify.Report {
		return verify.Report{Doubts: []verify.Doubt{{Rule: data, Rows: 1, FirstRow: data, Crossings: 1, FirstCrossing: data}}}
	}
	load := func(data string) loadgen.Report { return loadgen.Report{Failed: map[string]int64{data: 1}} }
	logged := func(format string) func(o *out.Writer, data string) error {
		return func(o *out.Writer, data string) error {
			logger(config.Config{LogFormat: format}, o).With("a", data).WithGroup("g").Error(data, "b", data, "err", errors.New(data))
			return o.Err()
		}
	}
	encoded := func(o *out.Writer, values ...any) (err error) {
		for _, v := range values {
			err = errors.Join(err, json.NewEncoder(o).Encode(v))
		}
		return err
	}
	return map[string]func(o *out.Writer, data string) error{
		"statement": statement(func(w io.Writer) show.Statement { return show.StatementText(w, q) }),
		"statement of data": func(o *out.Writer, data string) error {
			return show.StatementText(o, replay.Statement{Wallet: data, Rule: rule}).Close(replay.Closing{}, 0)
		},
		"statement.csv":   statement(show.StatementCSV),
		"statement.json":  statement(func(w io.Writer) show.Statement { return show.StatementJSON(w, q) }),
		"whatif":          answer(func(w io.Writer, a replay.Answer) error { return show.WhatIfText(w, a, 0) }),
		"whatif.csv":      answer(show.WhatIfCSV),
		"whatif.json":     answer(func(w io.Writer, a replay.Answer) error { return show.WhatIfJSON(w, a, 0) }),
		"deadletter":      letter(show.LetterText),
		"deadletter.json": letter(show.LetterJSON),
		"verify": func(o *out.Writer, data string) error {
			printFound(o, difference(data))
			printNoted(o, note(data))
			printReport(o, report(data), rule, time.Second)
			return o.Err()
		},
		"verify.json": func(o *out.Writer, data string) error { return encoded(o, difference(data), note(data), report(data)) },
		"topics": func(o *out.Writer, data string) error {
			return printTopics(o, kafka.Cluster{Unchecked: []string{data},
				Faults: []kafka.Fault{{Topic: data, Setting: data, Got: data, Want: data, Why: data}}}, []string{data})
		},
		"flag": func(o *out.Writer, data string) error {
			printFlag(o, data, wallet.Flag{}, 1, 2)
			return o.Err()
		},
		"loadgen":      func(o *out.Writer, data string) error { return load(data).Print(o) },
		"loadgen.json": func(o *out.Writer, data string) error { return encoded(o, load(data)) },
		"log":          logged("text"),
		"log.json":     logged("json"),
		"error": func(o *out.Writer, data string) error {
			complain(o, usageError{errors.New(data)})
			return o.Err()
		},
	}
}

// Whatever others wrote: no command prints what a terminal would obey, or a line that the
// command did not begin; and JSON keeps the value.
func FuzzOutput(f *testing.F) {
	for _, s := range []string{"alice", "", "a\nb", "a\r\tb", "\x1b]0;title\a\x1b[2J", "\u009b31m", "\u202egnp.exe", "\u200f\u2066", "\x9b\xff", `"\`, "\U000e0041", "a,b", "<&>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		for name, print := range outputs() {
			var plain, got bytes.Buffer
			for b, text := range map[*bytes.Buffer]string{&plain: "plain", &got: data} {
				o := out.New(b)
				if err := errors.Join(print(o, text), o.Close()); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if notPrintable(got.String()) {
				t.Fatalf("%s: %q", name, &got)
			}
			if n, want := strings.Count(got.String(), "\n"), strings.Count(plain.String(), "\n"); n != want {
				t.Fatalf("%s: %d lines, want %d:\n%s", name, n, want, &got)
			}
			switch {
			case strings.HasSuffix(name, ".json"):
				holds := !utf8.ValidString(data)
				for d := json.NewDecoder(&got); d.More(); {
					var v any
					if err := d.Decode(&v); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					holds = holds || contains(v, data)
				}
				if !holds {
					t.Fatalf("%s: the value %q is lost", name, data)
				}
			case strings.HasSuffix(name, ".csv"):
				if _, err := csv.NewReader(&got).ReadAll(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
	})
}

// contains finds data in what was decoded, as a name or in a text.
func contains(v any, data string) bool {
	switch v := v.(type) {
	case string:
		return strings.HasPrefix(v, data)
	case []any:
		for _, e := range v {
			if contains(e, data) {
				return true
			}
		}
	case map[string]any:
		for name, e := range v {
			if name == data || contains(e, data) {
				return true
			}
		}
	}
	return false
}

// Standard output, standard error and the log of the whole program go through the writer.
func TestMainPrintsThroughTheWriter(t *testing.T) {
	const evil = "\x1b[2J\u009b\u202e\x9b"
	ready := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, evil) }))
	defer ready.Close()
	for _, c := range []struct {
		args, environ []string
		says          string
	}{
		{[]string{"-service=health"}, []string{"PORT=" + ready.Listener.Addr().String()}, `\u001b[2J\u009b\u202e\x9b`},
		{[]string{"-service=" + evil}, nil, `\x1b[2J`},
		{[]string{"-" + evil}, nil, `\x1b[2J`},
		{[]string{"-service=statement", "-wallet", evil}, nil, "-wallet: "},
		{[]string{"-service=topics", "-acls", "-principal", "User:%s" + evil}, nil, "-principal: got"},
		{[]string{"-service=health"}, []string{"PORT=127.0.0.1:1", "LOG_FORMAT=json", "ROLLING_PERIODE" + evil + "=1"}, "stopped with an error"},
	} {
		var stdout, stderr syncBuffer
		Main(t.Context(), c.args, c.environ, &stdout, &stderr)
		said := stdout.String() + stderr.String()
		if notPrintable(said) || !strings.Contains(said, c.says) {
			t.Errorf("%q says\n%q", c.args, said)
		}
	}
}
