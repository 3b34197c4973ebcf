package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"time"

	"coinbit/internal/kafka"
	"coinbit/internal/out"
	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// flagTimeout is how long the operator waits for the flagger.
const flagTimeout = 30 * time.Second

var teachFlag = []string{
	"The event goes through topic flag_wallet like a crossing does. The command waits until the",
	"flagger has applied it and prints the flag. A flag that was cleared comes back with the",
	"wallet's next crossing.",
	"",
	"Clear a wallet's flag, once somebody has looked at it:",
	"    coinbit -service=flag -wallet 69da5a28 -remove",
	"Raise one by hand:",
	"    coinbit -service=flag -wallet 69da5a28",
}

func flagFlags(fs *flag.FlagSet, c *Command) {
	fs.StringVar(&c.Wallet, "wallet", "", "whose flag: a `WALLET_ID`")
	fs.BoolVar(&c.Remove, "remove", false, "clear the flag instead of raising it")
}

func checkFlag(c *Command) error {
	if c.Wallet == "" {
		return errors.New("-wallet is missing: whose flag?")
	}
	return nil
}

// runFlag raises or clears a wallet's flag: it emits a FlagEvent, waits until
// the flagger's row has applied it and prints the result.
func runFlag(ctx context.Context, rt *Runtime, cmd Command) error {
	if err := wallet.ValidWalletID(cmd.Wallet); err != nil {
		return usageError{fmt.Errorf("-wallet: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, flagTimeout)
	defer cancel()
	cluster, err := rt.ensureFor(ctx, stream.RightsOf("flag"))
	if err != nil {
		return err
	}
	client := rt.client.In(cluster)
	partition := stream.Partition(cmd.Wallet, cluster.Partitions)
	event, err := rt.flagEvent(ctx, client, cmd, partition)
	if err != nil {
		return err
	}
	value, err := new(stream.FlagEventEncoder).Encode(event)
	if err != nil {
		return err
	}
	table := string(stream.FlaggerGroup.Table())
	from, err := client.HighWater(ctx, table, partition) // before the event: its row comes after
	if err != nil {
		return err
	}
	offset, err := client.Send(ctx, string(stream.FlagWalletStream), cmd.Wallet, value)
	if err != nil {
		return fmt.Errorf("flag_wallet: %w", err)
	}
	if err := client.Still(ctx); err != nil {
		return fmt.Errorf("flag_wallet: it is not known whether the event is stored: %w", err)
	}
	flag, err := awaitFlag(ctx, client, table, partition, from, cmd.Wallet, offset)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the event is stored at flag_wallet %d:%d but was not applied within %s: is the flagger running?",
			partition, offset, flagTimeout)
	}
	if err != nil {
		return err
	}
	printFlag(rt.stdout, cmd.Wallet, flag, partition, offset)
	return rt.stdout.Err()
}

func printFlag(o *out.Writer, walletID string, flag wallet.Flag, partition int32, offset int64) {
	state := "not flagged"
	if flag.Raised() {
		state = "flagged"
	}
	o.F("%s: %s (flag_wallet %d:%d)\n", walletID, state, partition, offset)
}

// flagEvent is what the operator says. A removal names the high watermark of the
// wallet's deposits: crossings below it are removed, also those still under way.
func (rt *Runtime) flagEvent(ctx context.Context, client *kafka.Client, cmd Command, partition int32) (*pb.FlagEvent, error) {
	id, at := rand.Uint64()|1, rt.now().UnixMilli() //nolint:gosec // no secret; and 0 would be no id
	if !cmd.Remove {
		return &pb.FlagEvent{WalletId: cmd.Wallet,
			Event: &pb.FlagEvent_Raise{Raise: &pb.OperatorRaise{EventId: id, AtMs: at}}}, nil
	}
	upto, err := client.HighWater(ctx, string(stream.DepositStream), partition)
	if err != nil {
		return nil, err
	}
	return &pb.FlagEvent{WalletId: cmd.Wallet,
		Event: &pb.FlagEvent_Removal{Removal: &pb.OperatorRemoval{EventId: id, AtMs: at, RemovedUpto: upto}}}, nil
}

// awaitFlag reads the flagger's changelog from an offset on until walletID's row
// has applied the event.
func awaitFlag(ctx context.Context, client *kafka.Client, table string, partition int32, from int64, walletID string, event int64) (wallet.Flag, error) {
	var flag wallet.Flag
	err := client.Read(ctx, table, partition, from, func(key string, value []byte) (bool, error) {
		if key != walletID || value == nil {
			return false, nil
		}
		row, err := new(stream.FlagEncoder).Decode(value)
		if err != nil {
			return false, err
		}
		flag, err = stream.LoadFlag(row)
		return err == nil && flag.NextOffset > event, err
	})
	return flag, err
}
