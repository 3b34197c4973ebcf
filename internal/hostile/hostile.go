// Package hostile has clients that take up places and give nothing for them. Tests hold a
// server to what it owes the others beside them. Nothing but tests may use it.
package hostile

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a client does with its connection.
type Kind struct {
	Name string
	// Text is sent at first, by one that is Deaf again and again.
	Text string
	// Deaf: it never takes what it is answered.
	Deaf bool
	// Trickle is sent after Text, a byte at a time, each after a pause.
	Trickle string
}

// trickle is the pause before each byte of a Kind's Trickle.
const trickle = 250 * time.Millisecond

// Kinds are those that wait, or make the server wait, in another phase each. key is an
// API key that the server takes.
func Kinds(key string) []Kind {
	post := func(headers string) string { return "POST /api/deposit HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" }
	authorized := "Authorization: Bearer " + key + "\r\n"
	return []Kind{
		{Name: "no request"},
		{Name: "no key and no body", Text: post("Content-Length: 100\r\n")},
		{Name: "no body", Text: post(authorized + "Content-Length: 100\r\n")},
		{Name: "a body byte by byte", Text: post(authorized + "Content-Length: 100\r\n"), Trickle: strings.Repeat(" ", 100)},
		{Name: "no chunk", Text: post(authorized + "Transfer-Encoding: chunked\r\n")},
		{Name: "no body where none is read", Text: "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"},
		{Name: "no ear", Text: strings.Repeat("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", 100), Deaf: true},
	}
}

// Crowd is many clients of a kind.
type Crowd struct {
	opened  atomic.Int64
	stop    context.CancelFunc
	clients sync.WaitGroup
}

// Start lets n clients loose on addr. Each comes again when it has been sent away; all
// together open perSecond connections at most.
func Start(addr string, k Kind, n, perSecond int) *Crowd {
	ctx, stop := context.WithCancel(context.Background())
	c := &Crowd{stop: stop}
	may := make(chan struct{})
	c.clients.Go(func() {
		const tick = 10 * time.Millisecond
		ticks := time.NewTicker(tick)
		defer ticks.Stop()
		began, given := time.Now(), 0
		for {
			select {
			case <-ticks.C:
			case <-ctx.Done():
				return
			}
			for due := int(time.Since(began).Seconds() * float64(perSecond)); given < due; given++ {
				select {
				case may <- struct{}{}:
				case <-ctx.Done():
					return
				case <-time.After(tick): // all are busy; what is not taken is not made up for
				}
			}
		}
	})
	for range n {
		c.clients.Go(func() {
			for {
				select {
				case <-may:
					c.visit(ctx, addr, k)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return c
}

func (c *Crowd) visit(ctx context.Context, addr string, k Kind) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	c.opened.Add(1)
	if k.Deaf {
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10) // else it takes much before it stops
		for err == nil {
			_, err = io.WriteString(conn, k.Text)
		}
		return
	}
	_, err = io.WriteString(conn, k.Text)
	for i := 0; i < len(k.Trickle) && err == nil; i++ {
		select {
		case <-time.After(trickle):
			_, err = io.WriteString(conn, k.Trickle[i:i+1])
		case <-ctx.Done():
			return
		}
	}
	if err == nil {
		_, _ = io.Copy(io.Discard, conn) // until it is sent away
	}
}

// Await waits until so many connections have been opened.
func (c *Crowd) Await(opened int, limit time.Duration) error {
	for end := time.Now().Add(limit); c.opened.Load() < int64(opened); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%d connections were opened in %s, want %d", c.opened.Load(), limit, opened)
		}
	}
	return nil
}

// Stop sends all home.
func (c *Crowd) Stop() {
	c.stop()
	c.clients.Wait()
}
