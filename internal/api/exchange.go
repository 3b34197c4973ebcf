package api

import (
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	// arriving is how long an answer waits for the rest of a body that nobody reads: as a
	// rule it is there, and the connection can go on.
	arriving = 20 * time.Millisecond
	// lingering is how long a connection is read from, into nothing, after its last
	// answer. One closed on what a client sends takes that answer with it.
	lingering = 500 * time.Millisecond
)

// follow tells each request's connection when a handler works and when it waits for the
// client, and lets no answer wait for a body.
func follow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r)
		c.work(true)
		defer c.work(false)
		if len(r.TransferEncoding) > 0 {
			// It may have had a Content-Length too, of which net/http does not tell. Who
			// went by that one takes what follows for another request than we do.
			w.Header().Set("Connection", "close")
		}
		if r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		x := &exchange{ResponseWriter: w, ReadCloser: r.Body, conn: c, continues: r.Header.Get("Expect") != ""}
		r.Body = x
		defer func() { r.Body = x.ReadCloser }() // net/http looks at it afterwards
		next.ServeHTTP(x, r)
		x.settle()
	})
}

// exchange is the body of a request and the answer to it.
type exchange struct {
	http.ResponseWriter
	io.ReadCloser
	conn *conn
	// continues: the client sends its body when somebody reads it.
	continues bool
	// duplex: the body is read while the answer is written.
	duplex bool
	// whole: all of the body was read.
	whole   bool
	settled bool
}

// Read reads the body.
func (x *exchange) Read(p []byte) (int, error) {
	x.conn.block(1)
	defer x.conn.block(-1)
	n, err := x.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		x.whole = true
	}
	return n, err
}

// settle is called before the answer begins. If the body is not all read, and not there
// either, the connection ends with the answer. net/http would wait for it, before the
// answer and after, for as long as a request may take.
func (x *exchange) settle() {
	if x.settled || x.duplex {
		return
	}
	x.settled = true
	rc := http.NewResponseController(x.ResponseWriter)
	if !x.whole && !x.continues {
		_ = rc.SetReadDeadline(time.Now().Add(arriving))
		_, _ = io.CopyN(io.Discard, x, maxBody)
		_ = rc.SetReadDeadline(time.Time{}) // who works on must not take it for the client's leaving
	}
	if !x.whole {
		x.Header().Set("Connection", "close")
		_ = rc.SetReadDeadline(time.Now().Add(lingering))
	}
}

func (x *exchange) WriteHeader(status int) {
	x.settle()
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	x.settle()
	return x.ResponseWriter.Write(p)
}

// EnableFullDuplex is for http.ResponseController.
func (x *exchange) EnableFullDuplex() error {
	x.duplex = true
	return http.NewResponseController(x.ResponseWriter).EnableFullDuplex()
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }
