package out_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"coinbit/internal/out"
)

func TestText(t *testing.T) {
	for data, want := range map[string]string{
		"alice": "alice", "ünïcode …": "ünïcode …", "": "", `a "b" \`: `a "b" \`,
		"a\nb": `"a\nb"`, "a\tb": `"a\tb"`, "\x1b[31m": `"\x1b[31m"`, "\u009b": `"\u009b"`, "a\u202eb": `"a\u202eb"`,
		"a\u200fb": `"a\u200fb"`, "\x9b": `"\x9b"`, "a\u2028b": `"a\u2028b"`, "\U000e0041": `"\U000e0041"`,
	} {
		if got := out.Text(data); got != want {
			t.Errorf("%q: %s, want %s", data, got, want)
		}
	}
}

func TestF(t *testing.T) {
	var b bytes.Buffer
	o := out.New(&b)
	o.F("%s: %d in %s of %-6s|\n%v %v\n", "al\nice", 3, time.Second, []byte("\x1b"), errors.New("a\rb"), 1.5)
	if want := "\"al\\nice\": 3 in 1s of \"\\x1b\"|\n\"a\\rb\" 1.5\n"; b.String() != want {
		t.Errorf("%s\nwant %s", &b, want)
	}
	if out.New(o) != o {
		t.Error("a writer in a writer")
	}
}

// What comes in pieces is what comes at once, wherever it is cut.
func TestWrite(t *testing.T) {
	const data, want = "a\tü…\n\x1b[31m\u009b\u202e\x9b\U000e0041\r€\xe2\x82", "a\tü…\n" + `\u001b[31m\u009b\u202e\x9b\udb40\udc41\u000d€\xe2\x82`
	for cut := range len(data) {
		var b bytes.Buffer
		o := out.New(&b)
		for _, part := range []string{data[:cut], data[cut:]} {
			if n, err := o.Write([]byte(part)); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := o.Close(); err != nil || b.String() != want {
			t.Fatalf("cut at %d: %s, %v\nwant %s", cut, &b, err, want)
		}
	}
}

type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestErrorIsKept(t *testing.T) {
	o := out.New(full{})
	o.F("a")
	if _, err := o.Write([]byte("b")); !errors.Is(err, errFull) || !errors.Is(o.Err(), errFull) || !errors.Is(o.Close(), errFull) {
		t.Error(err, o.Err())
	}
}

// Whatever is printed: nothing that a terminal would obey, no line that the program did
// not begin, and in JSON the value itself.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("\x1b]0;title\a\n\u009b\u202e\x9b\U000e0041"), 3)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		var raw, line, js bytes.Buffer
		o := out.New(&raw)
		cut = max(0, min(cut, len(data)))
		_, _ = o.Write(data[:cut])
		_, _ = o.Write(data[cut:])
		_ = o.Close()
		out.New(&line).F("%s\n", data)
		if err := json.NewEncoder(out.New(&js)).Encode(string(data)); err != nil {
			t.Fatal(err)
		}
		for _, b := range []*bytes.Buffer{&raw, &line, &js} {
			if s := b.String(); !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }) {
				t.Fatalf("%q", s)
			}
		}
		var back string
		if err := json.Unmarshal(js.Bytes(), &back); err != nil || back != string(data) && utf8.Valid(data) {
			t.Fatalf("%q: %v", back, err)
		}
		if n := bytes.Count(line.Bytes(), []byte("\n")); n != 1 || bytes.Count(raw.Bytes(), []byte("\n")) != bytes.Count(data, []byte("\n")) {
			t.Fatalf("%d lines", n)
		}
	})
}
