package show

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"coinbit/internal/replay"
)

// shownBytes is how many bytes of a value that is not decoded a person sees.
const shownBytes = 48

// LetterText writes a letter for people, in which nothing is a byte that a terminal
// would obey.
func LetterText(w io.Writer, x replay.Letter) error {
	l := &lines{w: w}
	source := Printable(x.SourceTopic) + " " + Printable(x.SourcePosition)
	if x.SourceTopic == "" {
		source = "of unknown source"
	}
	l.f("%s %s  %s  %s: %s\n", x.Topic, x.Position, Clock(x.Time.UnixMilli()), source, Printable(x.Reason))
	if d := x.Described; d != nil {
		l.f("  too large to copy, its first bytes are below: key of %s bytes, SHA-256 %s; value of %s bytes, SHA-256 %s; headers of %s bytes\n",
			Printable(d.KeySize), Printable(d.KeyHash), Printable(d.ValueSize), Printable(d.ValueHash), Printable(d.HeadersSize))
	}
	l.f("  key     %s\n", optional(x.Key))
	l.f("  value   %s", size(x.Value))
	if x.Undecoded > 0 {
		tail := x.Value[len(x.Value)-x.Undecoded:]
		l.f(", %d at the end not decoded: %s", x.Undecoded, strconv.Quote(string(tail[:min(shownBytes, len(tail))])))
		if len(tail) > shownBytes {
			l.f("…")
		}
	}
	l.f("\n")
	if len(x.Fields) > 0 {
		l.f("  fields ")
		for _, f := range x.Fields[:min(len(x.Fields), shownBytes)] {
			l.f(" %s=%s", f.Name, cut(f.Text))
		}
		if more := len(x.Fields) - shownBytes; more > 0 {
			l.f(" and %d more", more)
		}
		l.f("\n")
	}
	for _, h := range x.Headers {
		l.f("  header  %s=%s\n", Printable(h.Key), cut(string(h.Value)))
	}
	return l.err
}

// optional is bytes that may be missing.
func optional(b []byte) string {
	if b == nil {
		return "none"
	}
	return strconv.Quote(string(b))
}

func size(b []byte) string {
	if b == nil {
		return "none"
	}
	return Number(len(b), "byte")
}

// cut is a text for people: printable, and not too long.
func cut(s string) string {
	const most = 160
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return Printable(s)
}

type headerJSON struct {
	Key   string `json:"key"`
	Value []byte `json:"value_base64"`
}

type fieldJSON struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

type letterJSON struct {
	Topic          string          `json:"topic"`
	Position       replay.Position `json:"position"`
	Time           string          `json:"time"`
	Reason         string          `json:"reason"`
	SourceTopic    string          `json:"source_topic"`
	SourcePosition string          `json:"source_position"`
	Key            *string         `json:"key"`
	KeyBytes       []byte          `json:"key_base64"`
	Value          []byte          `json:"value_base64"`
	Fields         []fieldJSON     `json:"fields"`
	Undecoded      int             `json:"undecoded_bytes"`
	Headers        []headerJSON    `json:"headers,omitempty"`
	Described      *describedJSON  `json:"described,omitempty"`
}

type describedJSON struct {
	KeySize     string `json:"key_size"`
	KeyHash     string `json:"key_sha256"`
	ValueSize   string `json:"value_size"`
	ValueHash   string `json:"value_sha256"`
	HeadersSize string `json:"headers_size"`
}

// LetterJSON writes a letter as one line. Texts are printable, quoted as in Go where they
// were not; the bytes as they came are beside them in Base64.
func LetterJSON(w io.Writer, x replay.Letter) error {
	j := letterJSON{Topic: x.Topic, Position: x.Position, Time: Clock(x.Time.UnixMilli()), Reason: Printable(x.Reason),
		SourceTopic: Printable(x.SourceTopic), SourcePosition: Printable(x.SourcePosition),
		KeyBytes: x.Key, Value: x.Value, Fields: []fieldJSON{}, Undecoded: x.Undecoded}
	if x.Key != nil {
		key := Printable(x.Key)
		j.Key = &key
	}
	if d := x.Described; d != nil {
		j.Described = &describedJSON{Printable(d.KeySize), Printable(d.KeyHash), Printable(d.ValueSize), Printable(d.ValueHash), Printable(d.HeadersSize)}
	}
	for _, f := range x.Fields {
		j.Fields = append(j.Fields, fieldJSON{f.Name, Printable(f.Text)})
	}
	for _, h := range x.Headers {
		j.Headers = append(j.Headers, headerJSON{Printable(h.Key), h.Value})
	}
	return json.NewEncoder(w).Encode(j)
}
