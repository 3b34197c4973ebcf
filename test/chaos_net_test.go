package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// network is the TCP proxies between the services and the brokers, one for each
// broker and listener. Brokers talk to each other directly, and so does the oracle.
type network struct {
	t       *testing.T
	server  *toxiproxy.ApiServer
	mu      sync.Mutex
	proxies map[string][]*toxiproxy.Proxy // by listener
	// addrs are where they listen: a proxy writes its own anew whenever it starts.
	addrs map[string][]string
	n     int
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, proxies: map[string][]*toxiproxy.Proxy{}, addrs: map[string][]string{},
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
	t.Cleanup(func() {
		for _, ps := range n.proxies {
			for _, p := range ps {
				p.Stop()
			}
		}
	})
	return n
}

// advertise is kafkatest's hook: it puts a proxy before a broker's listener.
func (n *network) advertise(broker int, listener, addr string) (string, error) {
	p := toxiproxy.NewProxy(n.server, fmt.Sprint(listener, broker), freeAddr(n.t), addr)
	if err := p.Start(); err != nil {
		return "", err
	}
	n.proxies[listener] = append(n.proxies[listener], p)
	n.addrs[listener] = append(n.addrs[listener], p.Listen)
	return p.Listen, nil
}

// bootstrap is empty where there are no proxies.
func (n *network) bootstrap(listener string) string { return strings.Join(n.addrs[listener], ",") }

// add puts a toxic on all links of a listener, into one direction: "upstream" is
// to the broker. heal takes it away.
func (n *network) add(listener, kind, direction string, attributes map[string]any) (heal func()) {
	n.mu.Lock()
	n.n++
	name := fmt.Sprint("toxic", n.n)
	n.mu.Unlock()
	for _, p := range n.proxies[listener] {
		spec, _ := json.Marshal(map[string]any{"name": name, "type": kind, "stream": direction, "attributes": attributes})
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(string(spec))); err != nil {
			n.t.Errorf("toxic %s: %v", kind, err)
		}
	}
	return func() {
		for _, p := range n.proxies[listener] {
			_ = p.Toxics.RemoveToxic(context.Background(), name)
		}
	}
}

// drop closes all connections of a listener; with down they stay closed until up.
func (n *network) drop(listener string, down bool) (up func()) {
	for _, p := range n.proxies[listener] {
		p.Stop()
	}
	up = func() {
		for _, p := range n.proxies[listener] {
			if err := p.Start(); err != nil {
				n.t.Errorf("proxy %s: %v", p.Name, err)
			}
		}
	}
	if !down {
		up()
	}
	return up
}

// flip changes one byte in some chunks that are large enough to be records:
// those carry a checksum. Small frames of the protocol carry none, which is what
// TLS is for.
type flip struct{}

func (flip) Pipe(s *toxics.ToxicStub) {
	for {
		select {
		case <-s.Interrupt:
			return
		case c := <-s.Input:
			if c == nil {
				s.Close()
				return
			}
			if len(c.Data) > 512 && rand.IntN(20) == 0 {
				c.Data[300+rand.IntN(len(c.Data)-300)] ^= 1 << rand.IntN(8)
			}
			s.Output <- c
		}
	}
}

// hang swallows what a connection carries to the broker from the first Produce
// request for a topic on. It goes with connections made after it.
type hang struct {
	Topic string `json:"topic"`
}

func (h *hang) Pipe(s *toxics.ToxicStub) {
	var request []byte
	hung := false
	for {
		select {
		case <-s.Interrupt:
			return
		case c := <-s.Input:
			if c == nil {
				s.Close()
				return
			}
			request = append(request, c.Data...)
			for len(request) >= 6 && !hung {
				// length, API key, …: the names of topics come before the records
				size := 4 + int(request[0])<<24 + int(request[1])<<16 + int(request[2])<<8 + int(request[3])
				head := request[:min(len(request), size)]
				produce := head[4] == 0 && head[5] == 0
				hung = produce && bytes.Contains(head[:min(len(head), 300)], []byte(h.Topic))
				if len(request) < size {
					break
				}
				request = request[size:]
			}
			if !hung {
				s.Output <- c
			}
		}
	}
}

func init() {
	toxics.Register("flip", new(flip))
	toxics.Register("hang", new(hang))
}
