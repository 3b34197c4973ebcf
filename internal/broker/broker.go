// Package broker is the embedded development broker: kfake, which speaks the
// Kafka protocol, with its log on disk and each batch synced. It is one node
// and no replacement for Apache Kafka; it lets a newcomer start with one command.
package broker

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"

	"coinbit/internal/folder"
)

// ErrTaken says that something else listens on the address.
var ErrTaken = errors.New("cannot listen")

// Broker is a running embedded broker.
type Broker struct {
	cluster *kfake.Cluster
	lock    *flock.Flock
	addr    string
}

// Start opens the log in dir and listens on addr, host:port. It wraps ErrTaken
// when it cannot listen. Topics are never created by themselves: kfake forgets
// such a topic when it is killed.
func Start(ctx context.Context, dir, addr string) (*Broker, error) {
	return begin(ctx, dir, addr, newGate)
}

func begin(ctx context.Context, dir, addr string, gated func(net.Listener) *gate) (*Broker, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w on %s: %w", ErrTaken, addr, err)
	}
	log, err := folder.Own(dir, "log")
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("DATA_DIR: %w", err)
	}
	lock := flock.New(filepath.Join(log, "LOCK"))
	if ok, err := lock.TryLock(); err != nil || !ok {
		_ = ln.Close()
		return nil, fmt.Errorf("DATA_DIR: %s is in use by another broker: %w", dir, errors.Join(err, os.ErrExist))
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // crypto/rand never fails
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return gated(ln), nil }),
		kfake.DataDir(log),
		kfake.SyncWrites(),
		// For a new log; an existing one keeps the id it was made with.
		kfake.ClusterID(base64.RawURLEncoding.EncodeToString(id)),
	)
	if err != nil {
		_ = ln.Close()
		_ = lock.Close()
		return nil, fmt.Errorf("DATA_DIR: open %s: %w", dir, err)
	}
	return &Broker{cluster: cluster, lock: lock, addr: ln.Addr().String()}, nil
}

// Addr is where it listens.
func (b *Broker) Addr() string { return b.addr }

// Close syncs the log and stops.
func (b *Broker) Close() {
	b.cluster.Close()
	_ = b.lock.Close()
}
