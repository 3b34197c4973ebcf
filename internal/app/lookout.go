package app

import (
	"context"
	"time"

	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

// lookout finds out for the live page how everything is. It calls no service: it
// asks Kafka, and looks at what this process knows by itself.
type lookout struct {
	*Runtime
	deposits  *deposits
	views     *tables
	onlookers map[stream.Group]*onlooker
	denied    map[stream.Group]time.Time // when a right was missing
}

// The words for how something is. The page has a sign and a colour for each.
const (
	isUp          = "up"
	isStarting    = "starting"
	isRebalancing = "rebalancing"
	isAway        = "away"
	isUnknown     = "unknown"
)

// liveState is what the page shows of the suite's parts.
type liveState struct {
	Kafka  part        `json:"kafka"`
	API    part        `json:"api"`
	Groups []groupPart `json:"groups"`
}

type part struct {
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
}

type groupPart struct {
	part
	Name    string  `json:"name"`
	Topic   string  `json:"topic"` // that it reads
	Members int     `json:"members"`
	Lag     []int64 `json:"lag"` // messages behind, by partition; [] while unknown
}

// state looks at everything once.
func (l *lookout) state(ctx context.Context) any {
	s := liveState{Kafka: part{State: isUp}, API: part{State: isUp}}
	if err := l.views.Ready(); err != nil {
		s.API = part{isStarting, err.Error()}
	}
	sights, err := l.sights(ctx)
	switch {
	case l.deposits.ready() != nil:
		s.Kafka = part{isAway, "deposits are refused, balances are as they were last seen"}
	case err != nil:
		s.Kafka = part{isUnknown, "it did not answer just now"}
	}
	for _, g := range stream.Groups() {
		p := groupPart{Name: string(g), Topic: string(groups[g].input), Lag: []int64{}, part: part{isUnknown, "Kafka is not asked"}}
		sight, seen := sights[string(g)]
		switch {
		case err != nil:
			p.Why = "Kafka does not answer"
		case !seen:
			p.Why = "Kafka denies Describe on its group or topic, see -service=topics -acls"
		case sight.Err != nil:
			p.Why = "Kafka does not tell"
		default:
			p.part, p.Members = groupState(sight), sight.Members
			p.Lag = l.onlookers[g].lag(sight)
		}
		s.Groups = append(s.Groups, p)
	}
	return s
}

// sights asks Kafka for the groups, but not for what it denied a moment ago.
func (l *lookout) sights(ctx context.Context) (map[string]kafka.Sight, error) {
	topics := make(map[string]string)
	for _, g := range stream.Groups() {
		if since, denied := l.denied[g]; !denied || time.Since(since) > deniedPause {
			topics[string(g)] = string(groups[g].input)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, sightTimeout)
	defer cancel()
	sights, err := l.ledger.client(l.client).Sights(ctx, topics)
	for _, g := range stream.Groups() {
		if kafka.Denied(sights[string(g)].Err) {
			l.denied[g] = time.Now()
			delete(sights, string(g))
		}
	}
	return sights, err
}

// groupState puts Kafka's word into ours.
func groupState(s kafka.Sight) part {
	switch s.State {
	case "Stable":
		if s.Owned < len(s.Ends) {
			return part{isRebalancing, "some partitions have no owner"}
		}
		return part{State: isUp}
	case "PreparingRebalance", "CompletingRebalance":
		return part{isRebalancing, "its instances are sharing the partitions out"}
	case "Empty", "Dead":
		return part{isAway, "no instance is running"}
	default:
		return part{isUnknown, "Kafka says " + s.State}
	}
}

// lag is how far a group is behind in each partition: from the highest row of its
// table that was seen here, or from what it has committed, which is up to a second old.
func (o *onlooker) lag(s kafka.Sight) []int64 {
	lag := make([]int64, len(s.Ends))
	seen := o.applied.Load()
	for p := range lag {
		at := s.Committed[int32(p)]
		if seen != nil && p < len(*seen) {
			at = max(at, (*seen)[p].Load())
		}
		lag[p] = max(0, s.Ends[int32(p)]-at)
	}
	return lag
}
