package app

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"

	"coinbit/internal/replay"
	"coinbit/internal/show"
	"coinbit/internal/stream"
)

var teachDeadLetter = []string{
	"What balance and flagger could not apply lies in deposit_dead_letter and flag_wallet_dead_letter,",
	"as it came. Each letter is shown with its time, where it came from, why it was set aside, its key,",
	"and as much of its value as can be decoded. After a crash one may lie there twice. Kafka is only read.",
	"",
	"Is there any?",
	"    coinbit -service=deadletter",
	"How many for each reason?",
	"    coinbit -service=deadletter -json | jq -r .reason | sort | uniq -c",
	"The bytes of the first one, as they came:",
	"    coinbit -service=deadletter -json | head -1 | jq -r .value_base64 | base64 -d | xxd",
}

func deadLetterFlags(fs *flag.FlagSet, c *Command) {
	fs.BoolVar(&c.JSON, "json", false, "an object a line for each letter")
}

// runDeadLetter lists what was set aside. It only reads.
func runDeadLetter(ctx context.Context, rt *Runtime, cmd Command) error {
	rights := stream.RightsOf("deadletter")
	cluster, err := rt.client.Inspect(ctx, stream.TopicsIn(rights), rights...)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(rt.stdout)
	write := show.LetterText
	if cmd.JSON {
		write = show.LetterJSON
	}
	n := 0
	err = replay.DeadLetters(ctx, rt.client.In(cluster), func(l replay.Letter) error {
		n++
		return write(buffered, l)
	})
	if err == nil && !cmd.JSON {
		_, err = fmt.Fprintf(buffered, "%d set aside\n", n)
	}
	if err := errors.Join(err, buffered.Flush()); err != nil {
		return fmt.Errorf("deadletter: %w", err)
	}
	return nil
}
