package wallet

// An origin is one run of an API. It numbers its deposits in the order in which they
// stand in a partition's log, so a row knows a repeat by one comparison, however many
// deposits lie between; and it has one clock, so a row knows what time it is for each
// origin and keeps what a next deposit of any of them can need.
//
// For an origin that is not heard of, time goes by as the clock of another one says, the
// pacemaker: each of its deposits adds the time since its previous one to Origin.Idle of
// all origins that were not heard of in between. There is one pacemaker at a time: by two
// clocks the same minute would be counted twice. The first origin of a wallet is its pacemaker; when
// maxMissed deposits in a row were not its own, the origin in hand takes its place.
//
// Invariants of Account.Origins, in the order of the log (the latest seen last):
//   - Sequence is the highest of all its deposits that were folded in. It never goes back.
//   - LatestAt + Idle is at most what its clock shows now, plus lateness for each other
//     origin, whose deposits may have come late; unless a clock was set meanwhile.
//   - An origin is forgotten only when maxOrigins others came after it, or minOrigins
//     others and a day.

const (
	// maxOrigins bounds the origins of a row.
	maxOrigins = 16
	// minOrigins are kept however long ago they were: one clock that was set a day
	// ahead makes a row forget none of them.
	minOrigins = 4
	// forgottenAfter is far longer than an API repeats a deposit, in milliseconds.
	forgottenAfter = 24 * 60 * 60 * 1000
	// quietAfter is for how long beyond the period the window is kept for an origin
	// from which the wallet hears nothing, in milliseconds.
	quietAfter = 10 * 60 * 1000
	// maxMissed is how many deposits in a row the pacemaker may miss.
	maxMissed = 32
)

// Origin is what a row remembers of an origin.
type Origin struct {
	// ID is 0 for all producers that name no origin: of those nothing is recognised as
	// a repeat, and they are taken to have one clock.
	ID       uint64
	Sequence uint64
	// LatestAt is the latest event time, in Unix milliseconds.
	LatestAt int64
	// Idle is how much time has gone by since, at least, in milliseconds.
	Idle int64
}

// clock is what the origin's clock shows by now, at least.
func (o *Origin) clock() int64 { return o.LatestAt + o.Idle }

// takeOrigin notes the origin of a deposit. It is false, and changes nothing, for a
// repeat: a sequence that is not above the origin's highest.
func (a *Account) takeOrigin(d Deposit) bool {
	list, t := a.Origins, boundedTime(d.At)
	i := len(list) - 1
	for i >= 0 && list[i].ID != d.Origin {
		i--
	}
	if i >= 0 && d.Origin != 0 && d.Sequence <= list[i].Sequence {
		return false
	}
	a.step = 0
	pacemaker := len(list) - 1 - int(a.Pacemaker)
	if i < 0 {
		list = append(list, Origin{ID: d.Origin, LatestAt: t})
		i = len(list) - 1
	}
	o := list[i]
	o.Sequence = d.Sequence
	if ahead := t - o.clock(); ahead > 0 {
		a.step = ahead
		if i == pacemaker {
			pass(list[:i], ahead)
		}
		o.LatestAt, o.Idle = t, 0
	} else if ahead >= -lateness { // late, as far as is known
		o.LatestAt, o.Idle = o.clock(), 0
	} else if o.ID != 0 { // its clock was set back
		o.LatestAt, o.Idle = t, 0
	}
	copy(list[i:], list[i+1:])
	list[len(list)-1] = o
	a.Origins = list
	a.pace(i, pacemaker)
	return true
}

// pass lets time go by for origins.
func pass(origins []Origin, ms int64) {
	for i := range origins {
		origins[i].Idle = min(origins[i].Idle+ms, maxTime)
	}
}

// pace notes whether the origin in hand, which stood at index i and is the last now, is
// the pacemaker, which stood at another; and keeps the list within its bounds.
func (a *Account) pace(i, pacemaker int) {
	last := len(a.Origins) - 1
	switch {
	case i < pacemaker:
		pacemaker--
		a.Missed++
	case i > pacemaker:
		a.Missed++
	}
	drop := max(0, len(a.Origins)-maxOrigins)
	for len(a.Origins)-drop > minOrigins && a.Origins[drop].Idle > forgottenAfter {
		drop++
	}
	if i == pacemaker || a.Missed >= maxMissed || pacemaker < drop {
		pacemaker, a.Missed = last, 0
	}
	a.Pacemaker = uint32(last - pacemaker) //nolint:gosec // below maxOrigins
	if drop > 0 {
		a.Origins = append(a.Origins[:0], a.Origins[drop:]...)
	}
}

// needed is the event time from which on later deposits of a window of the period can
// still come, in Unix milliseconds: the earliest clock less what a deposit may be late,
// less as much for every other origin, through whose late deposits the clock may be
// thought to be that much ahead. Origins that have been quiet for long are not waited
// for. If the deposit in hand made its clock step by more than a period, it is what was
// needed before: one deposit with a wrong time must not empty a window.
func (a *Account) needed(period int64) int64 {
	slowest, waited := int64(maxTime), int64(0)
	for i := range a.Origins {
		if o := &a.Origins[i]; o.Idle <= period+quietAfter {
			slowest = min(slowest, o.clock())
			waited++
		}
	}
	if a.step > period {
		slowest -= a.step
	}
	return slowest - waited*lateness
}
