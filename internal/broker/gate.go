package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// maxConns is far above what the whole suite opens on one broker.
	maxConns = 256
	// maxFrame is a little above the largest request that the program makes, see
	// kafka.maxRequest: batches of 16 MiB and one dead letter more. The first four bytes
	// of HTTP and of TLS, read as a length, are far above it.
	maxFrame = 24 << 20
	// maxHeld bounds what all connections together have sent of unfinished frames.
	maxHeld = 64 << 20
	// readStep is how much more room a frame gets at a time, once it has filled the last.
	readStep = 64 << 10
	// frameTimeout is from a frame's length to its last byte, answerTimeout is for an
	// answer to be taken.
	frameTimeout  = 10 * time.Second
	answerTimeout = 30 * time.Second
)

// gate is the listener in front of kfake, which trusts whoever connects: it allocates
// whatever length it reads, and a request that it does not expect ends the process. Its
// connections hand over whole and checked requests only. A full gate closes the longest
// quiet connection for each new one, and a frame that is long in coming where frames hold
// too much. Who does not speak Kafka locks nobody out.
type gate struct {
	net.Listener
	conns, held   int // bounds, and
	frame, answer time.Duration

	mu   sync.Mutex
	open map[*conn]struct{}
	sum  int // bytes of unfinished frames
}

func newGate(ln net.Listener) *gate {
	return &gate{Listener: ln, conns: maxConns, held: maxHeld, frame: frameTimeout, answer: answerTimeout, open: make(map[*conn]struct{})}
}

// Accept takes the next connection. kfake ends its listening at the first error: what
// passes, such as a lack of descriptors, is waited for here.
func (g *gate) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		switch {
		case err == nil:
			return g.admit(nc), nil
		case errors.Is(err, net.ErrClosed):
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (g *gate) admit(nc net.Conn) net.Conn {
	c := &conn{Conn: nc, gate: g, quiet: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.open) >= g.conns {
		g.drop(func(a, b *conn) bool {
			if a.spoken != b.spoken {
				return b.spoken
			}
			return a.quiet.Before(b.quiet)
		})
	}
	g.open[c] = struct{}{}
	return c
}

// drop closes the connection that comes first. It is called under mu.
func (g *gate) drop(before func(a, b *conn) bool) {
	var first *conn
	for c := range g.open {
		if first == nil || before(c, first) {
			first = c
		}
	}
	g.forget(first)
	_ = first.Conn.Close()
}

// forget is called under mu.
func (g *gate) forget(c *conn) {
	delete(g.open, c)
	g.sum -= c.holds
	c.holds = 0
}

// hold says that c holds n bytes more of an unfinished frame. Where all hold too much, the
// frame that was begun first is given up, which may be this one.
func (g *gate) hold(c *conn, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, is := g.open[c]; !is {
		return // closed meanwhile
	}
	c.holds += n
	for g.sum += n; g.sum > g.held; {
		g.drop(func(a, b *conn) bool {
			if (a.holds > 0) != (b.holds > 0) {
				return a.holds > 0
			}
			return a.begun.Before(b.begun)
		})
	}
}

// begin says that c begins a frame, end that it has sent a whole and good one.
func (g *gate) begin(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.begun = time.Now()
}

func (g *gate) end(c *conn, speaks bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sum -= c.holds
	c.holds, c.spoken, c.quiet = 0, c.spoken || speaks, time.Now()
}

// introduces tells whether a checked frame only asks for versions or logs in: anybody can.
func introduces(frame []byte) bool {
	switch kmsg.Key(binary.BigEndian.Uint16(frame[4:])) { //nolint:exhaustive,gosec // all others ask for something; check knows the key
	case kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate:
		return true
	}
	return false
}

// conn hands checked frames to kfake. It is read by one goroutine.
type conn struct {
	net.Conn
	gate  *gate
	frame []byte // with its length, what is not handed over yet

	// Under gate.mu.
	spoken bool      // has sent a good request that asks for more than an introduction
	quiet  time.Time // since its last good request, or since it was opened
	begun  time.Time // the unfinished frame
	holds  int       // bytes of the unfinished frame
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.frame) == 0 {
		var err error
		if c.frame, err = c.next(); err != nil {
			_ = c.Close()
			return 0, err
		}
	}
	n := copy(p, c.frame)
	if c.frame = c.frame[n:]; len(c.frame) == 0 {
		c.frame = nil // its memory is not needed any more
	}
	return n, nil
}

// next waits for a frame, reads it whole and checks it. Between frames a client may be
// quiet for as long as it likes.
func (c *conn) next() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c.Conn, size[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(size[:])
	if length > maxFrame {
		return nil, fmt.Errorf("a request of %d bytes: at most %d are taken", length, maxFrame)
	}
	c.gate.begin(c)
	if err := c.SetReadDeadline(time.Now().Add(c.gate.frame)); err != nil {
		return nil, err
	}
	frame, err := c.body(size[:], 4+int(length))
	if err == nil {
		err = check(frame[4:])
	}
	if err != nil {
		return nil, err
	}
	c.gate.end(c, !introduces(frame))
	return frame, c.SetReadDeadline(time.Time{})
}

// body reads up to size bytes in all. Room grows with what has come, not with what was
// announced.
func (c *conn) body(frame []byte, size int) ([]byte, error) {
	for len(frame) < size {
		have := len(frame)
		more := min(size-have, max(have, readStep))
		grown := make([]byte, have+more)
		copy(grown, frame)
		c.gate.hold(c, more)
		if _, err := io.ReadFull(c.Conn, grown[have:]); err != nil {
			return nil, err
		}
		frame = grown
	}
	return frame, nil
}

// Write gives a client a bounded time to take its answer.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.gate.answer)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Close may be called more than once.
func (c *conn) Close() error {
	c.gate.mu.Lock()
	c.gate.forget(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
