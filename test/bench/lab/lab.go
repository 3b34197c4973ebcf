// Package lab is what every row of the benchmark works with: a real Kafka, the
// program's own processes on it, ceilings as processes beside them, and clocks
// that see both alike.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/kafkatest"
	"coinbit/internal/kafkatest/child"
	"coinbit/internal/stream"
	"coinbit/test/bench/figure"
)

// Partitions of every topic: the program's default.
const Partitions = 8

// Row is one thing to measure. Run adds its figures to the report.
type Row struct {
	Name  string
	About string
	Run   func(ctx context.Context, l *Lab, r *figure.Report) error
}

// Options of a Lab.
type Options struct {
	Rounds int
	Full   bool
	// Program is the build to measure; empty: one of this tree is made.
	Program string
	// Profiles is a directory for CPU and allocation profiles of the program's
	// processes; empty: none.
	Profiles string
	Progress io.Writer
}

// Lab is one Kafka and what runs on it. It is for one goroutine.
type Lab struct {
	Options
	Bootstrap string

	dir     string
	kafka   *kafkatest.Cluster
	program string
	client  sarama.Client
	admin   sarama.ClusterAdmin
	began   time.Time
	row     string
	filled  map[string]Load // what a topic holds
	running []*Service
	started int
}

// New builds the program and starts Kafka. The caller must Close.
func New(ctx context.Context, o Options) (*Lab, error) {
	l := &Lab{Options: o, began: time.Now(), filled: make(map[string]Load)}
	var err error
	if l.dir, err = os.MkdirTemp("", "coinbit-bench-"); err != nil {
		return nil, err
	}
	if err := l.start(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) error {
	if err := l.build(ctx); err != nil {
		return err
	}
	l.Say("start Apache Kafka %s", kafkatest.Version)
	var err error
	if l.kafka, err = kafkatest.Start(ctx, kafkatest.Options{Dir: filepath.Join(l.dir, "kafka"), Log: l.Progress}); err != nil {
		return err
	}
	l.Bootstrap = l.kafka.Bootstrap()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.ClientID = "bench"
	cfg.Metadata.AllowAutoTopicCreation = false
	if l.client, err = sarama.NewClient(l.kafka.Addrs(), cfg); err != nil {
		return err
	}
	l.admin, err = sarama.NewClusterAdminFromClient(l.client)
	return err
}

// build makes the program as it is shipped, or as ./test/bench/profiled.
func (l *Lab) build(ctx context.Context) error {
	if l.Program != "" {
		var err error
		l.program, err = filepath.Abs(l.Program)
		return err
	}
	l.program = filepath.Join(l.dir, "coinbit")
	source := "./cmd"
	if l.Profiles != "" {
		source = "./test/bench/profiled"
		if err := os.MkdirAll(l.Profiles, 0o755); err != nil {
			return err
		}
	}
	l.Say("build %s", source)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", l.program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program (run this from the repository's root): %w\n%s", err, out)
	}
	return nil
}

// Close ends everything that still runs and removes what was written.
func (l *Lab) Close() {
	for _, s := range l.running {
		s.Stop(15 * time.Second)
	}
	if l.client != nil {
		_ = l.client.Close()
	}
	if l.kafka != nil {
		l.kafka.Stop()
	}
	_ = os.RemoveAll(l.dir) // a leftover temporary directory harms nobody
}

// Measure runs a row.
func (l *Lab) Measure(ctx context.Context, row Row, r *figure.Report) error {
	l.row = row.Name
	l.Say("%s", row.About)
	from := len(r.Figures)
	err := row.Run(ctx, l, r)
	for i := range r.Figures[from:] {
		r.Figures[from+i].Row = row.Name
		l.Say("%s", r.Figures[from+i].Line())
	}
	for i := range r.Series {
		if r.Series[i].Row == "" {
			r.Series[i].Row = row.Name
		}
	}
	l.row = ""
	if err != nil {
		return fmt.Errorf("row %s: %w", row.Name, err)
	}
	return nil
}

// Alternate runs subject and ceiling one after the other, Rounds times.
func (l *Lab) Alternate(subject, ceiling func() error) error {
	for i := range l.Rounds {
		l.Say("round %d of %d", i+1, l.Rounds)
		if err := subject(); err != nil {
			return err
		}
		if err := ceiling(); err != nil {
			return fmt.Errorf("ceiling: %w", err)
		}
	}
	return nil
}

// Size is full, or small when the run is to be small.
func (l *Lab) Size(small, full int) int {
	if l.Full {
		return full
	}
	return small
}

// Say prints a line of progress.
func (l *Lab) Say(format string, args ...any) {
	fmt.Fprintf(l.Progress, "%6.1fs  %-10s %s\n", time.Since(l.began).Seconds(), l.row, fmt.Sprintf(format, args...))
}

// StateDir is a directory for the state of services, by name.
func (l *Lab) StateDir(name string) string { return filepath.Join(l.dir, "state-"+name) }

// Service is a running process of the program or a ceiling.
type Service struct {
	*child.Process
	// Addr serves /metrics and /readyz, and the API; of a ceiling it is empty.
	Addr    string
	Started time.Time
	Name    string

	out, log bytes.Buffer // read only after the end
}

// Start starts a service of the program with its state in StateDir(state).
func (l *Lab) Start(service, state string, env ...string) (*Service, error) {
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Service{Name: service, Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	cmd := exec.Command(l.program, "-service="+service)
	setting := "ADMIN_PORT="
	if service == "api" {
		setting = "PORT="
	}
	if cmd.Env, err = l.env(service); err != nil {
		return nil, err
	}
	cmd.Env = slices.Concat(cmd.Env, []string{"STATE_DIR=" + l.StateDir(state), setting + s.Addr}, env)
	return s, l.launch(s, cmd)
}

// env is what every process of the program is told.
func (l *Lab) env(service string) ([]string, error) {
	l.started++
	profile, err := filepath.Abs(filepath.Join(l.Profiles, fmt.Sprintf("%s-%s-%d", l.row, service, l.started)))
	return append(os.Environ(), "BROKER="+l.Bootstrap, "CPU_PROFILE="+profile+".cpu", "ALLOC_PROFILE="+profile+".allocs"), err
}

// Self starts this very program again, with args, as a process of its own.
func (l *Lab) Self(name string, args ...string) (*Service, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &Service{Name: name}
	return s, l.launch(s, exec.Command(self, args...))
}

// Ceiling starts a process for a ceiling's work.
func (l *Lab) Ceiling(w Work) (*Service, error) {
	w.Brokers = l.kafka.Addrs()
	arg, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	return l.Self(w.Do, "work", string(arg))
}

func (l *Lab) launch(s *Service, cmd *exec.Cmd) error {
	cmd.Dir = l.dir // no config.env there
	cmd.Stdout, cmd.Stderr = &s.out, &s.log
	s.Started = time.Now()
	var err error
	if s.Process, err = child.Start(cmd); err != nil {
		return err
	}
	l.running = append(l.running, s)
	return nil
}

// Stop ends a service with SIGTERM; any exit code but 0 is an error.
func (l *Lab) Stop(s *Service) error {
	s.Stop(15 * time.Second)
	l.running = slices.DeleteFunc(l.running, func(x *Service) bool { return x == s })
	return s.failure()
}

// failure is why the process ended, with the end of its log; nil when it ended well.
func (s *Service) failure() error {
	if err := s.Err(); err != nil {
		log := s.log.String()
		return fmt.Errorf("%s ended: %w\n%s", s.Name, err, log[max(0, len(log)-3000):])
	}
	return nil
}

// Run runs a ceiling's work to its end and returns what it measured.
func (l *Lab) Run(ctx context.Context, w Work) (Result, error) {
	var r Result
	s, err := l.Ceiling(w)
	if err != nil {
		return r, err
	}
	if err := l.finish(ctx, s); err != nil {
		return r, err
	}
	if err := json.Unmarshal(s.out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("%s printed no result: %w", w.Do, err)
	}
	return r, nil
}

// Command runs a command of the program to its end and returns what it printed.
func (l *Lab) Command(ctx context.Context, service string, args ...string) ([]byte, error) {
	s := &Service{Name: service}
	cmd := exec.Command(l.program, append([]string{"-service=" + service}, args...)...)
	env, err := l.env(service)
	if err != nil {
		return nil, err
	}
	cmd.Env = env
	if err := l.launch(s, cmd); err != nil {
		return nil, err
	}
	err = l.finish(ctx, s)
	return s.out.Bytes(), err
}

// finish waits until s ends by itself.
func (l *Lab) finish(ctx context.Context, s *Service) error {
	select {
	case <-s.Done():
	case <-ctx.Done():
		s.Kill()
		return ctx.Err()
	}
	return l.Stop(s)
}

// Reset deletes topics and groups, and makes the program's topics anew. Nothing
// may run that uses them.
func (l *Lab) Reset(ctx context.Context, groups []string, topics ...string) error {
	for _, g := range groups {
		err := eventually(ctx, 20*time.Second, func() error {
			err := l.admin.DeleteConsumerGroup(g)
			if errors.Is(err, sarama.ErrGroupIDNotFound) {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("delete group %s: %w", g, err)
		}
	}
	for _, t := range topics {
		delete(l.filled, t)
		if err := l.admin.DeleteTopic(t); err != nil && !errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s: %w", t, err)
		}
	}
	err := eventually(ctx, 20*time.Second, func() error {
		known, err := l.admin.ListTopics()
		if err != nil {
			return err
		}
		for _, t := range topics {
			if _, ok := known[t]; ok {
				return fmt.Errorf("topic %s is still there", t)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, l.program, "-service=topics")
	cmd.Dir = l.dir
	cmd.Env = append(os.Environ(), "BROKER="+l.Bootstrap,
		"CPU_PROFILE="+os.DevNull, "ALLOC_PROFILE="+os.DevNull)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make topics: %w\n%s", err, out)
	}
	for _, t := range stream.Topics() {
		if t.Copartitioned {
			if err := l.settled(ctx, t.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// settled waits until a new topic has its leaders.
func (l *Lab) settled(ctx context.Context, topic string) error {
	return eventually(ctx, 20*time.Second, func() error {
		if err := l.client.RefreshMetadata(topic); err != nil {
			return err
		}
		_, err := l.End(topic)
		return err
	})
}

// Create makes a topic of Partitions partitions for a ceiling.
func (l *Lab) Create(ctx context.Context, topic string, compacted bool) error {
	policy := "delete"
	if compacted {
		policy = "compact"
	}
	err := l.admin.CreateTopic(topic, &sarama.TopicDetail{
		NumPartitions: Partitions, ReplicationFactor: 1, ConfigEntries: map[string]*string{"cleanup.policy": &policy},
	}, false)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return l.settled(ctx, topic)
}

// End is the sum of the high watermarks of a topic's partitions.
func (l *Lab) End(topic string) (int64, error) {
	leader, err := l.client.Leader(topic, 0)
	if err != nil {
		return 0, err
	}
	req := &sarama.OffsetRequest{Version: 1}
	for p := range int32(Partitions) {
		req.AddBlock(topic, p, sarama.OffsetNewest, 1)
	}
	res, err := leader.GetAvailableOffsets(req)
	if err != nil {
		return 0, err
	}
	var sum int64
	for p := range int32(Partitions) {
		b := res.GetBlock(topic, p)
		if b == nil {
			return 0, fmt.Errorf("no end of %s/%d", topic, p)
		}
		if !errors.Is(b.Err, sarama.ErrNoError) {
			return 0, b.Err
		}
		sum += b.Offset
	}
	return sum, nil
}

// Committed is the sum of a group's committed offsets on a topic.
func (l *Lab) Committed(group, topic string) (int64, error) {
	all := make([]int32, Partitions)
	for i := range all {
		all[i] = int32(i)
	}
	res, err := l.admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: all})
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, b := range res.Blocks[topic] {
		sum += max(0, b.Offset)
	}
	return sum, nil
}

// Fill makes topic hold a load, unless it does already. Groups and topics are
// what was made from an earlier one.
func (l *Lab) Fill(ctx context.Context, topic string, load Load, groups []string, topics ...string) error {
	if l.filled[topic] == load {
		return nil
	}
	if err := l.Reset(ctx, groups, append(topics, topic)...); err != nil {
		return err
	}
	l.Say("fill %s with %d records of %d wallets", topic, load.Records, load.Wallets)
	r, err := l.Run(ctx, Work{Do: Produce, To: topic, Load: load})
	if err != nil {
		return err
	}
	l.Say("filled at %.0f records/s", r.PerSecond())
	l.filled[topic] = load
	return nil
}

// Holds tells whether a topic was noted to hold what a load makes.
func (l *Lab) Holds(topic string, load Load) bool { return l.filled[topic] == load }

// Note that a topic holds what a load makes; Reset forgets it.
func (l *Lab) Note(topic string, load Load) { l.filled[topic] = load }

// Eventually asks again and again until it is told nil: at most for limit, and no
// longer than s runs.
func (s *Service) Eventually(ctx context.Context, limit time.Duration, ask func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	err := eventually(ctx, limit, ask)
	if err != nil && !s.Running() {
		return fmt.Errorf("%s ended too soon: %w", s.Name, errors.Join(s.failure(), err))
	}
	return err
}

// eventually asks again and again until it is told nil, at most for limit.
func eventually(ctx context.Context, limit time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		}
	}
}

// Drain is the progress of a process that works off a backlog.
type Drain struct {
	Records int64 // within Took
	Took    time.Duration
	CPU     time.Duration // of the process, within Took
	Broker  time.Duration // CPU of Kafka, within Took
	Startup time.Duration // from the process's start to its first record
}

// PerSecond is records/s.
func (d Drain) PerSecond() float64 { return float64(d.Records) / d.Took.Seconds() }

// Micros is a share of d for one record, in µs.
func (d Drain) Micros(of time.Duration) float64 {
	return float64(of.Microseconds()) / float64(d.Records)
}

// reading is what the clocks show at one moment.
type reading struct {
	at              time.Time
	done            int64
	process, broker time.Duration
}

func (l *Lab) read(s *Service, done int64) (reading, error) {
	process, err := cpu(s.PID())
	if err != nil {
		return reading{}, err
	}
	broker, err := cpu(l.kafka.PID(0))
	return reading{time.Now(), done, process, broker}, err
}

// Used is the CPU time that a process and Kafka take while do runs.
func (l *Lab) Used(s *Service, do func() error) (process, broker time.Duration, err error) {
	before, err := l.read(s, 0)
	if err != nil {
		return 0, 0, err
	}
	if err := do(); err != nil {
		return 0, 0, err
	}
	after, err := l.read(s, 0)
	return after.process - before.process, after.broker - before.broker, err
}

// Watch follows how many records a process is through with, from the first one
// until there are so many. It asks done each pause.
func (l *Lab) Watch(ctx context.Context, s *Service, pause time.Duration, records int64, done func() (int64, error)) (Drain, error) {
	var d Drain
	var first reading
	said := time.Now()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		n, err := done()
		if err != nil {
			return d, err
		}
		if n > 0 && first.done == 0 {
			if first, err = l.read(s, n); err != nil {
				return d, err
			}
		}
		if n >= records {
			last, err := l.read(s, n)
			return Drain{
				Records: last.done - first.done, Took: last.at.Sub(first.at), CPU: last.process - first.process,
				Broker: last.broker - first.broker, Startup: first.at.Sub(s.Started),
			}, err
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			l.Say("%s: %d of %d", s.Name, n, records)
		}
		select {
		case <-tick.C:
		case <-s.Done():
			return d, fmt.Errorf("%s ended at %d of %d: %w", s.Name, n, records, s.failure())
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
}

// Describe says what the figures are measured on.
func (l *Lab) Describe() []string {
	size := "small"
	if l.Full {
		size = "full"
	}
	lines := []string{fmt.Sprintf("Apache Kafka %s, one broker, on the same machine; %d partitions; size %s; %d rounds", kafkatest.Version, Partitions, size, l.Rounds)}
	return append(lines, machine())
}

func firstLine(file, prefix string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(strings.TrimLeft(strings.TrimPrefix(line, prefix), " \t:"))
		}
	}
	return ""
}
