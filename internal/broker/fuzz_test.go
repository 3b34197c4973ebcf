package broker

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"net"
	"os"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// tap is a listener that keeps what clients send.
type tap struct {
	net.Listener
	mu    sync.Mutex
	heard []*bytes.Buffer
}

func (l *tap) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, new(bytes.Buffer))
	return tapped{c, io.TeeReader(c, l.heard[len(l.heard)-1])}, nil
}

type tapped struct {
	net.Conn
	r io.Reader
}

func (c tapped) Read(p []byte) (int, error) { return c.r.Read(p) }

// captured are the frames that sarama sends for what the tests of this package do.
func captured(f *testing.F) (frames [][]byte) {
	l := new(tap)
	b, err := begin(f.Context(), f.TempDir(), "127.0.0.1:0", func(ln net.Listener) *gate {
		l.Listener = ln
		return newGate(l)
	})
	must(f, err)
	create(f, b, "t")
	fill(f, b, "t", 3, 1)
	look(f, b, "t")
	b.Close()
	keys := make(map[uint16]bool)
	for _, heard := range l.heard {
		for all := heard.Bytes(); len(all) > 4; {
			end := 4 + int(binary.BigEndian.Uint32(all))
			if end > len(all) {
				break
			}
			keys[binary.BigEndian.Uint16(all[4:])] = true
			frames, all = append(frames, all[:end:end]), all[end:]
		}
	}
	if len(keys) < 14 {
		f.Fatalf("frames of %d kinds only", len(keys))
	}
	return frames
}

// FuzzFrames sends what sarama sends, and that broken.
func FuzzFrames(f *testing.F) {
	for _, frame := range captured(f) {
		f.Add(frame)
	}
	f.Add([]byte("\x00\x00\x00\x0a\x7f\xff\x00\x00\x00\x00\x00\x01\xff\xff"))
	victim := &victim{}
	f.Cleanup(victim.end)
	f.Fuzz(func(t *testing.T, frame []byte) {
		victim.attack(t, func(c net.Conn) { _, _ = c.Write(frame) })
	})
}

// FuzzRequests sends whole requests of every kind that kfake may know, with values drawn
// from the input: those that a broker has to think about.
func FuzzRequests(f *testing.F) {
	for key := range byte(93) {
		f.Add([]byte{key, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
		f.Add([]byte{key, 255, 9, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1})
	}
	victim := &victim{}
	f.Cleanup(victim.end)
	f.Fuzz(func(t *testing.T, input []byte) {
		d := &draw{input: input, victim: victim}
		victim.attack(t, func(c net.Conn) {
			for len(d.input) > 0 {
				_, _ = c.Write(d.request())
			}
		})
	})
}

// victim is a broker that is attacked until it has had enough: then it has to find its log
// again, and a fresh one takes its place.
type victim struct {
	b      *Broker
	dir    string
	topic  [16]byte // its id
	rounds int
}

func (v *victim) begin(t testing.TB) {
	dir, err := os.MkdirTemp("", "coinbit-fuzz-")
	must(t, err)
	v.dir, v.rounds = dir, 0
	v.b = start(t, dir, "127.0.0.1:0")
	create(t, v.b, "t")
	c := dial(t, v.b)
	ask(t, c, produce("t", batchOf(3, 0, recordsOf(3))), 7)
	v.topic = v.b.cluster.TopicInfo("t").TopicID
}

func (v *victim) end() {
	if v.b != nil {
		v.b.Close()
		_ = os.RemoveAll(v.dir)
		v.b = nil
	}
}

// attack gives send a connection. Whatever it sends, somebody else is answered.
func (v *victim) attack(t *testing.T, send func(c net.Conn)) {
	if v.rounds++; v.rounds > 500 {
		v.b.Close()
		b, err := Start(t.Context(), v.dir, "127.0.0.1:0")
		if err != nil {
			t.Fatalf("it does not find its log again: %v", err)
		}
		v.b = b
		v.end()
	}
	if v.b == nil {
		v.begin(t)
	}
	c, err := net.Dial("tcp", v.b.Addr())
	must(t, err)
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, c) }()
	must(t, c.SetDeadline(time.Now().Add(time.Second)))
	send(c)
	honest, err := net.Dial("tcp", v.b.Addr())
	must(t, err)
	defer func() { _ = honest.Close() }()
	must(t, honest.SetDeadline(time.Now().Add(10*time.Second)))
	for range 2 { // by the second one, what was sent before is begun
		ask(t, honest, kmsg.NewPtrMetadataRequest(), 4)
	}
	_ = c.Close()
	<-drained
}

// draw makes requests of an input.
type draw struct {
	input  []byte
	victim *victim
}

func (d *draw) byte() byte {
	if len(d.input) == 0 {
		return 0
	}
	b := d.input[0]
	d.input = d.input[1:]
	return b
}

func one[T any](d *draw, of ...T) T { return of[int(d.byte())%len(of)] }

// request is one of any kind and version.
func (d *draw) request() []byte {
	var req kmsg.Request
	for key := int16(d.byte()) % 93; req == nil; key = (key + 1) % 93 {
		req = kmsg.RequestForKey(key)
	}
	version := int16(d.byte()) % (req.MaxVersion() + 1)
	d.fill(reflect.ValueOf(req).Elem())
	req.SetVersion(version)
	if p, ok := req.(*kmsg.ProduceRequest); ok {
		for _, t := range p.Topics {
			for i := range t.Partitions {
				t.Partitions[i].Records = d.batch()
			}
		}
	}
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID(one(d, "", "c"))).AppendRequest(nil, req, 1)
}

// batch is a good one, or one with a little wrong in it, whose sum is right.
func (d *draw) batch() []byte {
	n := int(d.byte())%3 + 1
	raw := batchOf(int32(n), one[int16](d, 0, 0x10, 8, 0x20), recordsOf(n))
	binary.BigEndian.PutUint64(raw[43:], uint64(one[int64](d, -1, 0, 1, math.MaxInt64))) // producer
	binary.BigEndian.PutUint16(raw[51:], uint16(one[int16](d, -1, 0, 1, math.MaxInt16)))
	binary.BigEndian.PutUint32(raw[53:], uint32(one[int32](d, -1, 0, 1, math.MaxInt32)))
	if d.byte() > 200 {
		raw[21+int(d.byte())%(len(raw)-21)] = d.byte()
	}
	return summed(raw)
}

// fill gives a value one of the values that are of interest for its kind.
func (d *draw) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if def, ok := v.Addr().Interface().(interface{ Default() }); ok {
			def.Default()
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Name != "UnknownTags" {
				d.fill(v.Field(i))
			}
		}
	case reflect.Pointer:
		if d.byte()%4 > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			d.fill(v.Elem())
		}
	case reflect.Slice:
		n := int(d.byte()) % 4
		if v.Type().Elem().Kind() != reflect.Uint8 && len(d.input) == 0 {
			n = 0
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			d.fill(v.Index(i))
		}
	case reflect.Array:
		if id := d.victim.topic; d.byte()%4 > 0 {
			v.Set(reflect.ValueOf(id).Convert(v.Type()))
		}
	case reflect.String:
		v.SetString(one(d, "t", "g", "", "u", "range", "consumer", "0", "1", "retention.ms", "cleanup.policy", "compact", "-1", "__consumer_offsets", "."))
	case reflect.Bool:
		v.SetBool(d.byte()%2 > 0)
	case reflect.Float64:
		v.SetFloat(one(d, 0, 1, -1, math.NaN(), math.Inf(1)))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(d.byte()))
	default:
		bits := v.Type().Bits() - 1
		v.SetInt(one[int64](d, 0, 1, 2, -1, -2, 3, 1000, 1<<bits-1, -1<<bits))
	}
}
