// Package out is the one way to standard output, standard error and the logs: whatever
// others sent, a terminal is given printable text. Nothing moves the cursor, sets the
// title, turns the text around or begins a line that the program did not.
package out

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text is data as it may stand in a line: as it is where all of it can be printed, else
// quoted as in Go, line breaks too.
func Text[T ~string | ~[]byte](data T) string {
	text := string(data)
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	return strconv.Quote(text)
}

// Writer is in front of everything that the program prints. It keeps its first error.
type Writer struct {
	mu   sync.Mutex
	w    io.Writer
	rest []byte // the beginning of a rune whose end is still to come
	err  error
}

// New is w itself if it is a Writer already.
func New(w io.Writer) *Writer {
	if o, ok := w.(*Writer); ok {
		return o
	}
	return &Writer{w: w}
}

// F prints for people: the format is the program's, texts among args are data; see Text.
func (o *Writer) F(format string, args ...any) {
	args = slices.Clone(args)
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			args[i] = Text(arg)
		case []byte:
			args[i] = Text(arg)
		case error:
			args[i] = Text(arg.Error())
		case fmt.Stringer:
			args[i] = Text(arg.String())
		}
	}
	_, _ = fmt.Fprintf(o, format, args...) // kept
}

// Write prints what others have formatted, such as JSON, CSV and logs. Line feeds and tabs
// stay; whatever else cannot be printed is escaped as JSON does it, which in a JSON text
// keeps the value. A byte that is no UTF-8 becomes \x and its two digits.
func (o *Writer) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.print(append(o.rest, p...), false)
	if o.err != nil {
		return 0, o.err
	}
	return len(p), nil
}

// Close prints the beginning of a rune that was never ended. It closes nothing.
func (o *Writer) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.print(o.rest, true)
	return o.err
}

// Err is the first error.
func (o *Writer) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// print is called under mu.
func (o *Writer) print(data []byte, end bool) {
	clean := make([]byte, 0, len(data))
	for len(data) > 0 && (end || utf8.FullRune(data)) {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && n == 1:
			clean = fmt.Appendf(clean, `\x%02x`, data[0])
		case r == '\n', r == '\t', unicode.IsPrint(r):
			clean = append(clean, data[:n]...)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				clean = fmt.Appendf(clean, `\u%04x`, unit)
			}
		}
		data = data[n:]
	}
	o.rest = slices.Clone(data)
	if o.err == nil && len(clean) > 0 {
		_, o.err = o.w.Write(clean)
	}
}
