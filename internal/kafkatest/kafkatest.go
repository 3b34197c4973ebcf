// Package kafkatest runs a real Apache Kafka for tests: one or three brokers in
// KRaft mode, each its own Java process on 127.0.0.1, which can be stopped,
// killed and started again on the same ports and data. It is for tests and
// development only and no service may import it.
//
// It needs Java 17 or newer and Kafka's jars: `make kafka-jars` fetches them.
// Where either is missing Start says so in its error; nothing is skipped.
package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/kafkatest/child"
)

// Version is the Apache Kafka `make kafka-jars` fetches (see pom.xml).
const Version = "4.3.1"

const (
	startTimeout = 3 * time.Minute  // format, start and first answer
	stopGrace    = 15 * time.Second // from SIGTERM to SIGKILL
)

// Options says what to start. The zero value is one broker in a temporary
// directory.
type Options struct {
	// Dir holds configuration and data. What an earlier cluster of as many
	// brokers left there is used again. Empty: a temporary one, removed by Stop.
	Dir string
	// Brokers is 1 or 3; 0 means 1.
	Brokers int
	// Port is the first broker's client port; 0 means any free one.
	Port int
	// Props are added to every broker's server.properties and win.
	Props map[string]string
	// Listeners are further client listeners, by name; Advertise, asked once for
	// each broker (from 0) and listener, returns the address that clients are
	// told instead of the one that the broker listens on: that of a proxy.
	Listeners []string
	Advertise func(broker int, listener, addr string) (string, error)
	// PKI, if not nil, adds the listeners SSL and SASLSSL and switches Kafka's
	// authorizer on. With Dir, it must be the same each time.
	PKI *PKI
	// Log receives what the brokers print (warnings and errors); may be nil.
	Log io.Writer
}

// Cluster is a running Kafka. Its methods are for one goroutine at a time.
type Cluster struct {
	dir     string
	tempDir bool
	java    string
	libs    string
	log     io.Writer
	brokers []*broker
	// replaced counts the clusters that were here before.
	replaced int
}

type broker struct {
	id   int // Kafka's node.id, from 1
	addr string
	dir  string
	proc *child.Process // nil before the first start
	// secured are the addresses of the listeners that Options.PKI adds.
	secured map[string]string

	// further listeners, as server.properties takes them
	listeners, advertised, protocols string
	tail                             *tailWriter // what proc printed last
}

// Start starts the brokers and returns when all of them answer and know each
// other.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if o.Brokers == 0 {
		o.Brokers = 1
	}
	if o.Brokers != 1 && o.Brokers != 3 {
		return nil, fmt.Errorf("kafkatest: %d brokers: want 1 or 3", o.Brokers)
	}
	c := &Cluster{dir: o.Dir}
	if o.Log != nil {
		c.log = &lockedWriter{w: o.Log}
	}
	var err error
	if c.libs, err = findLibs(); err != nil {
		return nil, fmt.Errorf("kafkatest: %w", err)
	}
	if c.java, err = findJava(); err != nil {
		return nil, fmt.Errorf("kafkatest: %w", err)
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "kafkatest-"); err != nil {
			return nil, fmt.Errorf("kafkatest: %w", err)
		}
		c.tempDir = true
	}
	if err := c.start(ctx, o); err != nil {
		c.Stop()
		return nil, fmt.Errorf("kafkatest: %w", err)
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, o Options) error {
	if err := c.configure(o); err != nil {
		return err
	}
	if err := c.format(ctx); err != nil {
		return err
	}
	return c.run(ctx)
}

// run starts all brokers and waits until they know each other.
func (c *Cluster) run(ctx context.Context) error {
	for _, b := range c.brokers {
		if err := c.launch(b); err != nil {
			return err
		}
	}
	for _, b := range c.brokers {
		if err := b.awaitReady(ctx, len(c.brokers)); err != nil {
			return err
		}
	}
	return nil
}

// configure chooses the ports and writes every broker's server.properties.
func (c *Cluster) configure(o Options) error {
	n := o.Brokers
	var voters []string
	var controllers []string
	for i := range n {
		port, err := child.FreePort()
		if err != nil {
			return err
		}
		if i == 0 && o.Port != 0 {
			if port, err = o.Port, child.PortFree(o.Port); err != nil {
				return err
			}
		}
		controllerPort, err := child.FreePort()
		if err != nil {
			return err
		}
		b := &broker{id: i + 1, addr: localAddr(port), dir: filepath.Join(c.dir, fmt.Sprintf("broker-%d", i+1))}
		for _, name := range o.Listeners {
			if err := b.listen(o, i, name); err != nil {
				return err
			}
		}
		c.brokers = append(c.brokers, b)
		controllers = append(controllers, localAddr(controllerPort))
		voters = append(voters, fmt.Sprintf("%d@%s", b.id, controllers[i]))
	}
	for i, b := range c.brokers {
		props := map[string]string{
			"process.roles":                  "broker,controller",
			"node.id":                        strconv.Itoa(b.id),
			"controller.quorum.voters":       strings.Join(voters, ","),
			"controller.listener.names":      "CONTROLLER",
			"inter.broker.listener.name":     "PLAINTEXT",
			"listeners":                      "PLAINTEXT://" + b.addr + ",CONTROLLER://" + controllers[i] + b.listeners,
			"advertised.listeners":           "PLAINTEXT://" + b.addr + b.advertised,
			"listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT" + b.protocols,
			"log.dirs":                       filepath.ToSlash(b.data()),
			"auto.create.topics.enable":      "false",
			// A killed broker may come back only when its old session is over.
			"broker.session.timeout.ms":                        "4000",
			"broker.heartbeat.interval.ms":                     "1000",
			"group.initial.rebalance.delay.ms":                 "0",
			"default.replication.factor":                       strconv.Itoa(n),
			"offsets.topic.num.partitions":                     "4",
			"offsets.topic.replication.factor":                 strconv.Itoa(n),
			"transaction.state.log.num.partitions":             "4",
			"transaction.state.log.replication.factor":         strconv.Itoa(n),
			"transaction.state.log.min.isr":                    strconv.Itoa(min(2, n)),
			"share.coordinator.state.topic.num.partitions":     "1",
			"share.coordinator.state.topic.replication.factor": strconv.Itoa(n),
			"share.coordinator.state.topic.min.isr":            strconv.Itoa(min(2, n)),
		}
		if o.PKI != nil {
			if err := b.secure(o, props); err != nil {
				return err
			}
		}
		for k, v := range o.Props {
			props[k] = v
		}
		lines := make([]string, 0, len(props))
		for k, v := range props {
			lines = append(lines, k+"="+v+"\n")
		}
		sort.Strings(lines)
		if err := os.MkdirAll(b.dir, 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(b.config(), []byte(strings.Join(lines, "")), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// listen adds a listener on a free port.
func (b *broker) listen(o Options, i int, name string) error {
	port, err := child.FreePort()
	if err != nil {
		return err
	}
	advertised, err := o.Advertise(i, name, localAddr(port))
	if err != nil {
		return err
	}
	b.listeners += "," + name + "://" + localAddr(port)
	b.advertised += "," + name + "://" + advertised
	b.protocols += "," + name + ":PLAINTEXT"
	return nil
}

// format prepares the data directories that are new. All brokers of a cluster
// carry the same cluster id.
func (c *Cluster) format(ctx context.Context) error {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	raw[0] &= 0x7f           // the id must not start with "-": it is an argument
	id := base64.RawURLEncoding.EncodeToString(raw[:])
	for _, b := range c.brokers {
		if _, err := os.Stat(filepath.Join(b.data(), "meta.properties")); err == nil {
			continue
		}
		cmd := exec.CommandContext(ctx, c.java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", c.classpath(),
			"kafka.tools.StorageTool", "format", "-t", id, "-c", b.config())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("format the storage of broker %d: %w\n%s", b.id, err, out)
		}
	}
	return nil
}

func (c *Cluster) launch(b *broker) error {
	b.tail = &tailWriter{w: c.log}
	cmd := exec.Command(c.java, "-Xmx512m", "-XX:+UseSerialGC",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-cp", c.classpath(), "kafka.Kafka", b.config())
	cmd.Stdout, cmd.Stderr = b.tail, b.tail
	var err error
	b.proc, err = child.Start(cmd)
	return err
}

// awaitReady waits until the broker answers a metadata request and sees at
// least n brokers, itself among them.
func (b *broker) awaitReady(ctx context.Context, n int) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := b.ready(n)
		if err == nil {
			return nil
		}
		select {
		case <-b.proc.Done():
			return fmt.Errorf("broker %d ended while starting (%w); its log ends:\n%s", b.id, errOrExit(b.proc), b.tail)
		case <-ctx.Done():
			return fmt.Errorf("broker %d at %s is not ready: %w (%w)", b.id, b.addr, err, ctx.Err())
		case <-tick.C:
		}
	}
}

func (b *broker) ready(n int) error {
	conf := sarama.NewConfig()
	conf.Version = sarama.V2_3_0_0
	conf.ClientID = "kafkatest"
	conf.Net.DialTimeout, conf.Net.ReadTimeout, conf.Net.WriteTimeout = time.Second, 2*time.Second, 2*time.Second
	conn := sarama.NewBroker(b.addr)
	if err := conn.Open(conf); err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	meta, err := conn.GetMetadata(&sarama.MetadataRequest{Version: 5, Topics: []string{}})
	if err != nil {
		return err
	}
	self := false
	for _, known := range meta.Brokers {
		self = self || known.Addr() == b.addr
	}
	if !self || len(meta.Brokers) < n {
		return fmt.Errorf("it knows %d of %d brokers", len(meta.Brokers), n)
	}
	return nil
}

// Addrs is the client address of every broker.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.brokers))
	for i, b := range c.brokers {
		addrs[i] = b.addr
	}
	return addrs
}

// Bootstrap is Addrs joined by commas, as clients' settings take them.
func (c *Cluster) Bootstrap() string { return strings.Join(c.Addrs(), ",") }

// PID is the process id of broker i (from 0).
func (c *Cluster) PID(i int) int { return c.brokers[i].proc.PID() }

// Exited is closed when broker i (from 0) has ended.
func (c *Cluster) Exited(i int) <-chan struct{} { return c.brokers[i].proc.Done() }

// Kill ends broker i (from 0) as kill -9 does.
func (c *Cluster) Kill(i int) { c.brokers[i].proc.Kill() }

// Signal sends broker i (from 0) a signal.
func (c *Cluster) Signal(i int, s syscall.Signal) error { return c.brokers[i].proc.Signal(s) }

// StopBroker ends broker i (from 0) in an orderly way, or kills it after a
// deadline.
func (c *Cluster) StopBroker(i int) { c.brokers[i].proc.Stop(stopGrace) }

// Restart starts broker i (from 0) again, on the same port and data, and
// returns when it answers. A broker that runs is stopped first.
func (c *Cluster) Restart(i int) error {
	b := c.brokers[i]
	c.StopBroker(i)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.launch(b); err != nil {
		return fmt.Errorf("kafkatest: %w", err)
	}
	if err := b.awaitReady(ctx, 1); err != nil {
		return fmt.Errorf("kafkatest: %w", err)
	}
	return nil
}

// Replace kills every broker and starts another cluster, which holds nothing, at
// the same addresses. What was there lies in dir, for Options.Dir.
func (c *Cluster) Replace() (dir string, err error) {
	dir = filepath.Join(c.dir, fmt.Sprintf("replaced-%d", c.replaced))
	c.replaced++
	for i, b := range c.brokers {
		c.Kill(i)
		kept := filepath.Join(dir, filepath.Base(b.dir))
		if err := os.MkdirAll(kept, 0o750); err != nil {
			return "", fmt.Errorf("kafkatest: %w", err)
		}
		if err := os.Rename(b.data(), filepath.Join(kept, filepath.Base(b.data()))); err != nil {
			return "", fmt.Errorf("kafkatest: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.format(ctx); err != nil {
		return "", fmt.Errorf("kafkatest: %w", err)
	}
	if err := c.run(ctx); err != nil {
		return "", fmt.Errorf("kafkatest: %w", err)
	}
	return dir, nil
}

// DataDir is where broker i (from 0) keeps its logs.
func (c *Cluster) DataDir(i int) string { return c.brokers[i].data() }

// Stop ends every broker, within a deadline, and removes a temporary directory.
func (c *Cluster) Stop() {
	var wg sync.WaitGroup
	for _, b := range c.brokers {
		if b.proc != nil {
			wg.Go(func() { b.proc.Stop(stopGrace) })
		}
	}
	wg.Wait()
	if c.tempDir {
		_ = os.RemoveAll(c.dir) // a leftover temporary directory harms nobody
	}
}

func (c *Cluster) classpath() string { return filepath.Join(c.libs, "*") }

func (b *broker) data() string { return filepath.Join(b.dir, "data") }

func (b *broker) config() string { return filepath.Join(b.dir, "server.properties") }

func localAddr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// findLibs returns the directory of Kafka's jars.
func findLibs() (string, error) {
	const get = "run `make kafka-jars`, or set KAFKA_LIBS to the directory of a Kafka's jars"
	dir := os.Getenv("KAFKA_LIBS")
	if dir == "" {
		root, err := repositoryRoot()
		if err != nil {
			return "", fmt.Errorf("%w; %s", err, get)
		}
		dir = filepath.Join(root, ".cache", "kafka-"+Version, "libs")
	}
	jars, err := filepath.Glob(filepath.Join(dir, "kafka_2.13-*.jar"))
	if err != nil || len(jars) == 0 {
		return "", fmt.Errorf("no Kafka jars in %s: %s", dir, get)
	}
	return dir, nil
}

// repositoryRoot is the nearest directory above the working directory with a
// go.mod.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return exec.LookPath(filepath.Join(home, "bin", "java"))
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("kafka needs Java 17 or newer on PATH or in JAVA_HOME: %w", err)
	}
	return java, nil
}

func errOrExit(p *child.Process) error {
	if err := p.Err(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// tailWriter keeps the end of what a broker prints, for error messages, and
// passes all of it on.
type tailWriter struct {
	mu   sync.Mutex
	last []byte
	w    io.Writer // may be nil
}

func (t *tailWriter) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-3000):]
	if t.w != nil {
		return t.w.Write(p)
	}
	return len(p), nil
}

func (t *tailWriter) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}

// lockedWriter lets several brokers print to one writer.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
