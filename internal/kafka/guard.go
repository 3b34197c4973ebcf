package kafka

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// guard is a connection of a client of one cluster. Before it carries the first
// request that does anything, it asks the broker at its other end for the cluster and
// the topics; if they are not what they were, nothing is sent.
//
// An address may lead to another cluster each time that it is dialled, and sarama
// dials by itself. Requests name topics, not their ids, and a producer id is a number
// that another cluster gives too. So this cannot be asked beforehand over another
// connection: it is asked on the one that is used.
type guard struct {
	net.Conn
	client  *Client
	timeout time.Duration // of a write
	checked bool          // by the one who writes; sarama has one at a time
}

// Write is given a request, or what follows of one. sarama waits for the answers to
// what comes before the first check, so none is on its way then.
func (g *guard) Write(p []byte) (int, error) {
	if !g.checked && !preliminary(p) {
		if err := g.check(); err != nil {
			_ = g.Close()
			return 0, notAppended(err)
		}
		g.checked = true
		_ = g.SetWriteDeadline(time.Now().Add(g.timeout)) // check had its own
	}
	return g.Conn.Write(p)
}

// preliminary tells whether a request only makes the connection: it asks for the
// versions, or authenticates. Nothing else is allowed before.
func preliminary(request []byte) bool {
	switch requestKey(request) {
	case saslHandshake, apiVersions, saslAuthenticate:
		return true
	}
	return false
}

// Kafka's numbers for what makes a connection.
const saslHandshake, apiVersions, saslAuthenticate = 17, 18, 36

// requestKey is Kafka's number for what a request is, -1 for what is too short for one.
func requestKey(request []byte) int {
	if len(request) < 8 { // length, key, version
		return -1
	}
	return int(binary.BigEndian.Uint16(request[4:]))
}

func (g *guard) check() error {
	cfg := sarama.NewConfig()
	cfg.Version = g.client.base("").Version
	cfg.ApiVersionsRequest = false
	cfg.Net.ReadTimeout, cfg.Net.WriteTimeout = dialTimeout, dialTimeout
	cfg.Net.Proxy.Enable, cfg.Net.Proxy.Dialer = true, lent{g.Conn}
	broker := sarama.NewBroker(g.RemoteAddr().String())
	if err := broker.Open(cfg); err != nil {
		return err
	}
	meta, err := broker.GetMetadata(sarama.NewMetadataRequest(cfg.Version, g.client.followed()))
	if closed := broker.Close(); err == nil && !errors.Is(closed, sarama.ErrNotConnected) {
		err = closed
	}
	if err != nil {
		return err
	}
	return g.client.cluster.check(meta)
}

// lent is a connection in the hands of a sarama.Broker that must not close it.
type lent struct{ net.Conn }

func (lent) Close() error                            { return nil }
func (l lent) Dial(string, string) (net.Conn, error) { return l, nil }

// dialer makes the connections of one configuration of sarama's: with TLS, with the
// password that is in force and, for a client of one cluster, guarded. It is not left to
// sarama because that would use for ever what it was given at the start, and because TLS
// must be below a guard, which reads what is sent.
type dialer struct {
	client *Client
	cfg    *sarama.Config
}

func (d dialer) Dial(network, addr string) (conn net.Conn, err error) {
	plain := &net.Dialer{Timeout: d.cfg.Net.DialTimeout, KeepAlive: d.cfg.Net.KeepAlive}
	if secure := d.client.credentials.tls(); secure != nil {
		conn, err = tls.DialWithDialer(plain, network, addr, secure)
	} else {
		conn, err = plain.Dial(network, addr)
	}
	if err != nil {
		return nil, err
	}
	conn = &hasty{Conn: conn, within: d.cfg.Net.DialTimeout}
	if sasl := d.cfg.Net.SASL; sasl.Enable && sasl.Mechanism == sarama.SASLTypePlaintext {
		conn = &plainConn{conn, sasl.User, sasl.Password, d.client.password}
	}
	if d.client.cluster != nil {
		conn = &guard{Conn: conn, client: d.client, timeout: d.cfg.Net.WriteTimeout}
	}
	return conn, nil
}

// hasty is a connection on which what makes it must be answered as soon as the dialling:
// versions and authentication take a broker no time. sarama gives each of them half a
// minute, asks for the versions twice, and connects several times, so that a Kafka that
// hangs held for minutes whoever began with it.
type hasty struct {
	net.Conn
	within time.Duration
	made   atomic.Bool // another request has been sent
}

func (h *hasty) Write(request []byte) (int, error) {
	if !preliminary(request) {
		h.made.Store(true)
	}
	return h.Conn.Write(request)
}

func (h *hasty) SetReadDeadline(t time.Time) error {
	if soon := time.Now().Add(h.within); !h.made.Load() && t.After(soon) {
		t = soon
	}
	return h.Conn.SetReadDeadline(t)
}

func (h *hasty) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if late := net.Error(nil); !h.made.Load() && errors.As(err, &late) && late.Timeout() {
		_ = h.Close()
		err = silence{err}
	}
	return n, err
}

// silence is a timeout that sarama takes for what it is here, the end of the connection.
type silence struct{ error }

func (s silence) Unwrap() error      { return s.error }
func (silence) Is(target error) bool { return target == net.ErrClosed }
