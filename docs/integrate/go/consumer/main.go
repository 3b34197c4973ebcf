// Command consumer follows topic flag_wallet and tells of each flag that is raised or
// removed, once: the example of docs/integrate.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb" // yours: protoc --go_out=. proto/flag.proto
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "integrate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	brokers := flag.String("brokers", "localhost:9092", "Kafka's bootstrap servers, comma-separated")
	group := flag.String("group", "flag-consumer-go", "consumer group")
	path := flag.String("journal", "flags.ndjson", "file of the events taken, one a line")
	every := flag.Duration("commit-every", time.Second, "pause between two commits of offsets")
	flag.Parse()
	book, err := openJournal(*path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(*brokers, ",")...),
		kgo.ConsumerGroup(*group),
		kgo.ConsumeTopics("flag_wallet"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // a new group begins with the first flag
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(10*time.Second), // how soon one that was killed is missed
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for committed := time.Now(); ; {
		polling, cancel := context.WithTimeout(ctx, *every) // to commit also when nothing comes
		records := client.PollFetches(polling)
		cancel()
		if err := records.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			return err
		}
		for _, r := range records.Records() {
			e, err := decode(r)
			if err != nil { // the suite sets it aside too, in flag_wallet_dead_letter
				fmt.Fprintf(os.Stderr, "flag_wallet %d:%d is passed over: %v\n", r.Partition, r.Offset, err)
				continue
			}
			if err := book.take(e); err != nil {
				return err
			}
		}
		if err := book.Sync(); err != nil { // the effect is on disk: now it may be committed
			return err
		}
		if ctx.Err() == nil && time.Since(committed) < *every {
			continue
		}
		committing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		err := client.CommitUncommittedOffsets(committing)
		cancel()
		if err != nil || ctx.Err() != nil {
			return err
		}
		committed = time.Now()
	}
}

func decode(r *kgo.Record) (event, error) {
	var m pb.FlagEvent
	if err := proto.Unmarshal(r.Value, &m); err != nil {
		return event{}, err
	}
	e := event{Wallet: m.GetWalletId()}
	if e.Wallet == "" || e.Wallet != string(r.Key) {
		return e, errors.New("key and wallet_id differ")
	}
	switch v := m.GetEvent().(type) {
	case *pb.FlagEvent_Crossing:
		evidence := v.Crossing.GetEvidence()
		if evidence == nil {
			return e, errors.New("a crossing without evidence")
		}
		e.Kind, e.Version = "crossing", evidence.GetOffset()
	case *pb.FlagEvent_Raise:
		e.Kind, e.ID = "raise", v.Raise.GetEventId()
	case *pb.FlagEvent_Removal:
		e.Kind, e.ID, e.Version = "removal", v.Removal.GetEventId(), v.Removal.GetRemovedUpto()
	default:
		return e, errors.New("an event of an unknown kind")
	}
	return e, nil
}
