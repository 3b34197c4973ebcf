package loadgen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// errMalformed says that a server's bytes are no HTTP/1.1 that this client takes.
var errMalformed = errors.New("malformed answer")

func malformed(what string) error { return fmt.Errorf("%w: %s", errMalformed, what) }

// bufferSize bounds a line of an answer. The suite's answers fit as a whole.
const bufferSize = 4 << 10

// maxHead bounds the headers of an answer, and its trailers, in bytes.
const maxHead = 64 << 10

// answer is what is kept of one: its status, and whether the connection can
// carry another request.
type answer struct {
	status int
	keep   bool
}

// readAnswer reads one answer to a GET or POST and skips its body (RFC 9112). It
// is strict where a lenient reader could lose its place: line ends are CRLF, no
// header is folded, lengths are unambiguous. io.EOF is a connection closed
// before the answer began.
func readAnswer(r *bufio.Reader) (answer, error) {
	for first := true; ; first = false {
		a, length, err := readHead(r)
		if err == nil && a.status < 200 && a.status != 101 {
			continue // an interim answer; the real one follows
		}
		if err == nil && a.status == 101 {
			err = malformed("an upgrade that nobody asked for")
		}
		if err == nil {
			err = skipBody(r, length)
		}
		if begun := !first || a.status != 0; begun && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return a, err
	}
}

// Lengths of a body that are not numbers.
const (
	untilClose = -1
	chunked    = -2
)

// readHead reads status line and headers. The status is 0 until some byte has
// come, and -1 until it is known.
func readHead(r *bufio.Reader) (a answer, length int64, err error) {
	line, err := readLine(r)
	if err != nil {
		if len(line) > 0 {
			a.status = -1
		}
		return a, 0, err
	}
	a.status = -1
	// HTTP/1.1 200 OK
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return a, 0, malformed("no status line")
	}
	status, ok := digits(line[9:12], 10)
	if !ok || status < 100 {
		return a, 0, malformed("no status code")
	}
	a.status, a.keep = int(status), line[7] == '1'
	length = untilClose
	for left := maxHead; ; {
		if line, err = readLine(r); err != nil {
			return a, 0, err
		}
		if len(line) == 0 {
			break
		}
		if left -= len(line); left < 0 {
			return a, 0, malformed("too many headers")
		}
		if err = a.header(line, &length); err != nil {
			return a, 0, err
		}
	}
	if a.status < 200 || a.status == 204 || a.status == 304 {
		length = 0
	}
	a.keep = a.keep && length != untilClose
	return a, length, nil
}

// header takes in one header: those that say where the answer ends.
func (a *answer) header(line []byte, length *int64) error {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
		return malformed("a line that is no header")
	}
	value = bytes.Trim(value, " \t")
	switch {
	case is(name, "content-length"):
		n, ok := digits(value, 10)
		if !ok || *length >= 0 && *length != n || *length == chunked {
			return malformed("Content-Length")
		}
		*length = n
	case is(name, "transfer-encoding"):
		if !is(value, "chunked") || *length != untilClose {
			return malformed("Transfer-Encoding")
		}
		*length = chunked
	case is(name, "connection"):
		for more := true; more; {
			var token []byte
			token, value, more = bytes.Cut(value, []byte(","))
			if is(bytes.Trim(token, " \t"), "close") {
				a.keep = false
			}
		}
	}
	return nil
}

// is compares without regard to case. lower is in lower case.
func is(text []byte, lower string) bool {
	if len(text) != len(lower) {
		return false
	}
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// digits reads a number that is nothing but digits and fits.
func digits(text []byte, base int) (int64, bool) {
	if len(text) == 0 || text[0] == '+' || text[0] == '-' || len(text) > 18 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(text), base, 64)
	return n, err == nil
}

// skipBody reads a body to its end.
func skipBody(r *bufio.Reader, length int64) error {
	switch length {
	case untilClose:
		_, err := r.WriteTo(io.Discard)
		return err
	case chunked:
		return skipChunks(r)
	default:
		return skip(r, length)
	}
}

func skip(r *bufio.Reader, n int64) error {
	for n > 0 {
		done, err := r.Discard(int(min(n, bufferSize)))
		if err != nil {
			return err
		}
		n -= int64(done)
	}
	return nil
}

func skipChunks(r *bufio.Reader) error {
	for {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		text, _, _ := bytes.Cut(line, []byte(";")) // what follows is for others
		size, ok := digits(bytes.TrimRight(text, " \t"), 16)
		if !ok {
			return malformed("a chunk's size")
		}
		if size == 0 {
			return skipTrailers(r)
		}
		if err := skip(r, size); err != nil {
			return err
		}
		if line, err = readLine(r); err != nil {
			return err
		}
		if len(line) > 0 {
			return malformed("a chunk longer than its size")
		}
	}
}

func skipTrailers(r *bufio.Reader) error {
	for left := maxHead; ; {
		line, err := readLine(r)
		if err != nil || len(line) == 0 {
			return err
		}
		if left -= len(line); left < 0 {
			return malformed("too many trailers")
		}
	}
}

// readLine is a line without its CRLF, valid until the next read. With an error
// it is what came of one.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return line, malformed("a line that does not end")
	case err != nil:
		return line, err
	case len(line) < 2 || line[len(line)-2] != '\r':
		return line, malformed("a line without CR")
	}
	return line[:len(line)-2], nil
}
