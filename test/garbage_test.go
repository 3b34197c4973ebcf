//go:build kafka

package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// garbage is one record that must be set aside.
type garbage struct {
	kind  string
	key   string // empty for none
	value []byte // empty for an empty one
	null  bool   // no value at all
	wrong bool   // onto a partition that is not the key's
}

// TestGarbage puts what no service of ours would write straight onto the input
// topics. Each record must end on the dead letter topic, unchanged, and nothing
// else may suffer.
func TestGarbage(t *testing.T) {
	f := newFleet(t, bootstrap)
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	log := newLog(t, bootstrap)
	c := newClient(t, f.addr["api"])
	wallet := "garbage-" + runID
	const before = 100
	c.await(t, wallet, c.mustPost(t, wallet, strconv.Itoa(before)), state{before * nano, false})

	long := strings.Repeat("k", 4000)
	for _, topic := range []string{"deposit", "flag_wallet"} {
		t.Run(topic, func(t *testing.T) {
			records := []garbage{
				{kind: "random bytes", key: wallet, value: randomBytes(300)},
				{kind: "empty value", key: wallet},
				{kind: "null value", key: wallet, null: true},
				{kind: "missing key", value: message(t, topic, wallet, 7)},
				{kind: "key __offset", key: "__offset", value: message(t, topic, "__offset", 7)},
				{kind: "key of 4000 bytes", key: long, value: message(t, topic, long, 7)},
				{kind: "impossible amount", key: wallet, value: deposit(t, wallet, -7)},
				{kind: "key and message differ", key: wallet, value: message(t, topic, wallet+"-other", 7)},
				{kind: "wrong partition", key: wallet, value: message(t, topic, wallet, 7), wrong: true},
			}
			input, dead := log.ends(topic), log.ends(topic+"_dead_letter")
			for _, g := range records {
				kcat(t, topic, g, int32(len(input)))
			}
			sources := byKind(log.read(topic, input))
			var letters map[string]*sarama.ConsumerMessage
			eventually(30*time.Second, func() bool {
				letters = byKind(log.read(topic+"_dead_letter", dead))
				return len(letters) == len(records)
			})
			for _, g := range records {
				if sources[g.kind] == nil {
					t.Fatalf("%s: kcat did not store it", g.kind)
				}
				wantLetter(t, g, sources[g.kind], letters[g.kind])
			}
		})
	}

	for _, name := range services {
		if ok, body := f.ready(name); !ok {
			t.Errorf("%s is not ready any more: %s", name, body)
		}
	}
	position := c.mustPost(t, wallet, "0.5")
	c.await(t, wallet, position, state{before*nano + nano/2, false})
}

// message is a message of topic that would be in order but for where it is put.
func message(t *testing.T, topic, wallet string, units int64) []byte {
	t.Helper()
	if topic == "deposit" {
		return deposit(t, wallet, units)
	}
	b, err := proto.Marshal(&pb.FlagEvent{WalletId: wallet, Event: &pb.FlagEvent_Raise{
		Raise: &pb.OperatorRaise{EventId: rand.Uint64(), AtMs: time.Now().UnixMilli()}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func deposit(t *testing.T, wallet string, units int64) []byte {
	t.Helper()
	b, err := proto.Marshal(&pb.Deposit{WalletId: wallet, Units: units, AcceptedAtMs: time.Now().UnixMilli(), Origin: rand.Uint64() | 1, Sequence: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	b[0] = 0xff // a field number and wire type that do not exist
	return b
}

// kcat writes one record with headers: its kind, and a name that comes twice.
func kcat(t *testing.T, topic string, g garbage, partitions int32) {
	t.Helper()
	p := stream.Partition(g.key, partitions)
	if g.wrong {
		p = (p + 1) % partitions
	}
	args := []string{"-b", bootstrap, "-P", "-t", topic, "-p", strconv.Itoa(int(p)),
		"-X", "message.timeout.ms=20000",
		"-H", "kind=" + g.kind, "-H", "run=" + runID, "-H", "twice=1", "-H", "other=x", "-H", "twice=2"}
	var stdin []byte
	switch {
	case len(g.value) == 0: // kcat skips empty files; this is a record with nothing after the key
		args = append(args, "-K", "|")
		if g.null {
			args = append(args, "-Z")
		}
		stdin = []byte(g.key + "|")
	default:
		if g.key != "" {
			args = append(args, "-k", g.key)
		}
		file := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(file, g.value, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file) // a file is one record, whatever its bytes
	}
	cmd := exec.Command("kcat", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kcat (%s): %v\n%s", g.kind, err, out)
	}
}

// byKind finds this run's records by their header.
func byKind(ms []*sarama.ConsumerMessage) map[string]*sarama.ConsumerMessage {
	found := map[string]*sarama.ConsumerMessage{}
	for _, m := range ms {
		h := headers(m)
		if strings.Contains(h, "run="+runID+"\n") {
			kind, _, _ := strings.Cut(strings.TrimPrefix(h, "kind="), "\n")
			found[kind] = m
		}
	}
	return found
}

// headers writes a record's headers in their order, but for those a dead letter
// adds.
func headers(m *sarama.ConsumerMessage) string {
	var b strings.Builder
	for _, h := range m.Headers {
		if !strings.HasPrefix(string(h.Key), "dead-letter-") {
			fmt.Fprintf(&b, "%s=%s\n", h.Key, h.Value)
		}
	}
	return b.String()
}

func wantLetter(t *testing.T, g garbage, source, letter *sarama.ConsumerMessage) {
	t.Helper()
	if letter == nil {
		t.Errorf("%s: not on the dead letter topic after 30 s", g.kind)
		return
	}
	if !bytes.Equal(letter.Value, source.Value) || !bytes.Equal(source.Value, g.value) {
		t.Errorf("%s: value %q became %q", g.kind, source.Value, letter.Value)
	}
	if got, want := headers(letter), headers(source); got != want {
		t.Errorf("%s: headers\n%sbecame\n%s", g.kind, want, got)
	}
	added := map[string]string{}
	for _, h := range letter.Headers {
		added[string(h.Key)] = string(h.Value)
	}
	for name, want := range map[string]string{
		"dead-letter-topic":     source.Topic,
		"dead-letter-partition": strconv.Itoa(int(source.Partition)),
		"dead-letter-offset":    strconv.FormatInt(source.Offset, 10),
	} {
		if added[name] != want {
			t.Errorf("%s: header %s is %q, want %q", g.kind, name, added[name], want)
		}
	}
	if added["dead-letter-reason"] == "" {
		t.Errorf("%s: no dead-letter-reason", g.kind)
	}
	t.Logf("%s: %s", g.kind, added["dead-letter-reason"])
}
