package app

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lovoo/goka"

	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

// tableFormat counts the forms that rows have had. Rows of another one are not read.
const tableFormat = 2

// input is what a table is folded from. Each of its partitions says it, in a record of
// its own (stream.InputKey); what is folded from something else is never gone on with.
type input struct {
	format     int
	partitions int32
	// topics with their ids: what the group reads and, for the flagger, deposit too, as
	// flags name offsets of it.
	topics []topicID
}

type topicID struct{ name, id string }

// inputOf is the input of a group's table on a cluster.
func inputOf(g stream.Group, c kafka.Cluster) input {
	in := input{format: tableFormat, partitions: c.Partitions}
	for _, t := range inputTopics(g) {
		in.topics = append(in.topics, topicID{string(t), c.TopicIDs[string(t)]})
	}
	return in
}

func inputTopics(g stream.Group) []goka.Stream {
	if of := groups[g].input; of != stream.DepositStream {
		return []goka.Stream{of, stream.DepositStream}
	}
	return []goka.Stream{stream.DepositStream}
}

// String is the record's value: one word each for format, partitions and topics.
func (in input) String() string {
	words := []string{fmt.Sprint("format=", in.format), fmt.Sprint("partitions=", in.partitions)}
	for _, t := range in.topics {
		words = append(words, t.name+"="+t.id)
	}
	return strings.Join(words, " ")
}

// differs says in what a table that holds was is not of in: nil if it is, as far as the
// ids of its topics are known. It names the remedy, which is the same for all tables.
func (in input) differs(table goka.Table, was string) error {
	words := make(map[string]string)
	for _, word := range strings.Fields(was) {
		name, value, _ := strings.Cut(word, "=")
		words[name] = value
	}
	how, with := "", ""
	switch {
	case words["format"] != fmt.Sprint(in.format):
		how = "was written by another build, in another format"
	case words["partitions"] != fmt.Sprint(in.partitions):
		how = fmt.Sprintf("was folded from %s partitions, and %d are in use", words["partitions"], in.partitions)
		with = ", with PARTITIONS=" + words["partitions"]
	default:
		for _, t := range in.topics {
			if t.id != "" && words[t.name] != t.id {
				how = fmt.Sprintf("was folded from an earlier topic %s: restore that one", t.name)
				if t.name == string(stream.DepositStream) {
					with = "; but flag_wallet tells of the earlier deposit, by which flags would be missed: a new ledger goes on another cluster"
				}
				break
			}
		}
	}
	if how == "" {
		return nil
	}
	return fmt.Errorf("%w: %s %s; to fold all tables anew, %s%s", kafka.ErrLayout, table, how, stream.FoldAnew, with)
}

// ledger is, for an API, which topic deposit it writes to and from which the tables are
// folded that it reads. It must be one: positions on another mean nothing in the tables.
type ledger struct {
	// apart says that a view follows another table than the one beside the topic that is
	// written to: one of the two is about to follow the other to another log.
	apart atomic.Bool

	mu      sync.Mutex
	writes  kafka.Cluster
	reads   map[stream.Group]folded
	follows map[stream.Group]string // the table's topic id
}

// follow notes which table a view is about to follow.
func (l *ledger) follow(g stream.Group, table string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.follows == nil {
		l.follows = make(map[stream.Group]string)
	}
	l.follows[g] = table
	l.judge()
}

// judge needs l.mu.
func (l *ledger) judge() {
	apart := false
	for g, table := range l.follows {
		apart = apart || l.writes.ID != "" && l.writes.TopicIDs[string(g.Table())] != table
	}
	l.apart.Store(apart)
}

// folded is what a table, known by its topic's id, says of its input.
type folded struct{ table, input string }

// write tells where deposits go from now on; read what a table says. Each is an error
// if that does not go with what is known of the other.
func (l *ledger) write(c kafka.Cluster) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes = c
	l.judge()
	for _, g := range stream.Groups() {
		if err := l.compare(g); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) read(g stream.Group, f folded) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reads == nil {
		l.reads = make(map[stream.Group]folded)
	}
	l.reads[g] = f
	return l.compare(g)
}

// goesTo tells whether deposits go to the topic of that name on c.
func (l *ledger) goesTo(c kafka.Cluster) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	topic := string(stream.DepositStream)
	return l.writes.ID == c.ID && l.writes.TopicIDs[topic] == c.TopicIDs[topic]
}

// client is c for the cluster that deposits go to, once they do.
func (l *ledger) client(c *kafka.Client) *kafka.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writes.ID == "" {
		return c
	}
	return c.In(l.writes)
}

// compare needs l.mu. What is of another table than the one beside the topic that is
// written to is about to be read no more.
func (l *ledger) compare(g stream.Group) error {
	f, ok := l.reads[g]
	if !ok || l.writes.TopicIDs[string(g.Table())] != f.table {
		return nil
	}
	return inputOf(g, l.writes).differs(g.Table(), f.input)
}
