package model

import (
	"fmt"
	"slices"

	"coinbit/internal/wallet"
)

const (
	partitions = 2
	instances  = 2
	wallets    = 2 // in each partition
	groups     = 2
	apis       = 2

	threshold = 0 // folds deposits, emits crossings
	flagger   = 1 // folds flag events

	claimKey = -1
)

var rule = wallet.Rule{Threshold: wallet.Amount{Units: 10}, PeriodMs: 10}

// row is a table row. It is never changed once it is set.
type row struct {
	counter wallet.Counter
	flag    wallet.Flag
}

func (x *row) next(group int) int64 {
	switch {
	case x == nil:
		return 0
	case group == threshold:
		return x.counter.Account.NextOffset
	}
	return x.flag.NextOffset
}

// deposit and event are records of the logs.
type deposit struct {
	wallet int
	d      wallet.Deposit
}

// api is one that writes to a partition: the run that it is, the last number that it gave,
// and a deposit that it gave up and that may still be on the wire.
type api struct {
	origin, sequence uint64
	lost             *deposit
}

type event struct {
	wallet int
	e      wallet.FlagEvent
	knew   int64 // the deposits that were there when an operator spoke
}

// record is one of a changelog; gone after compaction.
type record struct {
	key  int
	row  *row
	gone bool
}

// changelog is a table partition at the broker.
type changelog struct {
	records []record
	epoch   int32 // the highest that wrote
}

// disk is an instance's local state of a partition: rows and the changelog
// offset that they are a fold of; -1: nothing.
type disk struct {
	rows   [wallets]*row
	offset int64
}

var empty = disk{offset: -1}

// message is one in the hands of an owner.
type message struct {
	offset  int64
	missing int // effects without an answer
}

// put is a row on its way into the changelog.
type put struct {
	key    int
	row    *row
	inputs []int64 // offsets of the messages; none: a repair
}

// emit is a crossing on its way into the flag log.
type emit struct {
	wallet int
	tip    wallet.Evidence
	input  int64
}

// owner is a partition in the hands of one instance, from its claim to its end.
// One that lost the partition without knowing, a sleeper or a late goroutine, is
// a zombie: it does a few more things.
type owner struct {
	group, instance, partition int

	epoch     int32
	claimed   int64 // offset of the claim
	hasClaim  bool
	running   bool // recovered
	zombie    bool
	budget    int // messages that a zombie still has in hand
	rows      [wallets]*row
	offset    int64
	pending   [wallets]*row
	waiting   [wallets]int // puts of pending
	next      int64
	inflight  []message
	marked    int64
	puts      []put
	wire      []put // one batch, unanswered
	wireAt    int64 // where it was appended; -1: not yet
	emits     []emit
	recovered int64
}

// view is an API instance's view of one table partition.
type view struct {
	rows   [wallets]*row
	cursor int64
	ready  bool
	shown  [wallets]int64 // the newest that its client saw
}

// world is everything.
type world struct {
	pick func(n int) int // a number below n
	bug  string
	say  func(format string, args ...any) // nil: silent

	apis      [partitions][apis]api
	deposits  [partitions][]deposit
	told      [partitions][wallets]wallet.Amount // the sum of what clients were told is accepted
	expected  [partitions][]*row                 // the reference fold after each deposit
	latest    [partitions][wallets]*row
	crossings [partitions][]int64 // offsets that cross
	flags     [partitions][]event
	tables    [groups][partitions]changelog
	epochs    [groups][partitions]int32 // at the coordinator
	committed [groups][partitions]int64
	owners    [groups][partitions]*owner
	zombies   []*owner
	disks     [groups][instances][partitions]disk
	copies    [groups][instances][partitions]disk
	views     [groups][partitions]view
	ids       uint64
	clock     int64
	faults    int // left
}

// violation is what a broken invariant panics with.
type violation string

func (w *world) fail(format string, args ...any) {
	panic(violation(fmt.Sprintf(format, args...)))
}

func (w *world) log(format string, args ...any) {
	if w.say != nil {
		w.say(format, args...)
	}
}

func newWorld(bug string, pick func(int) int) *world {
	w := &world{pick: pick, bug: bug, clock: 1000}
	for p := range partitions {
		for i := range apis {
			w.starts(p, i)
		}
	}
	for g := range groups {
		for p := range partitions {
			for i := range instances {
				w.disks[g][i][p], w.copies[g][i][p] = empty, empty
			}
			if bug == "newest offset" {
				w.committed[g][p] = -1
			}
		}
	}
	if bug != "newest offset" { // else the first start is what matters
		for g := range groups {
			for p := range partitions {
				w.owners[g][p] = &owner{group: g, partition: p, wireAt: -1, offset: -1}
				for !w.owners[g][p].running {
					w.advance(w.owners[g][p])
				}
			}
		}
	}
	w.faults = 12
	return w
}

// --- the outside

// starts is a run of an API, after another one or not.
func (w *world) starts(p, i int) {
	w.ids++
	w.apis[p][i] = api{origin: w.ids}
}

// deposited lets an API append a deposit, and says to its client that it is accepted.
func (w *world) deposited() {
	p := w.pick(partitions)
	a := &w.apis[p][w.pick(apis)]
	d := w.take(p, a)
	switch w.pick(8) {
	case 0:
		a.lost = &d // given up: nobody is told, and it may come late
		return
	case 1: // another request is at work at the same time
		next := w.take(p, a)
		if w.bug == "numbered before the queue" {
			d, next = next, d
		}
		w.accepted(p, d)
		d = next
	}
	w.accepted(p, d)
}

// take is the deposit of a client, numbered as it enters the queue.
func (w *world) take(p int, a *api) deposit {
	w.clock += int64(w.pick(6))
	a.sequence++
	return deposit{w.pick(wallets), wallet.Deposit{
		Amount: wallet.Amount{Units: uint64(1 + w.pick(8))}, At: w.clock - int64(w.pick(4)),
		Origin: a.origin, Sequence: a.sequence, Partition: int32(p)}}
}

func (w *world) accepted(p int, d deposit) {
	w.appendDeposit(p, d)
	sum := &w.told[p][d.wallet]
	*sum, _ = sum.Add(d.d.Amount)
}

// appendDeposit puts a record into the log, and beside it what it makes of the wallet's row.
func (w *world) appendDeposit(p int, d deposit) {
	d.d.Offset = int64(len(w.deposits[p]))
	w.deposits[p] = append(w.deposits[p], d)
	c := clone(w.latest[p][d.wallet])
	if c.counter.Apply(d.d, rule).Emit {
		w.crossings[p] = append(w.crossings[p], d.d.Offset)
	}
	w.latest[p][d.wallet] = c
	w.expected[p] = append(w.expected[p], c)
	w.log("deposit %d:%d of %d for wallet %d, number %d of API %d", p, d.d.Offset, d.d.Amount.Units, d.wallet, d.d.Sequence, d.d.Origin)
}

// repeated lets a broker that has forgotten its producers take what it has for new: any
// deposit of the log once more, or one that was given up, however many came since.
func (w *world) repeated() {
	p := w.pick(partitions)
	if a := &w.apis[p][w.pick(apis)]; a.lost != nil && w.pick(2) == 0 {
		d := *a.lost
		if a.lost = nil; a.sequence > d.d.Sequence || w.pick(2) == 0 {
			w.late(p, d)
		}
		return
	}
	if n := len(w.deposits[p]); n > 0 {
		w.appendDeposit(p, w.deposits[p][w.pick(n)])
	}
}

// late appends what was given up. It counts where no later one of its origin came first
// to the wallet; nobody was told either way.
func (w *world) late(p int, d deposit) {
	before := w.latest[p][d.wallet]
	w.appendDeposit(p, d)
	for _, x := range w.deposits[p][:len(w.deposits[p])-1] {
		if x.wallet == d.wallet && x.d.Origin == d.d.Origin && x.d.Sequence >= d.d.Sequence {
			if before.counter.Account.Balance != w.latest[p][d.wallet].counter.Account.Balance {
				w.fail("deposit number %d of API %d counts behind number %d", d.d.Sequence, d.d.Origin, x.d.Sequence)
			}
			return
		}
	}
	sum := &w.told[p][d.wallet]
	*sum, _ = sum.Add(d.d.Amount)
}

// operated appends an operator's raise or removal.
func (w *world) operated() {
	p := w.pick(partitions)
	w.ids++
	e := event{w.pick(wallets), wallet.FlagEvent{ID: w.ids, Remove: w.pick(3) > 0, RemovedUpto: int64(len(w.deposits[p]))}, int64(len(w.deposits[p]))}
	e.e.Raise = !e.e.Remove
	if w.bug == "removal without watermark" {
		e.e.RemovedUpto = 0
	}
	w.flagged(p, e)
	w.log("operator: remove %t, wallet %d:%d, below %d", e.e.Remove, p, e.wallet, e.e.RemovedUpto)
}

func (w *world) flagged(p int, e event) {
	e.e.Offset = int64(len(w.flags[p]))
	w.flags[p] = append(w.flags[p], e)
}

func clone(x *row) *row {
	if x == nil {
		return new(row)
	}
	c := *x
	a, win := &x.counter.Account, &x.counter.Window // what is not written down is not copied
	c.counter.Account = wallet.Account{
		NextOffset: a.NextOffset, Balance: a.Balance, Deposits: a.Deposits, FirstAt: a.FirstAt, LastAt: a.LastAt,
		Origins: slices.Clone(a.Origins), Pacemaker: a.Pacemaker, Missed: a.Missed, RecentKeys: slices.Clone(a.RecentKeys),
	}
	c.counter.Window = wallet.Window{
		Rule: win.Rule, Cells: slices.Clone(win.Cells), Past: slices.Clone(win.Past), RuleChanges: win.RuleChanges, Told: slices.Clone(win.Told),
	}
	c.flag.RecentEventIDs = slices.Clone(c.flag.RecentEventIDs)
	return &c
}

func (w *world) inputEnd(g, p int) int64 {
	if g == threshold {
		return int64(len(w.deposits[p]))
	}
	return int64(len(w.flags[p]))
}

// --- the broker

// append stores a record unless a higher epoch has written since.
func (w *world) append(g, p int, epoch int32, r record) (offset int64, ok bool) {
	t := &w.tables[g][p]
	if w.bug != "no fencing" {
		if epoch < t.epoch {
			return 0, false
		}
		t.epoch = epoch
	}
	if r.key != claimKey {
		for i := len(t.records) - 1; i >= 0; i-- {
			if old := t.records[i]; old.key == r.key {
				if old.row.next(g) > r.row.next(g) {
					w.fail("a row of wallet %d:%d, group %d, version %d was followed by version %d", p, r.key, g, old.row.next(g), r.row.next(g))
				}
				break
			}
		}
		w.isFold(g, p, r)
	}
	t.records = append(t.records, r)
	return int64(len(t.records) - 1), true
}

// isFold: every row is the fold of a prefix of its input.
func (w *world) isFold(g, p int, r record) {
	if g != threshold {
		return // its input's order is not fixed by the deposits; judged at the end
	}
	want := w.expected[p][r.row.next(g)-1]
	if !same(want, r.row) {
		w.fail("the row of wallet %d:%d at %d holds %v, want %v", p, r.key, r.row.next(g), r.row.counter.Account.Balance, want.counter.Account.Balance)
	}
}

func same(a, b *row) bool {
	x, y := &a.counter, &b.counter
	return x.Account.NextOffset == y.Account.NextOffset && x.Account.Balance == y.Account.Balance && x.Account.Deposits == y.Account.Deposits &&
		tip(x) == tip(y) && len(x.Window.Cells) == len(y.Window.Cells)
}

func tip(c *wallet.Counter) int64 {
	if c.Tip == nil {
		return -1
	}
	return c.Tip.Offset
}

// compact keeps the newest of each key; the last record always stays.
func (w *world) compact() {
	t := &w.tables[w.pick(groups)][w.pick(partitions)]
	seen := map[int]bool{}
	for i := len(t.records) - 1; i >= 0; i-- {
		if i < len(t.records)-1 && seen[t.records[i].key] {
			t.records[i].gone = true
		}
		seen[t.records[i].key] = true
	}
	w.log("compaction")
}

// --- ownership

// rebalance gives a partition to an instance. The owner before it may not know
// yet.
func (w *world) rebalance(g, p, instance int) {
	if old := w.owners[g][p]; old != nil {
		old.zombie, old.budget = true, w.pick(4)
		w.zombies = append(w.zombies, old)
		w.log("group %d: instance %d loses partition %d, and may not know", g, old.instance, p)
	}
	w.owners[g][p] = &owner{group: g, instance: instance, partition: p, wireAt: -1, offset: -1}
	w.log("group %d: instance %d is assigned partition %d", g, instance, p)
}

// advance takes an owner one step towards running: epoch, claim, recovery.
func (w *world) advance(o *owner) {
	g, p := o.group, o.partition
	claimLast := w.bug == "claim after recovery"
	switch {
	case o.epoch == 0:
		w.epochs[g][p]++
		o.epoch = w.epochs[g][p]
		w.log("group %d/%d: instance %d gets epoch %d", g, p, o.instance, o.epoch)
	case !o.hasClaim && (!claimLast || o.recovered > 0):
		at, ok := w.append(g, p, o.epoch, record{key: claimKey})
		if !ok {
			w.drop(o)
			return
		}
		o.claimed, o.hasClaim = at, true
		o.running = claimLast
		if claimLast {
			o.offset = at
		}
		w.log("group %d/%d: instance %d claims at %d", g, p, o.instance, at)
	default:
		w.recover(o)
	}
}

func (w *world) recover(o *owner) {
	g, p := o.group, o.partition
	t := &w.tables[g][p]
	from := w.disks[g][o.instance][p]
	if o.hasClaim && from.offset >= o.claimed {
		from = empty // beyond the end of the log
	}
	o.rows, o.offset = from.rows, from.offset
	end := int64(len(t.records))
	if w.bug == "recovery stops before the claim" && end > 1 {
		end = max(o.offset+1, end-1-int64(w.pick(2)))
	}
	short := w.faults > 0 && end > o.offset+1 && w.pick(8) == 0
	if short { // its session ends, or a late leader tells an old end of the log
		w.faults--
		end = o.offset + 1 + int64(w.pick(int(end-o.offset-1)))
	}
	var repair [wallets]bool
	for at := o.offset + 1; at < end; at++ {
		r := t.records[at]
		o.offset = at
		if r.gone || r.key == claimKey {
			continue
		}
		if held := o.rows[r.key]; held.next(g) > r.row.next(g) {
			repair[r.key] = true
			continue
		}
		o.rows[r.key], repair[r.key] = r.row, false
	}
	if short && w.pick(2) == 0 && o.offset >= 0 { // what it has read may be on disk
		w.disks[g][o.instance][p] = disk{o.rows, o.offset}
		w.diskIsPrefix(g, p, w.disks[g][o.instance][p])
	}
	if short && w.bug != "recovery in part taken for whole" {
		w.log("group %d/%d: instance %d recovers in part, to %d", g, p, o.instance, o.offset)
		w.drop(o)
		return
	}
	o.next = w.committed[g][p]
	if o.next < 0 {
		o.next = w.inputEnd(g, p)
	}
	o.marked = o.next
	o.recovered++
	o.running = o.hasClaim
	for k, again := range repair {
		if again {
			o.put(put{key: k, row: o.rows[k]}, false, w.bug)
		}
	}
	w.log("group %d/%d: instance %d recovers to %d, reads on at %d", g, p, o.instance, o.offset, o.next)
}

// drop ends an owner: its process failed, and is built anew by a rebalance.
func (w *world) drop(o *owner) {
	if w.owners[o.group][o.partition] == o {
		w.owners[o.group][o.partition] = nil
	}
	w.zombies = slices.DeleteFunc(w.zombies, func(z *owner) bool { return z == o })
	w.log("group %d/%d: instance %d ends", o.group, o.partition, o.instance)
}

// --- the processor

// put queues a row, or puts it in the place of the newest of its key that waits.
func (o *owner) put(x put, replaces bool, bug string) {
	o.pending[x.key] = x.row
	i := len(o.puts) - 1
	for i >= 0 && o.puts[i].key != x.key {
		i--
	}
	if replaces && i >= 0 {
		o.puts[i].inputs = append(slices.Clone(o.puts[i].inputs), x.inputs...)
		if bug != "older row in place of the newer" {
			o.puts[i].row = x.row
		}
		return
	}
	o.waiting[x.key]++
	o.puts = append(o.puts, x)
}

func (o *owner) held(k int) *row {
	if o.waiting[k] > 0 {
		return o.pending[k]
	}
	return o.rows[k]
}

// process is one callback.
func (w *world) process(o *owner) {
	g, p := o.group, o.partition
	if !o.running || o.next >= w.inputEnd(g, p) {
		return
	}
	if o.zombie {
		if o.budget == 0 {
			return
		}
		o.budget--
	}
	at := o.next
	o.next++
	m := message{offset: at}
	var key int
	var verdict wallet.Verdict
	var out wallet.Outcome
	var c *row
	if g == threshold {
		d := w.deposits[p][at]
		key, c = d.wallet, clone(o.held(d.wallet))
		switch w.bug {
		case "no offset check":
			c.counter.Account.NextOffset, c.counter.Account.Origins = 0, nil
		case "sequence not remembered":
			c.counter.Account.Origins = nil
		case "one origin remembered":
			c.counter.Account.Origins = c.counter.Account.Origins[max(0, len(c.counter.Account.Origins)-1):]
		}
		out = c.counter.Apply(d.d, rule)
		verdict = out.Verdict
	} else {
		e := w.flags[p][at]
		key, c = e.wallet, clone(o.held(e.wallet))
		if w.bug == "tip not compared" {
			c.flag.NextTip = 0
		}
		verdict = c.flag.Apply(e.e)
	}
	again := verdict == wallet.Redelivered
	o.put(put{key, c, []int64{at}}, w.pick(2) == 0, w.bug)
	if w.bug != "marks before the answer" {
		m.missing++
	}
	if out.Emit && (!again || w.bug != "no emit again") {
		o.emits = append(o.emits, emit{key, *c.counter.Tip, at})
		m.missing++
	}
	o.inflight = append(o.inflight, m)
	w.mark(o)
	w.log("group %d/%d: instance %d folds %d: %s", g, p, o.instance, at, verdict)
}

// send appends the next batch, or the one on the wire once more.
func (w *world) send(o *owner) {
	if !o.hasClaim || !o.running {
		return
	}
	if len(o.wire) == 0 {
		if len(o.puts) == 0 {
			return
		}
		n := 1 + w.pick(len(o.puts))
		o.wire, o.puts, o.wireAt = o.puts[:n:n], o.puts[n:], -1
	}
	if o.wireAt >= 0 {
		return // the broker knows these bytes
	}
	for i, x := range o.wire {
		at, ok := w.append(o.group, o.partition, o.epoch, record{key: x.key, row: x.row})
		if !ok {
			w.log("group %d/%d: instance %d is refused", o.group, o.partition, o.instance)
			w.drop(o)
			return
		}
		if i == 0 {
			o.wireAt = at
		}
	}
	w.log("group %d/%d: instance %d writes %d rows at %d", o.group, o.partition, o.instance, len(o.wire), o.wireAt)
}

// answered brings the acknowledgement of the batch.
func (w *world) answered(o *owner) {
	if o.wireAt < 0 {
		return
	}
	if w.bug == "acknowledged by the leader alone" && w.pick(4) == 0 {
		t := &w.tables[o.group][o.partition]
		if int64(len(t.records)) == o.wireAt+int64(len(o.wire)) { // nobody has it yet
			t.records = t.records[:o.wireAt]
		}
	}
	for i, x := range o.wire {
		at := o.wireAt + int64(i)
		if at != o.offset+1 {
			w.log("group %d/%d: instance %d sees a gap at %d", o.group, o.partition, o.instance, at)
			w.drop(o)
			return
		}
		o.offset, o.rows[x.key] = at, x.row
		if o.waiting[x.key]--; o.waiting[x.key] == 0 {
			o.pending[x.key] = nil
		}
		if w.bug != "marks before the answer" {
			for _, input := range x.inputs {
				o.done(input)
			}
		}
	}
	o.wire, o.wireAt = nil, -1
	w.mark(o)
	w.log("group %d/%d: instance %d has its answer, up to %d", o.group, o.partition, o.instance, o.offset)
}

// tell appends a crossing; the answer may be lost, and it is appended again.
func (w *world) tell(o *owner) {
	if len(o.emits) == 0 {
		return
	}
	e := o.emits[0]
	tip := e.tip
	w.flagged(o.partition, event{wallet: e.wallet, e: wallet.FlagEvent{Crossing: &tip}})
	w.log("crossing of wallet %d:%d at deposit %d", o.partition, e.wallet, e.tip.Offset)
	if w.faults > 0 && w.pick(6) == 0 {
		w.faults--
		return
	}
	o.emits = o.emits[1:]
	o.done(e.input)
	w.mark(o)
}

func (o *owner) done(input int64) {
	for i := range o.inflight {
		if o.inflight[i].offset == input {
			o.inflight[i].missing--
		}
	}
}

// mark moves the mark over what is done, in order.
func (w *world) mark(o *owner) {
	for len(o.inflight) > 0 && o.inflight[0].missing <= 0 {
		o.marked = o.inflight[0].offset + 1
		o.inflight = o.inflight[1:]
	}
	if w.bug == "unordered marks" {
		for i := range o.inflight {
			if o.inflight[i].missing <= 0 {
				o.marked = o.inflight[i].offset + 1
			}
		}
	}
}

// commit stores the mark; the coordinator refuses those that lost the partition.
func (w *world) commit(o *owner) {
	if o.zombie || !o.running {
		return
	}
	g, p := o.group, o.partition
	w.committed[g][p] = o.marked
	w.log("group %d/%d: instance %d commits %d", g, p, o.instance, o.marked)
	w.committedIsDurable(g, p)
}

// committedIsDurable: the effects of all that is committed are in the logs.
func (w *world) committedIsDurable(g, p int) {
	upto := w.committed[g][p]
	var newest [wallets]int64
	for _, r := range w.tables[g][p].records {
		if !r.gone && r.key != claimKey {
			newest[r.key] = max(newest[r.key], r.row.next(g))
		}
	}
	for at := range upto {
		k := 0
		if g == threshold {
			k = w.deposits[p][at].wallet
		} else {
			k = w.flags[p][at].wallet
		}
		if newest[k] <= at {
			w.fail("group %d has committed %d of partition %d, but the row of wallet %d is at %d", g, upto, p, k, newest[k])
		}
	}
	if g != threshold {
		return
	}
	// A row keeps its latest crossing: after a crash an earlier one may never be
	// told, but then the later one is, and it raises whatever the earlier would.
	for _, at := range w.crossings[p] {
		k := w.deposits[p][at].wallet
		if at < upto && !slices.ContainsFunc(w.flags[p], func(e event) bool {
			return e.e.Crossing != nil && e.wallet == k && e.e.Crossing.Offset >= at
		}) {
			w.fail("deposit %d:%d is committed, but neither its crossing nor a later one was ever told", p, at)
		}
	}
}

// flush writes acknowledged rows and their offset to disk.
func (w *world) flush(o *owner) {
	if !o.running || o.offset < 0 {
		return
	}
	d := &w.disks[o.group][o.instance][o.partition]
	*d = disk{o.rows, o.offset}
	if w.bug == "values ahead of the offset" {
		for k := range wallets {
			d.rows[k] = o.held(k)
		}
	}
	if w.bug == "offset ahead of the values" {
		d.offset += int64(len(o.wire))
	}
	w.log("group %d/%d: instance %d flushes at %d", o.group, o.partition, o.instance, d.offset)
	w.diskIsPrefix(o.group, o.partition, *d)
}

func (w *world) diskIsPrefix(g, p int, d disk) {
	t := &w.tables[g][p]
	if d.offset >= int64(len(t.records)) {
		w.fail("the disk is at %d, the changelog ends at %d", d.offset, len(t.records))
	}
	var newest [wallets]*row
	// What compaction has removed was not read by who came later: its key is told again
	// behind the prefix.
	var removed [wallets]bool
	for _, r := range t.records[:d.offset+1] {
		if r.key == claimKey {
			continue
		}
		removed[r.key] = false
		if r.row.next(g) >= newest[r.key].next(g) {
			newest[r.key], removed[r.key] = r.row, r.gone
		}
	}
	for k := range wallets {
		held, told := d.rows[k].next(g), newest[k].next(g)
		if held != told && (held > told || !removed[k]) {
			w.fail("the disk at %d holds version %d of wallet %d:%d, the changelog %d", d.offset, held, p, k, told)
		}
	}
}

// --- views

// look lets a view read one more record, and its client look at it.
func (w *world) look() {
	g, p := w.pick(groups), w.pick(partitions)
	v, t := &w.views[g][p], &w.tables[g][p]
	if w.faults > 0 && w.pick(12) == 0 { // it starts again, with nothing
		w.faults--
		*v = view{shown: v.shown}
		w.log("view of group %d/%d starts again", g, p)
	}
	w.follow(v, t, g)
	for k := range wallets {
		if !v.ready && w.bug != "view shown before ready" {
			return
		}
		if now := v.rows[k].next(g); now < v.shown[k] {
			w.fail("the view of group %d showed version %d of wallet %d:%d, and then %d", g, v.shown[k], p, k, now)
		}
		v.shown[k] = v.rows[k].next(g)
	}
}

func (w *world) follow(v *view, t *changelog, g int) {
	for range 1 + w.pick(3) {
		if v.cursor >= int64(len(t.records)) {
			break
		}
		r := t.records[v.cursor]
		v.cursor++
		if r.gone || r.key == claimKey || r.row.next(g) < v.rows[r.key].next(g) {
			continue
		}
		v.rows[r.key] = r.row
	}
	v.ready = v.ready || v.cursor >= int64(len(t.records))
}
