package store

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// writerDir is set in the process that is killed.
const writerDir = "COINBIT_STORE_WRITER"

const killKeys = 61

// killRecord is the record at offset o of the changelog of the kill test. It is
// large, so that LevelDB turns its journals over while it is killed.
func killRecord(o int64) (key string, value []byte) {
	return fmt.Sprintf("k%02d", o*7%killKeys), []byte(fmt.Sprintf("%d|", o) + strings.Repeat("x", 3000))
}

// writeUntilKilled writes records and says how far it is. It needs no memory of
// the last run: the offset on disk tells where to go on.
func writeUntilKilled(dir string) int {
	s := newStore(dir, Lead)
	if err := s.Open(); err != nil {
		fmt.Println("error", err)
		return 1
	}
	o, err := s.GetOffset(noOffset)
	if err != nil {
		return 1
	}
	_ = s.MarkRecovered()
	for o++; ; o++ {
		k, v := killRecord(o)
		if err := s.Set(k, v); err != nil {
			return 1
		}
		if err := s.Acked(k, v, o); err != nil {
			fmt.Println("error", err)
			return 1
		}
		if o%50 == 0 {
			if o%1000 == 0 {
				if err := s.flush(); err != nil {
					return 1
				}
			}
			fmt.Println(o)
		}
	}
}

// Killed in the middle of anything, the files are a prefix of the changelog; an
// empty one when the kill tore a record of LevelDB's journal.
func TestKilled(t *testing.T) {
	dir := t.TempDir() + "/p"
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	last := int64(noOffset)
	grew := 0
	for round := range 8 {
		said := runAndKill(t, dir, last+int64(2000+r.IntN(8000)))
		rows, o := inDir(t, dir, Lead)
		if o < last && o != noOffset {
			t.Fatalf("round %d: back from offset %d to %d", round, last, o)
		}
		if o > last {
			grew++
		}
		last = o
		want := make(map[string]string)
		for p := max(0, o-killKeys+1); p <= o; p++ { // none for an empty store
			k, v := killRecord(p)
			want[k] = string(v)
		}
		same(t, fmt.Sprintf("round %d: at offset %d, killed after %d", round, o, said), rows, want)
	}
	if grew == 0 {
		t.Fatal("nothing was ever on disk: the test shows nothing")
	}
}

// runAndKill runs a writer until it says that it is at offset until.
func runAndKill(t *testing.T, dir string, until int64) (said int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), writerDir+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if said, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Errorf("the writer says %q", lines.Text())
			break
		}
		if said >= until {
			break
		}
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	if said < until {
		t.Fatalf("the writer ended at %d, before %d", said, until)
	}
	return said
}
