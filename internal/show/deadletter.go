package show

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"coinbit/internal/out"
	"coinbit/internal/replay"
)

// shownBytes is how many bytes of a value that is not decoded a person sees.
const shownBytes = 48

// LetterText writes a letter for people.
func LetterText(w io.Writer, x replay.Letter) error {
	l := out.New(w)
	source := out.Text(x.SourceTopic) + " " + out.Text(x.SourcePosition)
	if x.SourceTopic == "" {
		source = "of unknown source"
	}
	l.F("%s %s  %s  %s: %s\n", x.Topic, x.Position, Clock(x.Time.UnixMilli()), source, x.Reason)
	if d := x.Described; d != nil {
		l.F("  too large to copy, its first bytes are below: key of %s bytes, SHA-256 %s; value of %s bytes, SHA-256 %s; headers of %s bytes\n",
			d.KeySize, d.KeyHash, d.ValueSize, d.ValueHash, d.HeadersSize)
	}
	l.F("  key     %s\n", optional(x.Key))
	l.F("  value   %s", size(x.Value))
	if x.Undecoded > 0 {
		tail := x.Value[len(x.Value)-x.Undecoded:]
		l.F(", %d at the end not decoded: %s", x.Undecoded, strconv.Quote(string(tail[:min(shownBytes, len(tail))])))
		if len(tail) > shownBytes {
			l.F("…")
		}
	}
	l.F("\n")
	if len(x.Fields) > 0 {
		l.F("  fields ")
		for _, f := range x.Fields[:min(len(x.Fields), shownBytes)] {
			l.F(" %s=%s", f.Name, cut(f.Text))
		}
		if more := len(x.Fields) - shownBytes; more > 0 {
			l.F(" and %d more", more)
		}
		l.F("\n")
	}
	for _, h := range x.Headers {
		l.F("  header  %s=%s\n", h.Key, cut(string(h.Value)))
	}
	return l.Err()
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

// cut is a text for people, not too long.
func cut(s string) string {
	const most = 160
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return out.Text(s)
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

// LetterJSON writes a letter as one line. Key, value and headers are there in Base64 too:
// JSON knows only texts in UTF-8.
func LetterJSON(w io.Writer, x replay.Letter) error {
	j := letterJSON{Topic: x.Topic, Position: x.Position, Time: Clock(x.Time.UnixMilli()), Reason: x.Reason,
		SourceTopic: x.SourceTopic, SourcePosition: x.SourcePosition,
		KeyBytes: x.Key, Value: x.Value, Fields: []fieldJSON{}, Undecoded: x.Undecoded}
	if x.Key != nil {
		key := string(x.Key)
		j.Key = &key
	}
	if d := x.Described; d != nil {
		j.Described = &describedJSON{d.KeySize, d.KeyHash, d.ValueSize, d.ValueHash, d.HeadersSize}
	}
	for _, f := range x.Fields {
		j.Fields = append(j.Fields, fieldJSON{f.Name, f.Text})
	}
	for _, h := range x.Headers {
		j.Headers = append(j.Headers, headerJSON{string(h.Key), h.Value})
	}
	return json.NewEncoder(out.New(w)).Encode(j)
}
