package verify

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/IBM/sarama"

	"coinbit/internal/out"
	"coinbit/internal/replay"
	"coinbit/internal/wallet"
)

// Note is about a deposit that stands where an API did not mean it to, and does no harm.
type Note struct {
	// Kind is Twice or Late.
	Kind      string `json:"note"`
	Wallet    string `json:"wallet"`
	Partition int32  `json:"partition"`
	// Offsets on topic deposit are where it stands, and Counted is how many of them count.
	Offsets []int64 `json:"offsets"`
	Counted int     `json:"counted"`
}

// Kinds of notes.
const (
	// Twice is a deposit that stands in the log more than once: it was appended again.
	Twice = "twice"
	// Late is a deposit behind a later one of its origin, which had given it up before:
	// nobody was told that it counts.
	Late = "late"
)

// String is one line, whatever the wallet is.
func (n Note) String() string {
	at := make([]string, len(n.Offsets))
	for i, offset := range n.Offsets {
		at[i] = replay.Position{Partition: n.Partition, Offset: offset}.String()
	}
	if n.Kind == Late {
		return fmt.Sprintf("deposit %s, %s: came late, after its API had given it up: not counted", at[0], out.Text(n.Wallet))
	}
	return fmt.Sprintf("deposit %s, %s: stands in the log again, at %s: %s", at[0], out.Text(n.Wallet), strings.Join(at[1:], ", "), timesCounted(n.Counted))
}

func timesCounted(n int) string {
	switch n {
	case 0:
		return "not counted"
	case 1:
		return "counted once"
	}
	return fmt.Sprintf("counted %d times", n)
}

// identity is what names a deposit within a partition, whatever a fold makes of it.
type identity struct{ origin, sequence uint64 }

// identities are those of the deposits of one partition: which stand there, and which of
// them count. An API numbers its deposits without gaps, in the order of the log, so a few
// ranges for each origin hold them.
type identities struct {
	seen, counted numbers
	again         map[identity]*copies // those that were seen before
}

// copies are the records of one identity.
type copies struct {
	counted int
	first   *sarama.ConsumerMessage
	offsets []int64
	unlike  []int64 // where it is not what the first one is
}

// fold notes what a fold made of a deposit, and tells whether it came late.
func (s *identities) fold(d wallet.Deposit, verdict wallet.Verdict) (late bool) {
	if d.Origin == 0 {
		return false // of another producer, whose deposits have no identity
	}
	id := identity{d.Origin, d.Sequence}
	if !s.seen.add(id) {
		c := s.again[id]
		if c == nil {
			c = new(copies)
			s.again[id] = c
			if s.counted.has(id) {
				c.counted++
			}
		}
		if verdict == wallet.Applied {
			c.counted++
		}
		return false
	}
	if verdict == wallet.Applied {
		s.counted.add(id)
	}
	return verdict == wallet.Repeated
}

// nameCopies says of each deposit of a partition that stands in the log more than once
// where it does, for which it reads the log again.
func (r *run) nameCopies(p int32, again map[identity]*copies) error {
	if len(again) == 0 {
		return nil
	}
	var order []*copies
	err := r.Scan(r.ctx, depositLog, p, r.ends[depositLog][p], func(m *sarama.ConsumerMessage) error {
		d, reason := replay.Deposit(m, r.Partitions)
		c := again[identity{d.Origin, d.Sequence}]
		if reason != nil || c == nil {
			return nil
		}
		if c.first == nil {
			c.first = m
			order = append(order, c)
		}
		c.offsets = append(c.offsets, m.Offset)
		if !bytes.Equal(m.Key, c.first.Key) || !bytes.Equal(m.Value, c.first.Value) {
			c.unlike = append(c.unlike, m.Offset)
		}
		return nil
	})
	for _, c := range order {
		r.nameCopy(c)
	}
	return err
}

func (r *run) nameCopy(c *copies) {
	n := Note{Kind: Twice, Wallet: string(c.first.Key), Partition: c.first.Partition, Offsets: c.offsets, Counted: c.counted}
	d := Difference{Where: depositLog, Wallet: n.Wallet, On: depositLog, Partition: n.Partition, Offset: c.offsets[0]}
	r.report.Twice++
	r.noted(n)
	if c.counted > 1 {
		d.Field, d.Got, d.Want = "a deposit that stands there more than once", timesCounted(c.counted), timesCounted(1)
		r.found(d)
	}
	for _, offset := range c.unlike {
		d.Field, d.Got, d.Want = "its origin and number", fmt.Sprintf("also those of another deposit, at %d:%d", n.Partition, offset), "its own"
		r.found(d)
	}
}

// numbers is a set of identities: for each origin ranges, ascending and apart.
type numbers map[uint64][]numberRange

// numberRange is the numbers from first to last.
type numberRange struct{ first, last uint64 }

func (s numbers) has(id identity) bool {
	list := s[id.origin]
	i := s.find(id)
	return i < len(list) && list[i].first <= id.sequence
}

// find is the first range of the origin that does not end below a number.
func (s numbers) find(id identity) int {
	list := s[id.origin]
	if n := len(list); n > 0 && list[n-1].last < id.sequence { // as mostly
		return n
	}
	return sort.Search(len(list), func(i int) bool { return list[i].last >= id.sequence })
}

// add is false for one that is there.
func (s numbers) add(id identity) bool {
	if s.has(id) {
		return false
	}
	list, i := s[id.origin], s.find(id)
	joinsLast := i > 0 && list[i-1].last == id.sequence-1
	joinsNext := i < len(list) && list[i].first-1 == id.sequence
	switch {
	case joinsLast && joinsNext:
		list[i-1].last = list[i].last
		list = slices.Delete(list, i, i+1)
	case joinsLast:
		list[i-1].last++
	case joinsNext:
		list[i].first--
	default:
		list = slices.Insert(list, i, numberRange{id.sequence, id.sequence})
	}
	s[id.origin] = list
	return true
}
