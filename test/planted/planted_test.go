//go:build planted

// Package planted puts known bugs into a copy of the tree, one at a time, and
// demands that an ordinary test fails. There are no hooks for them in the
// product's code.
package planted

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bug is a small change, and the tests that must notice.
type bug struct {
	name, file, old, changed string
	tests                    string // packages, and -run if not all
}

var bugs = []bug{
	{"newest offset", "internal/kafka/client.go",
		"Offsets.Initial = sarama.OffsetOldest", "Offsets.Initial = sarama.OffsetNewest", "./internal/kafka -run Configs"},
	{"an offset that is not there is skipped", "internal/kafka/client.go",
		"ResetInvalidOffsets = false", "ResetInvalidOffsets = true", "./internal/kafka -run Configs"},
	{"no offset check", "internal/wallet/account.go",
		"if d.Offset < a.NextOffset {", "if d.Offset < -1 {", "./internal/wallet -run Account|History|Redeliver"},
	{"skip instead of set again", "internal/balance/balance.go",
		"	p.Count(verdict)\n", "	p.Count(verdict)\n	if verdict == wallet.Redelivered {\n		return\n	}\n", "./internal/balance"},
	{"no emit again", "internal/wallet/counter.go",
		"o.Emit = c.Tip != nil && d.Offset == c.Tip.Offset", "o.Emit = false", "./internal/threshold"},
	{"unordered marks", "internal/kafka/inflight.go",
		"	k.queue[i].done = true\n", "	k.queue[i].done = true\n	s.ConsumerGroupSession.MarkOffset(topic, partition, offset, metadata)\n", "./internal/kafka -run Marks"},
	{"float sums", "internal/wallet/amount.go",
		"	return Amount{Units: units, Nanos: nanos}, true\n}\n\nvar maxAmount",
		"	f := float64(units) + float64(nanos)/nanosPerUnit\n	return Amount{Units: uint64(f), Nanos: uint32((f - float64(uint64(f))) * nanosPerUnit)}, true\n}\n\nvar maxAmount", "./internal/wallet -run Amount"},
	{"at the threshold is above it", "internal/wallet/window.go",
		"if with.Cmp(w.Rule.Threshold) <= 0 {", "if with.Cmp(w.Rule.Threshold) < 0 {", "./internal/wallet -run Threshold|Examples|Window"},
	{"every deposit above the threshold crosses", "internal/wallet/window.go",
		"w.above(t, w.Rule) &&", "w.above(t, w.Rule) && false &&", "./internal/wallet -run Threshold|Examples|Window"},
	{"who was cleared and goes on is never flagged again", "internal/wallet/window.go",
		" && t-tipped < w.period() }", " }", "./internal/wallet -run Threshold"},
	{"above before under the old rule alone", "internal/wallet/window.go",
		"w.above(t, w.Rule) && (w.Rule == was || w.above(t, was))", "w.above(t, was)", "./internal/wallet -run Raised"},
	{"the flag moves with each crossing", "internal/wallet/flag.go",
		"	if f.Stands() {\n		f.Latest = &e", "	if false {\n		f.Latest = &e", "./internal/wallet -run Flag"},
	{"anchored window", "internal/wallet/window.go",
		"enter, last := leave, t+period-1", "enter, last := leave, t", "./internal/wallet"},
	{"wall clock", "internal/stream/check.go",
		"d.At, d.Partition, d.Offset = at,", "d.At, d.Partition, d.Offset = time.Now().UnixMilli(),", "./internal/threshold"},
	{"a deposit missing from the sum of a window", "internal/wallet/window.go",
		"	w.came(d.Amount)\n", "", "./internal/wallet -run Threshold|Examples|Window"},
	{"the slowest clock is not waited for", "internal/wallet/origin.go",
		"slowest = min(slowest, o.clock())", "slowest = o.clock()", "./internal/wallet -run Clock"},
	{"two clocks count the same minutes", "internal/wallet/origin.go",
		"		if i == pacemaker {\n", "		if true {\n", "./internal/wallet -run Clock"},
	{"a late deposit of another origin is not allowed for", "internal/wallet/origin.go",
		"slowest - waited*lateness", "slowest - lateness", "./internal/wallet -run Clock"},
	{"one wrong time empties the window", "internal/wallet/origin.go",
		"	if a.step > period {\n", "	if false {\n", "./internal/wallet -run Stray"},
	{"an absurd row is taken", "internal/stream/rowcodec.go",
		"return malformed(c.Check())", "return nil", "./internal/stream -run Absurd"},
	{"a delivered message is not noted", "internal/kafka/inflight.go",
		"	k.queue = append(k.queue, delivered{msg: m})\n", "	if n := len(k.queue); n%2 == 0 {\n		k.queue = append(k.queue, delivered{msg: m})\n	}\n", "./internal/kafka -run Marks|Delivered"},
	{"a changed part of a row is written as it was", "internal/wallet/window.go",
		"	w.cells.change(i)\n", "", "./internal/stream -run Keep"},
	{"a kept row for other bytes", "internal/stream/kept.go",
		" || &row.was.data[0] != &data[0]", "", "./internal/stream -run Keep"},
	{"key not remembered", "internal/wallet/account.go",
		"	if d.HasKey {\n		if use", "	if false {\n		if use", "./internal/wallet"},
	{"a repeat counts", "internal/wallet/origin.go",
		"if i >= 0 && d.Origin != 0 && d.Sequence <= list[i].Sequence {", "if false {", "./internal/wallet ./internal/model -run Repeat|Schedules"},
	{"numbered before the queue", "internal/kafka/lane.go",
		"			l.numbered++\n			r.value = l.number(r.value, l.numbered)\n", "			l.numbered++\n			r.value = l.number(r.value, l.numbered^1)\n", "./internal/kafka -run Numbered"},
	{"codec that fails", "internal/stream/stream_encoders.go",
		`return &Malformed{Reason: "empty value"}`, `panic("empty value")`, "./internal/stream"},
	{"offset ahead of the values", "internal/store/store.go",
		"min(s.offset, s.held-1)", "min(s.offset, s.held-1)+1", "./internal/store"},
	{"rows on disk before their answer", "internal/store/store.go",
		"		s.last = e\n", "		s.last = e\n		s.stored(e, value)\n", "./internal/store"},
	{"an answer to a row of before is kept", "internal/store/store.go",
		"e == nil || !e.pending {", "e == nil {", "./internal/store"},
	{"memory forgets what is not on disk", "internal/store/cache.go",
		"e.dirty || e.pending || e.batch > written || ", "e.dirty || e.pending || ", "./internal/store -run Cache"},
	{"recovery reads faster than the disk takes it", "internal/store/store.go",
		"s.dirtySize >= s.share(2)", "false", "./internal/store -run Bounded"},
	{"rows on their way to disk are not found", "internal/store/fresh.go",
		"r = in(f.writing, n-f.first+len(f.writing), key)", "r = nil", "./internal/store -run Fresh"},
	{"a row that another replaced is never answered", "internal/kafka/lane.go",
		"		done(offset, err)\n	}\n	r.done", "		_ = done\n	}\n	r.done", "./internal/kafka -run Newest -timeout 20s"},
	{"an older row takes the place of a newer one", "internal/kafka/lane.go",
		"q.value, q.done = r.value, r.done", "q.done = r.done", "./internal/kafka -run Newest -timeout 20s"},
	{"a connection is not asked which cluster it leads to", "internal/kafka/guard.go",
		"if !g.checked && !preliminary(p) {", "if false && !preliminary(p) {", "./internal/kafka -run Reaches"},
	{"an answer counts for a topic of that name", "internal/kafka/log.go",
		"w.confirm = c.cluster != nil", "w.confirm = false", "./internal/kafka -run MadeAnew"},
	{"added partitions are used", "internal/kafka/cluster.go",
		"return p >= c.cluster.Partitions", "return false", "./internal/kafka -run PartitionsAdded"},
	{"the flagger does not know whose deposits its flags name", "internal/app/input.go",
		"return []goka.Stream{of, stream.DepositStream}", "return []goka.Stream{of}", "./internal/app -run Input"},
	{"gap not noticed", "internal/store/store.go",
		"if s.offset != noOffset && offset != s.offset+1 {", "if false {", "./internal/store -run Gap|Acked|Model|Store"},
	{"state beyond the log is kept", "internal/store/store.go",
		"if s.offset >= s.limit {", "if false {", "./internal/store -run ThrowsAway"},
	{"no fencing", "internal/kafka/table.go",
		"id := t.Group.TransactionalID(partition)", "id := t.Group.TransactionalID(partition) + fmt.Sprint(time.Now().UnixNano())", "./internal/kafka -run Owner"},
	{"recovery before the claim", "internal/kafka/group.go",
		"	if err := h.claim(s); err != nil {\n		return err\n	}\n", "", "./internal/kafka -run Handler"},
	{"view served before it is ready", "internal/app/views.go",
		"	if view == nil {\n		return nil, errCatchingUp\n	}\n", "	if view == nil {\n		return nil, nil\n	}\n", "./internal/app -run CaughtUp"},
	{"deposits acknowledged by the leader alone", "internal/kafka/writer.go",
		"RequiredAcks: sarama.WaitForAll", "RequiredAcks: sarama.WaitForLocal", "./internal/kafka -run Produce"},
	{"a failed batch's number is used again", "internal/kafka/lane.go",
		"		l.askRenewal()\n", "", "./internal/kafka -run LogGoesOn"},
	{"unknown offset taken for success", "internal/kafka/lane.go",
		"return 0, errUnknownOffset", "return 0, nil", "./internal/kafka -run UnknownOffset"},
	{"older rows accepted", "internal/app/tables.go",
		"held != nil && version(value) < version(held)", "false", "./internal/app -run Updater"},
	{"stale row not written over", "internal/app/owned.go",
		"p.repair[key] = true", "delete(p.repair, key)", "./internal/app -run Stale -timeout 20s"},
	{"overflow wraps", "internal/wallet/amount.go",
		"if over != 0 || units > math.MaxInt64 {", "if over != 0 {", "./internal/wallet ./internal/balance"},
	{"overflow does not wait for its dead letter", "internal/balance/balance.go",
		"!stored(ctx, p.SetAside(ctx, errOverflow))", "p.SetAside(ctx, errOverflow) == nil", "./internal/balance"},
	{"not set aside", "internal/flagger/flagger.go",
		"		p.SetAside(ctx, reason)\n", "", "./internal/flagger"},
	{"unknown called refused", "internal/app/deposits.go",
		`done(api.Position{}, fmt.Errorf("%w: %w", api.ErrUnknown, err))`, `done(api.Position{}, fmt.Errorf("%w: %w", api.ErrRefused, err))`, "./internal/app -run Append"},
	{"half a line taken for a deposit", "internal/api/lines.go",
		"if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {", "if err != nil && len(line) == 0 {", "./internal/api -run Stream"},
	{"late answer given to another line", "internal/api/bulk.go",
		"s.ring[at%window] = nil //", "//", "./internal/api -run Stream"},
	{"nobody remembers the keys that rows forgot", "internal/api/deposit.go",
		"return a.Tables.Forgotten(o.walletID, h)", "return wallet.KeyUse{}, false", "./internal/api -run Keys"},
	{"a key counts whatever its sender looked into", "internal/wallet/account.go",
		"if d.KeyChecked > 0 && a.ForgotSince(d.KeyChecked-1) {", "if false {", "./internal/api ./internal/wallet -run Keys|Stale"},
	{"a key leaves the book with its request", "internal/api/deposit.go",
		"defer a.keys.unsent(u)", "defer a.keys.leave(u)", "./internal/api -run Keys"},
	{"any number of keys under way", "internal/api/keys.go",
		"if w.places() >= maxUnderWay ||", "if", "./internal/api -run Keys"},
	{"a misnamed key is ignored", "internal/api/body.go",
		`bytes.Contains(letters, []byte("idempoten"))`, "false", "./internal/api -run Slips"},
	{"forgotten keys are known after the row is there", "internal/app/views.go",
		"		if err := v.keys.before(s, key, value); err != nil {\n			return err\n		}\n", "		defer func() { _ = v.keys.before(s, key, value) }()\n", "./internal/app -run Forgotten"},
	{"late crossing undoes a removal", "internal/wallet/flag.go",
		"if e.Crossing.Offset < f.NextTip {", "if false {", "./internal/wallet ./internal/flagger -run Flag|Event"},
}

func TestPlantedBugs(t *testing.T) {
	tree := copyTree(t)
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			path := filepath.Join(tree, b.file)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(before), b.old); n != 1 {
				t.Fatalf("%s has the place to change %d times: %q", b.file, n, b.old)
			}
			after := strings.Replace(string(before), b.old, b.changed, 1)
			if strings.Contains(b.changed, "time.Now") && !strings.Contains(after, "\t\"time\"\n") {
				after = strings.Replace(after, "import (\n", "import (\n\t\"time\"\n", 1)
			}
			if err := os.WriteFile(path, []byte(after), 0o600); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := os.WriteFile(path, before, 0o600); err != nil {
					t.Fatal(err)
				}
			}()
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1", "-vet=off", "-failfast"}, strings.Fields(b.tests)...)...)
			cmd.Dir = tree
			out, err := cmd.CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("no test of %s noticed", b.tests)
			case !bytes.Contains(out, []byte("--- FAIL")) && !bytes.Contains(out, []byte("panic:")):
				t.Errorf("%s did not fail by a test:\n%.2000s", b.tests, out)
			default:
				line, _, _ := strings.Cut(string(out[max(0, bytes.Index(out, []byte("--- FAIL"))):]), "\n")
				t.Logf("caught: %s", line)
			}
		})
	}
}

// copyTree copies what git knows or would add.
func copyTree(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	files, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	for _, name := range strings.Split(strings.Trim(string(files), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, not committed
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}
