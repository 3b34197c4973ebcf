package api

import (
	"io"
	"net"
	"testing"
)

// pipes are n connections to a server and their clients' ends.
func pipes(t *testing.T, n int) (server, client []net.Conn) {
	t.Helper()
	for range n {
		s, c := net.Pipe()
		t.Cleanup(func() { _, _ = s.Close(), c.Close() })
		server, client = append(server, s), append(client, c)
	}
	return server, client
}

// A client that sends or takes a byte now and then has waited since its request began.
func TestWhoTricklesKeepsItsAge(t *testing.T) {
	server, client := pipes(t, 3)
	s := newConns(2)
	slow := s.admit(server[0])
	slow.work(true)
	slow.block(1)
	honest := s.admit(server[1])
	slow.block(-1) // a byte has come
	slow.block(1)
	if s.admit(server[2]) == nil {
		t.Fatal("no place for a new one")
	}
	if !slow.gone || honest.gone {
		t.Errorf("slow gone %v, honest gone %v", slow.gone, honest.gone)
	}
	if _, err := client[0].Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // as net.Pipe says it
		t.Errorf("the slow one reads: %v", err)
	}
}

// One whose handler works is not closed, though it has waited before; when nobody waits the
// new one is.
func TestWhoWorksIsNotClosed(t *testing.T) {
	server, _ := pipes(t, 4)
	s := newConns(2)
	busy, other := s.admit(server[0]), s.admit(server[1])
	busy.work(true)
	busy.block(1)
	busy.block(-1)
	other.work(true)
	if s.admit(server[2]) != nil {
		t.Fatal("both work, and a third has a place")
	}
	other.work(false)
	if s.admit(server[3]) == nil || busy.gone || !other.gone {
		t.Errorf("busy gone %v, other gone %v", busy.gone, other.gone)
	}
	busy.work(false)
	_ = busy.Close()
	busy.block(1) // net/http may still write
	if s.n != 1 || s.waiting.Len() != 1 {
		t.Errorf("%d open, %d in the list", s.n, s.waiting.Len())
	}
}
