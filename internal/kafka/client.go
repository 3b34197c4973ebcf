// Package kafka is the plumbing between Goka and Kafka: client configurations,
// topics, the producer, ordered marks and dead letters. It knows nothing of
// wallets, and nothing outside it builds a sarama.Config.
package kafka

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/rcrowley/go-metrics"
)

// sarama measures every request for a registry that nobody reads.
func init() { metrics.UseNilMetrics = true }

// ErrUnreachable says that no broker answered; it is worth waiting and trying again.
var ErrUnreachable = errors.New("kafka is not reachable")

// Settings say how to reach the cluster.
type Settings struct {
	// Brokers are the bootstrap servers, host:port each.
	Brokers []string
	// TLSCA, TLSCert and TLSKey are PEM files; TLS is used when any is set.
	TLSCA, TLSCert, TLSKey string
	// SASLMechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty: none.
	SASLMechanism, SASLUser, SASLPassword string
	// SASLPasswordFile holds the password, in SASLPassword's place.
	SASLPasswordFile string
}

// Client makes the configuration of every Kafka client the program opens.
type Client struct {
	settings    Settings
	credentials credentials
	log         *slog.Logger
	said        *sync.Map // what once has said, as keys
	// cluster is the one that this client is for, see In; nil: whichever answers.
	cluster *Cluster
}

// NewClient reads the files that s names. Errors name the setting at fault.
func NewClient(s Settings, log *slog.Logger) (*Client, error) {
	credentials, err := newCredentials(s, log)
	if err != nil {
		return nil, err
	}
	return &Client{settings: s, credentials: credentials, log: log, said: new(sync.Map)}, nil
}

// password is the one that is in force.
func (c *Client) password() string {
	if c.credentials.password != nil {
		return c.credentials.password.now()
	}
	return c.settings.SASLPassword
}

// Brokers are the bootstrap servers.
func (c *Client) Brokers() []string { return c.settings.Brokers }

// Timeouts of every client. A broker restart takes seconds, so a writer
// sends a batch again for half a minute and more before it gives up, see repeatFor for the
// most; a probe answers quickly.
const (
	dialTimeout = 3 * time.Second
	// metadataTimeout is for all brokers and repeats together.
	metadataTimeout = 6 * time.Second
	retryBackoff    = 250 * time.Millisecond
	retries         = 120
	// sessionTimeout is how long a group waits for a member that was killed.
	sessionTimeout = 10 * time.Second
)

// base is what all clients share. Each call makes a new one: Goka's builders
// change the configuration they are given.
func (c *Client) base(clientID string) *sarama.Config {
	cfg := sarama.NewConfig()
	cfg.ClientID = clientID
	cfg.Version = sarama.V2_8_0_0 // the oldest with topic ids, which tell a re-created topic
	cfg.Metadata.AllowAutoTopicCreation = false
	cfg.Metadata.Retry.Max = 3
	cfg.Metadata.Retry.Backoff = retryBackoff
	cfg.Metadata.Timeout = metadataTimeout
	cfg.Net.DialTimeout = dialTimeout
	cfg.Net.Proxy.Enable = true // which sarama calls every dialer of another's
	if m := c.settings.SASLMechanism; m != "" {
		if m == sarama.SASLTypePlaintext && !c.credentials.usesTLS() {
			c.once(slog.LevelWarn, "KAFKA_SASL_MECHANISM=PLAIN without KAFKA_TLS_CA sends the password over the network as it is: "+
				"use TLS, or at least SCRAM-SHA-512")
		}
		cfg.Net.SASL.Enable = true
		cfg.Net.SASL.Mechanism = sarama.SASLMechanism(m)
		cfg.Net.SASL.User = c.settings.SASLUser
		cfg.Net.SASL.Password = c.password()
		cfg.Net.SASL.SCRAMClientGeneratorFunc = scramClient(m, c.password)
	}
	cfg.Net.Proxy.Dialer = dialer{c, cfg}
	return cfg
}

// groupConfig starts at the oldest deposit: one made before the group's first
// start counts. A committed offset that the log does not have is an error, as
// skipping to either end would lose or invent money.
func (c *Client) groupConfig(clientID string) *sarama.Config {
	cfg := c.base(clientID)
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	cfg.Consumer.Offsets.AutoCommit.Interval = time.Second
	cfg.Consumer.IsolationLevel = sarama.ReadCommitted // what a transaction of another producer took back was never there
	cfg.Consumer.Group.ResetInvalidOffsets = false
	cfg.Consumer.Group.Session.Timeout = sessionTimeout
	cfg.Consumer.Group.Heartbeat.Interval = sessionTimeout / 4
	cfg.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy{goka.CopartitioningStrategy, c}}
	// The broker holds a join until all members have come, at most so long. It must be less
	// than a connection waits for its answer: else who joins gives up, comes again as another
	// member that is waited for in its turn, and the group never meets.
	cfg.Consumer.Group.Rebalance.Timeout = sessionTimeout * 3 / 2
	cfg.Consumer.Group.Rebalance.Retry.Backoff = 500 * time.Millisecond
	cfg.Consumer.Return.Errors = true
	cfg.Consumer.Retry.Backoff = 500 * time.Millisecond
	cfg.ChannelBufferSize = 1024
	return cfg
}

// readerConfig is for table recovery, views and scans.
func (c *Client) readerConfig(clientID string) *sarama.Config {
	cfg := c.base(clientID)
	cfg.Consumer.IsolationLevel = sarama.ReadCommitted
	cfg.Consumer.Return.Errors = true
	cfg.Consumer.Retry.Backoff = 500 * time.Millisecond
	// At the end of its table a recovery waits for the fetch that is open.
	cfg.Consumer.MaxWaitTime = 100 * time.Millisecond
	cfg.ChannelBufferSize = 1024
	return cfg
}

// Reader builds the consumers that read tables.
func (c *Client) Reader(brokers []string, clientID string) (sarama.Consumer, error) {
	reader, err := sarama.NewConsumer(brokers, c.readerConfig(clientID))
	if err != nil {
		return nil, c.unreachable(err)
	}
	return reader, nil
}

// TopicManager builds what Goka asks about topics. It never creates one: Ensure does.
func (c *Client) TopicManager(brokers []string) (goka.TopicManager, error) {
	tm, err := goka.NewTopicManager(brokers, c.base("coinbit-topics"), goka.NewTopicManagerConfig())
	if err != nil {
		return nil, c.unreachable(err)
	}
	return topicManager{tm, c}, nil
}

// topicManager leaves topics to Ensure. Goka's would also read their
// configuration, which takes a right of its own.
type topicManager struct {
	goka.TopicManager
	client *Client
}

func (topicManager) EnsureTableExists(string, int) error  { return nil }
func (topicManager) EnsureStreamExists(string, int) error { return nil }

func (m topicManager) Partitions(topic string) ([]int32, error) {
	partitions, err := m.TopicManager.Partitions(topic)
	return m.client.inUse(topic, partitions), err
}

// Probe answers nil when a broker answers a metadata request within about
// dialTimeout, else an error that wraps ErrUnreachable.
func (c *Client) Probe(ctx context.Context) error {
	cfg := c.probeConfig()
	_, err := await(ctx, func() (struct{}, error) {
		client, err := sarama.NewClient(c.settings.Brokers, cfg)
		if err != nil {
			return struct{}{}, c.unreachable(err)
		}
		return struct{}{}, client.Close()
	})
	return err
}

// probeConfig gives up soon.
func (c *Client) probeConfig() *sarama.Config {
	cfg := c.base("coinbit-probe")
	cfg.Metadata.Retry.Max = 0
	cfg.Net.DialTimeout, cfg.Net.ReadTimeout, cfg.Net.WriteTimeout = 2*time.Second, 2*time.Second, 2*time.Second
	return cfg
}

// await runs f, which has no context of its own, and stops waiting when ctx is
// done; f ends by the timeouts of its configuration.
func await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
