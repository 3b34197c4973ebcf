package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// dial connects to b. Who is cut off notices it within the deadline.
func dial(t testing.TB, b *Broker) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", b.Addr(), 5*time.Second)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	return c
}

// isCutOff waits until the broker has closed c without an answer.
func isCutOff(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("not cut off: %d bytes, %v", n, err)
	}
}

// answers tells whether the broker still serves.
func answers(t testing.TB, b *Broker) {
	t.Helper()
	client, err := sarama.NewClient([]string{b.Addr()}, config())
	must(t, err)
	must(t, client.Close())
}

// frameOf is a request as it goes over the wire.
func frameOf(req kmsg.Request, version int16) []byte {
	req.SetVersion(version)
	return kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
}

// ask sends a request and reads its answer to the end.
func ask(t testing.TB, c net.Conn, req kmsg.Request, version int16) {
	t.Helper()
	_, err := c.Write(frameOf(req, version))
	must(t, err)
	size := make([]byte, 4)
	_, err = io.ReadFull(c, size)
	must(t, err)
	_, err = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(size)))
	must(t, err)
}

func TestHostileFrames(t *testing.T) {
	b := start(t, t.TempDir(), "127.0.0.1:0")
	defer b.Close()
	create(t, b, "t")
	for name, frame := range map[string]string{
		"unknown key":     "\x00\x00\x00\x0a\x7f\xff\x00\x00\x00\x00\x00\x01\xff\xff",
		"negative key":    "\x00\x00\x00\x0a\xff\xff\x00\x00\x00\x00\x00\x01\xff\xff",
		"unknown version": "\x00\x00\x00\x0a\x00\x03\x00\x7f\x00\x00\x00\x01\xff\xff",
		"no header":       "\x00\x00\x00\x02\x00\x03",
		"nothing":         "\x00\x00\x00\x00",
		"client id":       "\x00\x00\x00\x0a\x00\x03\x00\x00\x00\x00\x00\x01\x7f\xff",
		"HTTP":            "POST / HTTP/1.1\r\nHost: 127.0.0.1:9092\r\n\r\n",
		"HTTP/2":          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"TLS":             "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"largest length":  "\xff\xff\xff\xff",
		// 2³² tags are announced, and none comes.
		"tags": "\x00\x00\x00\x12\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\x0f\x00\x00\x00",
		// An array as long as the frame allows.
		"array": "\x00\x00\x00\x12\x00\x03\x00\x00\x00\x00\x00\x01\xff\xff\x00\x00\x00\x04\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, b)
			_, err := io.WriteString(c, frame)
			must(t, err)
			isCutOff(t, c)
			answers(t, b)
		})
	}
}

// What a page of any origin can send, a body of its choice behind a head of the browser's,
// takes no memory.
func TestHTTPTakesNoMemory(t *testing.T) {
	b := start(t, t.TempDir(), "127.0.0.1:0")
	defer b.Close()
	body := make([]byte, 32<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		c := dial(t, b)
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		_, _ = c.Write(body) // fails as soon as the connection is closed
		_ = c.Close()
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d MB were allocated", grown>>20)
	}
	answers(t, b)
}

// A length takes no memory either: only what has come does.
func TestLengthTakesNoMemory(t *testing.T) {
	b := start(t, t.TempDir(), "127.0.0.1:0")
	defer b.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		c := dial(t, b)
		must(t, binary.Write(c, binary.BigEndian, uint32(maxFrame)))
	}
	answers(t, b)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
		t.Errorf("%d MB were allocated", grown>>20)
	}
}

// However many say nothing, whoever speaks Kafka is served, and keeps his connection.
func TestIdleConnectionsGiveWay(t *testing.T) {
	b := start(t, t.TempDir(), "127.0.0.1:0")
	defer b.Close()
	honest := dial(t, b)
	ask(t, honest, kmsg.NewPtrMetadataRequest(), 1)
	first := dial(t, b)
	for i := range 2 * maxConns {
		if c := dial(t, b); i%8 == 0 { // to ask for versions is no more than to say hello
			ask(t, c, kmsg.NewPtrApiVersionsRequest(), 0)
		}
	}
	isCutOff(t, first)
	answers(t, b)
	ask(t, honest, kmsg.NewPtrApiVersionsRequest(), 0)
}

// Among those who have spoken, the one that is quiet longest gives way.
func TestLongestQuietGivesWay(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := newGate(ln)
	g.conns = 3
	b := &Broker{addr: ln.Addr().String()}
	defer func() { must(t, g.Close()) }()
	accept := func() (client net.Conn, server *conn) {
		client = dial(t, b)
		c, err := g.Accept()
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return client, c.(*conn)
	}
	clients := make([]net.Conn, 3)
	servers := make([]*conn, 3)
	for i := range clients {
		clients[i], servers[i] = accept()
	}
	for _, i := range []int{1, 0, 2} {
		g.end(servers[i], true)
	}
	accept()
	isCutOff(t, clients[1])
	if g.open[servers[1]] = struct{}{}; len(g.open) != 4 {
		t.Errorf("%d are open", len(g.open)-1)
	}
	delete(g.open, servers[1])
	silent, _ := accept() // in place of the other one that has said nothing
	accept()
	isCutOff(t, silent)
}

// Frames that do not end are given up where they hold too much, the first of them first,
// and each in time.
func TestUnfinishedFramesGiveWay(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := newGate(ln)
	g.held, g.frame = 3<<20, time.Minute
	b := &Broker{addr: ln.Addr().String()}
	defer func() { must(t, g.Close()) }()
	send := func() net.Conn {
		client := dial(t, b)
		server, err := g.Accept()
		must(t, err)
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(io.Discard, server) }()
		t.Cleanup(func() { _ = server.Close(); <-done })
		must(t, binary.Write(client, binary.BigEndian, uint32(maxFrame)))
		_, err = client.Write(make([]byte, 1<<20))
		must(t, err)
		eventually(t, func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			_, is := g.open[server.(*conn)]
			return !is || server.(*conn).holds >= 1<<20
		})
		return client
	}
	first := send()
	for range 3 {
		send()
	}
	isCutOff(t, first)
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := 0
	for c := range g.open {
		sum += c.holds
	}
	if g.sum != sum || g.sum > g.held {
		t.Errorf("%d bytes are held, %d by all", g.sum, sum)
	}
}

func TestSlowFrame(t *testing.T) {
	b, err := begin(t.Context(), t.TempDir(), "127.0.0.1:0", func(ln net.Listener) *gate {
		g := newGate(ln)
		g.frame = 50 * time.Millisecond
		return g
	})
	must(t, err)
	defer b.Close()
	quiet, slow := dial(t, b), dial(t, b)
	must(t, binary.Write(slow, binary.BigEndian, uint32(100)))
	isCutOff(t, slow)
	ask(t, quiet, kmsg.NewPtrApiVersionsRequest(), 0) // between frames there is no hurry
}

// Who takes no answers is cut off.
func TestAnswersAreTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := newGate(ln)
	g.answer = 50 * time.Millisecond
	defer func() { must(t, g.Close()) }()
	dial(t, &Broker{addr: ln.Addr().String()})
	c, err := g.Accept()
	must(t, err)
	defer func() { _ = c.Close() }()
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
	}
}

// flaky is a listener that lacks descriptors at first.
type flaky struct {
	net.Listener
	fails int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.fails--; f.fails >= 0 {
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptGoesOn(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := newGate(&flaky{ln, 2})
	dial(t, &Broker{addr: ln.Addr().String()})
	c, err := g.Accept()
	must(t, err)
	must(t, c.Close())
	must(t, g.Close())
	if _, err := g.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after its end: %v", err)
	}
}

// The log is this user's alone, also where DATA_DIR was there and open.
func TestLogIsPrivate(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "log"), 0o755))
	b := start(t, dir, "127.0.0.1:0")
	create(t, b, "t")
	b.Close()
	info, err := os.Stat(filepath.Join(dir, "log"))
	must(t, err)
	entries, err := os.ReadDir(dir)
	must(t, err)
	if info.Mode().Perm() != 0o700 || len(entries) != 1 {
		t.Errorf("%v, beside it %v", info.Mode(), entries)
	}
	must(t, os.Rename(filepath.Join(dir, "log"), filepath.Join(dir, "moved")))
	must(t, os.Symlink(filepath.Join(dir, "moved"), filepath.Join(dir, "log")))
	if _, err := Start(t.Context(), dir, "127.0.0.1:0"); err == nil || errors.Is(err, ErrTaken) {
		t.Errorf("a link in place of the log: %v", fmt.Sprint(err))
	}
}

// Tagged fields that no version knows take many times their bytes once they are parsed.
func TestManyTags(t *testing.T) {
	for n, refused := range map[int]bool{maxTags: false, maxTags + 1: true, 10_000: true} {
		of := map[string]func(*kmsg.ProduceRequest) *kmsg.Tags{
			"request":   func(r *kmsg.ProduceRequest) *kmsg.Tags { return &r.UnknownTags },
			"topic":     func(r *kmsg.ProduceRequest) *kmsg.Tags { return &r.Topics[0].UnknownTags },
			"partition": func(r *kmsg.ProduceRequest) *kmsg.Tags { return &r.Topics[0].Partitions[0].UnknownTags },
		}
		for where, tags := range of {
			req := &kmsg.ProduceRequest{Topics: []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batchOf(1, 0, recordsOf(1))}}}}}
			for i := range n {
				tags(req).Set(uint32(100+i), nil)
			}
			if err := check(frameOf(req, 9)[4:]); (err != nil) != refused {
				t.Errorf("%d tags in the %s: %v", n, where, err)
			}
		}
	}
}
