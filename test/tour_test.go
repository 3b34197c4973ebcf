//go:build kafka

package test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"coinbit/internal/kafkatest/child"
)

// tourStep is one block of commands of the tour and the answer that the page shows.
type tourStep struct {
	line     int
	commands string
	answer   string
}

// tourSteps are the blocks of a page that begin with ```sh. A block without a language
// that follows one is its answer.
func tourSteps(page string) (all []tourStep) {
	parts := strings.Split(page, "\n```sh\n")
	line := 1
	for i, part := range parts[1:] {
		line += strings.Count(parts[i], "\n") + 2
		commands, rest, _ := strings.Cut(part, "\n```\n")
		s := tourStep{line: line, commands: commands}
		if answer, ok := strings.CutPrefix(rest, "\n```\n"); ok {
			s.answer, _, _ = strings.Cut(answer, "\n```\n")
		}
		all = append(all, s)
	}
	return all
}

// as is a pattern for an answer, in which … stands for anything within a line.
func as(answer string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(answer), "…", ".+") + "$")
}

// TestTour runs every command of docs/tour.md, in order, as a reader would: with
// "make run" in one terminal and the rest in another. Only ports and the
// directory of the data are others.
func TestTour(t *testing.T) {
	api, broker := freeAddr(t), freeAddr(t)
	data := t.TempDir()
	_, port, _ := net.SplitHostPort(api)
	_, brokerPort, _ := net.SplitHostPort(broker)
	own := strings.NewReplacer("localhost:8000", "localhost:"+port, "localhost:9092", "localhost:"+brokerPort, " data/", " "+data+"/")
	env := append(os.Environ(), ownSettings...)
	env = append(env, "PORT="+port, "BROKER=localhost:"+brokerPort, "DATA_DIR="+filepath.Join(data, "kafka"), "STATE_DIR="+filepath.Join(data, "state"))
	var suite *child.Process
	said := &output{}
	stop := func() {
		if suite == nil {
			return
		}
		_ = suite.SignalGroup(syscall.SIGINT) // Ctrl-C goes to all of a terminal's
		if !suite.Wait(30 * time.Second) {
			_ = suite.SignalGroup(syscall.SIGKILL)
			t.Errorf("make run does not end\n%s", said.tail(25))
		}
		suite = nil
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("make run said:\n%s", said.tail(25))
		}
	})
	ran := 0
	for _, s := range tourSteps(readRepo(t, "docs/tour.md")) {
		if s.commands == "make run" {
			cmd := exec.Command("make", "run")
			cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "..", env, said, said
			var err error
			if suite, err = child.Start(cmd); err != nil {
				t.Fatal(err)
			}
			release, err := suite.Guard()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(release)
			continue
		}
		if strings.HasPrefix(s.commands, "rm ") { // the page says Ctrl-C first
			stop()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", own.Replace(s.commands))
		cmd.Dir, cmd.Env = "..", env
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		cancel()
		if err != nil {
			t.Fatalf("docs/tour.md:%d: %s: %v\n%s", s.line, s.commands, err, out)
		}
		if got := answerOf(string(out)); !as(s.answer).MatchString(got) {
			t.Fatalf("docs/tour.md:%d: %s\nanswers\n%s\nthe page says\n%s", s.line, s.commands, got, s.answer)
		}
		ran++
	}
	if ran < 10 {
		t.Errorf("%d blocks ran: the page is not understood", ran)
	}
}

var unended = regexp.MustCompile(`\}([{\w])`)

// answerOf is an output as the page shows it: what the API answers is a line, though
// it does not end one.
func answerOf(out string) string {
	out = unended.ReplaceAllString(strings.ReplaceAll(out, "\r", ""), "}\n$1")
	return strings.TrimSpace(out)
}

// TestTourSteps: the extraction and the comparison, on a page of its own.
func TestTourSteps(t *testing.T) {
	all := tourSteps("# x\n\n```sh\na\nb\n```\n\n```\n1 of …\n```\n\ntext\n\n```sh\nc\n```\n\n| t |\n")
	if want := []tourStep{{4, "a\nb", "1 of …"}, {15, "c", ""}}; !slices.Equal(all, want) {
		t.Fatalf("%v, want %v", all, want)
	}
	for answer, want := range map[string]bool{"1 of 7": true, "1 of ": false, "1 of 7\n8": false, "11 of 7": false} {
		if as(all[0].answer).MatchString(answer) != want {
			t.Errorf("%q: want %v", answer, want)
		}
	}
}
