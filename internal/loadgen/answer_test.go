package loadgen

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadAnswer(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		text string
		want answer
		err  error
		left int // bytes behind the answer
	}{
		"a length":                     {ok + "Content-Length: 2\r\n\r\n{}", answer{200, true}, nil, 0},
		"two answers":                  {ok + "content-length:2 \r\n\r\n{}HTTP", answer{200, true}, nil, 4},
		"no reason":                    {"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n", answer{503, true}, nil, 0},
		"no reason and no space":       {"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", answer{503, true}, nil, 0},
		"no content":                   {"HTTP/1.1 204 No Content\r\n\r\n", answer{204, true}, nil, 0},
		"not modified, with a length":  {"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", answer{304, true}, nil, 0},
		"chunks":                       {ok + "Transfer-Encoding: Chunked\r\n\r\n2;x=\"y\"\r\n{}\r\nA \r\n0123456789\r\n000\r\n\r\nH", answer{200, true}, nil, 1},
		"chunks with trailers":         {ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", answer{200, true}, nil, 0},
		"close":                        {ok + "Connection: x , CLOSE\r\nContent-Length: 0\r\n\r\n", answer{200, false}, nil, 0},
		"HTTP/1.0":                     {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", answer{200, false}, nil, 0},
		"until the end":                {ok + "\r\n" + strings.Repeat("x", 3*bufferSize), answer{200, false}, nil, 0},
		"after interim answers":        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + ok + "Content-Length: 1\r\n\r\nx", answer{200, true}, nil, 0},
		"a long body":                  {ok + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000), answer{200, true}, nil, 0},
		"the same length twice":        {ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", answer{200, true}, nil, 0},
		"nothing":                      {"", answer{}, io.EOF, 0},
		"a part of the status":         {"HTT", answer{}, io.ErrUnexpectedEOF, 0},
		"a part of the headers":        {ok, answer{}, io.ErrUnexpectedEOF, 0},
		"a part of the body":           {ok + "Content-Length: 3\r\n\r\n{}", answer{}, io.ErrUnexpectedEOF, 0},
		"a part of the chunks":         {ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", answer{}, io.ErrUnexpectedEOF, 0},
		"only an interim answer":       {"HTTP/1.1 100 Continue\r\n\r\n", answer{}, io.ErrUnexpectedEOF, 0},
		"another protocol":             {"SSH-2.0-OpenSSH_9.6\r\n", answer{}, errMalformed, 0},
		"HTTP/2":                       {"HTTP/2.0 200 OK\r\n\r\n", answer{}, errMalformed, 0},
		"a status of two digits":       {"HTTP/1.1 20 OK\r\n\r\n", answer{}, errMalformed, 0},
		"a status of four digits":      {"HTTP/1.1 2000\r\n\r\n", answer{}, errMalformed, 0},
		"an upgrade":                   {"HTTP/1.1 101 x\r\n\r\n", answer{}, errMalformed, 0},
		"two lengths":                  {ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", answer{}, errMalformed, 0},
		"a signed length":              {ok + "Content-Length: +1\r\n\r\nx", answer{}, errMalformed, 0},
		"an empty length":              {ok + "Content-Length:\r\n\r\nx", answer{}, errMalformed, 0},
		"a length too large":           {ok + "Content-Length: 9999999999999999999\r\n\r\nx", answer{}, errMalformed, 0},
		"a length and chunks":          {ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", answer{}, errMalformed, 0},
		"chunks and a length":          {ok + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", answer{}, errMalformed, 0},
		"an unknown encoding":          {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", answer{}, errMalformed, 0},
		"a folded header":              {ok + "X: a\r\n b: c\r\n\r\n", answer{}, errMalformed, 0},
		"a space before the colon":     {ok + "Content-Length : 1\r\n\r\nx", answer{}, errMalformed, 0},
		"no colon":                     {ok + "nonsense\r\n\r\n", answer{}, errMalformed, 0},
		"a line end without CR":        {"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", answer{}, errMalformed, 0},
		"a chunk's size of nonsense":   {ok + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", answer{}, errMalformed, 0},
		"a chunk's size too large":     {ok + "Transfer-Encoding: chunked\r\n\r\n1111111111111111111\r\n", answer{}, errMalformed, 0},
		"a chunk longer than its size": {ok + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n", answer{}, errMalformed, 0},
		"a line without end":           {ok + "X: " + strings.Repeat("x", 2*bufferSize), answer{}, errMalformed, 0},
		"headers without end":          {ok + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 100), answer{}, errMalformed, 0},
		"trailers without end":         {ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 100), answer{}, errMalformed, 0},
	} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			src := strings.NewReader(c.text)
			r := bufio.NewReaderSize(wrap(src), bufferSize)
			got, err := readAnswer(r)
			if !errors.Is(err, c.err) || c.err == nil && (err != nil || got != c.want || r.Buffered()+src.Len() != c.left) {
				t.Errorf("%s, %s: %+v, %v, %d bytes left; want %+v, %v, %d", name, how, got, err, r.Buffered()+src.Len(), c.want, c.err, c.left)
			}
		}
	}
}

// What readAnswer takes, net/http takes too, and finds its end at the same place.
func FuzzReadAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\n{}\r\n0\r\nX: y\r\n\r\nrest",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204 x\r\nConnection: close, x\r\n\r\n",
		"HTTP/1.1 503 \r\nConnection:close\r\nContent-Length:0\r\n\r\n", "HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		src := bytes.NewReader(data)
		r := bufio.NewReaderSize(src, bufferSize)
		got, err := readAnswer(r)
		if err != nil {
			return
		}
		left := src.Len() + r.Buffered()
		theirs := bufio.NewReaderSize(bytes.NewReader(data), 1<<20)
		res, err := http.ReadResponse(theirs, &http.Request{Method: http.MethodPost})
		for err == nil && res.StatusCode < 200 {
			res, err = http.ReadResponse(theirs, &http.Request{Method: http.MethodPost})
		}
		if err != nil {
			if strings.Contains(err.Error(), "malformed MIME header") {
				return // what letters a header may have does not move the end
			}
			t.Fatalf("taken as %+v, net/http says %v: %q", got, err, data)
		}
		defer func() { _ = res.Body.Close() }()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			if strings.Contains(err.Error(), "malformed MIME header") { // in a trailer
				return
			}
			t.Fatalf("taken as %+v, net/http says of the body %v: %q", got, err, data)
		}
		rest, _ := io.ReadAll(theirs)
		if res.StatusCode != got.status || got.keep && res.Close || len(rest) != left {
			t.Fatalf("%+v and %d bytes left, net/http %d, close %v and %d: %q", got, left, res.StatusCode, res.Close, len(rest), data)
		}
	})
}
