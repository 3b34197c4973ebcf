package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"coinbit/internal/kafkatest"
	"coinbit/internal/kafkatest/child"
)

// cluster is the Kafka under test: brokers, from 0, that come back where they
// were and with what they held.
type cluster interface {
	Addrs() []string
	Bootstrap() string
	Kill(i int)
	StopBroker(i int)
	Restart(i int) error
	Signal(i int, s syscall.Signal) error
	DataDir(i int) string
	Stop()
	// replace kills all brokers and starts another cluster at their addresses. What
	// was there answers at addresses of its own, until it is stopped.
	replace() (earlier cluster, err error)
}

// apache is Apache Kafka.
type apache struct{ *kafkatest.Cluster }

func (a apache) replace() (cluster, error) {
	dir, err := a.Replace()
	if err != nil {
		return nil, err
	}
	earlier, err := kafkatest.Start(context.Background(), kafkatest.Options{Dir: dir, Brokers: len(a.Addrs())})
	return apache{earlier}, err
}

// embeddedBroker is the program's own broker as a process.
type embeddedBroker struct {
	addr, dir string
	replaced  int
	log       *output
	proc      *child.Process
}

func startEmbedded(addr, dir string) (*embeddedBroker, error) {
	b := &embeddedBroker{addr: addr, dir: dir, log: &output{}}
	return b, b.Restart(0)
}

func (b *embeddedBroker) Addrs() []string                        { return []string{b.addr} }
func (b *embeddedBroker) Bootstrap() string                      { return b.addr }
func (b *embeddedBroker) Kill(int)                               { b.proc.Kill() }
func (b *embeddedBroker) StopBroker(int)                         { b.proc.Stop(15 * s) }
func (b *embeddedBroker) Signal(_ int, sig syscall.Signal) error { return b.proc.Signal(sig) }
func (b *embeddedBroker) DataDir(int) string                     { return b.dir }

func (b *embeddedBroker) Stop() {
	if b.proc != nil {
		b.StopBroker(0)
	}
}

// Restart returns when the broker answers. One that runs is stopped first.
func (b *embeddedBroker) Restart(int) error {
	b.Stop()
	if err := os.MkdirAll(b.dir, 0o750); err != nil {
		return err
	}
	cmd := exec.Command(binary, "-service=kafka")
	cmd.Dir = b.dir // no config.env there
	cmd.Env = slices.Concat(environ(), ownSettings, []string{"BROKER=" + b.addr, "DATA_DIR=" + b.dir})
	cmd.Stdout, cmd.Stderr = b.log, b.log
	var err error
	if b.proc, err = child.Start(cmd); err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	if !eventually(30*s, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), s)
		defer cancel()
		err = cl.Ping(ctx)
		return err == nil || !b.proc.Running()
	}) || err != nil {
		return fmt.Errorf("the embedded broker does not answer: %w\n%s", err, b.log.tail(3))
	}
	return nil
}

func (b *embeddedBroker) replace() (cluster, error) {
	b.Kill(0)
	b.replaced++
	kept := fmt.Sprintf("%s.replaced-%d", b.dir, b.replaced)
	if err := errors.Join(os.Rename(b.dir, kept), b.Restart(0)); err != nil {
		return nil, err
	}
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	return startEmbedded(fmt.Sprint("127.0.0.1:", port), kept)
}

// startCluster starts what BROKERS names. Apache Kafka gets listeners behind the
// proxies of net; the embedded broker has one listener and none before it.
func startCluster(t *testing.T, brokers string, net *network) cluster {
	t.Helper()
	var k cluster
	var err error
	switch brokers {
	case "embedded":
		k, err = startEmbedded(freeAddr(t), t.TempDir()+"/log")
	default:
		var a *kafkatest.Cluster
		a, err = kafkatest.Start(context.Background(), kafkatest.Options{
			Dir: t.TempDir(), Brokers: int(brokers[0] - '0'), Listeners: []string{"FIRST", "SECOND"}, Advertise: net.advertise,
			Props: map[string]string{ // aggressive compaction: what is not newest goes within seconds
				"log.roll.ms": "4000", "log.cleaner.min.cleanable.ratio": "0.01", "log.cleaner.backoff.ms": "500",
				"log.cleaner.delete.retention.ms": "500", "offsets.topic.segment.bytes": "1048576",
				"group.min.session.timeout.ms": "6000",
				// how often it looks whose producer id to forget; how long it remembers is a fault's to say
				"producer.id.expiration.check.interval.ms": "300",
			},
		})
		k = apache{a}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Stop)
	return k
}

// era is what was judged by another log than the present: that of a cluster, or
// of a topic, that is gone.
type era struct {
	log        []*kgo.Record
	partitions int32
}

// newEra begins one. change returns the log that is gone, and has the present one
// ready with so many partitions.
func (c *chaos) newEra(partitions int32, change func() ([]*kgo.Record, error)) {
	c.followed()
	log, err := change()
	if err != nil {
		c.t.Error(err)
	}
	c.eras = append(c.eras, era{log, c.partitions})
	c.partitions, c.from, c.lettersPurged = partitions, nil, map[string]bool{}
	c.follow()
}

// otherCount is another number of partitions than the present.
func (c *chaos) otherCount() int32 {
	if c.partitions == firstPartitions {
		return firstPartitions - 3
	}
	return firstPartitions
}

// topics lets an admin make all topics, with so many partitions.
func (c *chaos) topics(partitions int32) error {
	var text string
	if eventually(60*s, func() bool {
		var ok bool
		text, ok = c.f.command([]string{fmt.Sprint("PARTITIONS=", partitions)}, "-service=topics")
		return ok
	}) {
		return nil
	}
	return fmt.Errorf("-service=topics: %s", text)
}

// replaceAndRead replaces the cluster and returns the log of the one that is gone.
func (c *chaos) replaceAndRead() ([]*kgo.Record, error) {
	earlier, err := c.kafka.replace()
	if err != nil {
		return nil, err
	}
	defer earlier.Stop()
	return newOracle(c.t, earlier.Addrs()).read("deposit", c.from)
}

// replaced puts another cluster at the same addresses, under load. Who runs makes
// the topics anew.
func replaced(c *chaos, _ []string, _ *rand.Rand, _ time.Duration) {
	survive := c.mustSurvive("api", "api-2")
	c.newEra(firstPartitions, c.replaceAndRead)
	c.goesOn("another cluster is at the same address")
	survive()
}

// replacedOther is replaced, and the topics are there with another number of
// partitions before any service, all asleep meanwhile, looks.
func replacedOther(c *chaos, _ []string, _ *rand.Rand, _ time.Duration) {
	survive := c.mustSurvive("api", "api-2")
	other := c.otherCount()
	c.signal(syscall.SIGSTOP, instances()...)
	c.newEra(other, func() ([]*kgo.Record, error) {
		log, err := c.replaceAndRead()
		return log, errors.Join(err, c.topics(other))
	})
	c.signal(syscall.SIGCONT, instances()...)
	c.goesOn("another cluster is at the same address")
	survive()
}

// madeAnew deletes all topics, and the groups' offsets with them, and makes them
// anew. The APIs run on; the clients wait while it is done, so that each answer is
// about one log.
func madeAnew(other bool) func(*chaos, []string, *rand.Rand, time.Duration) {
	return func(c *chaos, _ []string, _ *rand.Rand, _ time.Duration) {
		partitions := c.partitions
		if other {
			partitions = c.otherCount()
		}
		survive := c.mustSurvive("api", "api-2")
		c.newEra(partitions, func() ([]*kgo.Record, error) {
			defer c.ledger.hold()()
			log, err := c.oracle.read("deposit", c.from)
			for _, name := range instances() {
				if !strings.HasPrefix(name, "api") {
					c.term(name)
				}
			}
			if other { // or the APIs would make them as they are told to
				c.signal(syscall.SIGSTOP, "api", "api-2")
				defer c.signal(syscall.SIGCONT, "api", "api-2")
			}
			return log, errors.Join(err, c.deleteAll(), c.topics(partitions))
		})
		c.goesOn("all topics are made anew")
		survive()
	}
}

// deleteAll deletes all topics and groups. The topics go first, and the offsets in them with
// them: the embedded broker does not write down that a group was deleted, and after a
// restart the group has its offsets again.
func (c *chaos) deleteAll() (err error) {
	if eventually(60*s, func() bool {
		ctx, cancel := c.oracle.ctx()
		defer cancel()
		topics, topicsErr := c.oracle.admin.ListTopics(ctx)
		deleted, deleteErr := c.oracle.admin.DeleteTopics(ctx, topics.TopicsSet().Topics()...)
		groups, groupsErr := c.oracle.admin.DeleteGroups(ctx, pairs[1:]...)
		left, leftErr := c.oracle.admin.ListTopics(ctx)
		_ = groups.Error() // who is not there need not be deleted, and who is still in has to leave first
		err = errors.Join(groupsErr, topicsErr, deleteErr, leftErr, deleted.Error())
		if groups, groupErr := c.oracle.admin.ListGroups(ctx); err == nil && (groupErr != nil || len(groups) > 0 || len(left) > 0) {
			err = fmt.Errorf("groups %v and topics %v are still there (%w)", groups.Groups(), left.Names(), groupErr)
		}
		return err == nil
	}) {
		return nil
	}
	return err
}

// partitionsAdded gives deposit one partition more. The wallets stay where they
// are, also for who starts then.
func partitionsAdded(c *chaos, on []string, r *rand.Rand, _ time.Duration) {
	ctx, cancel := c.oracle.ctx()
	defer cancel()
	added, err := c.oracle.admin.CreatePartitions(ctx, 1, "deposit")
	if err = errors.Join(err, added.Error()); err != nil {
		c.t.Errorf("add a partition: %v", err)
	}
	c.goesOn("deposit has a partition more")
	for _, name := range slices.Concat(one("api", "api-2")(c, r), anyGroup(c, r)) {
		c.f.kill9(name)
	}
	c.goesOn("deposit has a partition more and services started then")
}

// mustSurvive is for services that no fault ends now: the returned function
// complains of those that have ended since.
func (c *chaos) mustSurvive(names ...string) (check func()) {
	var procs []*child.Process
	for _, name := range names {
		procs = append(procs, c.f.proc(name))
	}
	return func() {
		for i, name := range names {
			if !procs[i].Running() {
				c.t.Errorf("%s ended, exit code %d:\n%s", name, procs[i].ExitCode(), c.f.logs[name].tail(15))
			}
		}
	}
}

// goesOn expects that all are ready, and that a deposit through each API is
// acknowledged and shown.
func (c *chaos) goesOn(after string) {
	if c.allReady(after) {
		for i := range c.apis {
			c.counts(i, after)
		}
	}
}

// allReady waits until everything is ready. What has ended is started again, as a
// supervisor does.
func (c *chaos) allReady(after string) bool {
	last := ""
	ok := eventually(90*s, func() bool {
		c.up(instances()...)
		for _, name := range instances() {
			if ok, body := c.f.ready(name); !ok {
				last = fmt.Sprintf("%s: %s\n%s", name, body, c.f.logs[name].tail(3))
				pause(300 * ms)
				return false
			}
		}
		return true
	})
	if !ok {
		c.t.Errorf("not all are ready 90 s after %s: %s", after, last)
	}
	return ok
}

// counts expects that a deposit through an API is acknowledged and shown.
func (c *chaos) counts(api int, after string) {
	wallet, last := c.ledger.wallets[api], ""
	if !eventually(30*s, func() bool {
		a := c.ledger.single(c.apis[api], &entry{wallet: wallet, nanos: c.ledger.nanos(1)})
		if last = a.detail; a.verdict != acked {
			return false
		}
		return eventually(10*s, func() bool { return c.ledger.look(c.apis[api], wallet, a.position) })
	}) {
		c.t.Errorf("no deposit through %s is acknowledged and shown 30 s after %s: %s", c.apis[api].base, after, last)
	}
}
