package replay_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/IBM/sarama"

	"coinbit/internal/pb"
	"coinbit/internal/replay"
)

func header(k, v string) *sarama.RecordHeader {
	return &sarama.RecordHeader{Key: []byte(k), Value: []byte(v)}
}

func aside(reason, topic, partition, offset string) []*sarama.RecordHeader {
	return []*sarama.RecordHeader{header("dead-letter-reason", reason), header("dead-letter-topic", topic),
		header("dead-letter-partition", partition), header("dead-letter-offset", offset)}
}

func TestDeadLetters(t *testing.T) {
	w := newWorld(t)
	whole := w.encode(&pb.Deposit{WalletId: "a", Units: 5, AcceptedAtMs: start, Origin: 3, Sequence: 1})
	// A client's own header of a name of ours is not believed.
	w.append("deposit_dead_letter", 1, []byte("b"), whole,
		append([]*sarama.RecordHeader{header("dead-letter-reason", "forged"), header("x", "1")}, aside("key and wallet_id differ", "deposit", "3", "17")...)...)
	w.append("deposit_dead_letter", 2, nil, append(slices.Clone(whole), 0xff), aside("malformed", "deposit", "0", "1")...)
	w.append("flag_wallet_dead_letter", 0, []byte("a"), w.encode(&pb.FlagEvent{WalletId: "a",
		Event: &pb.FlagEvent_Removal{Removal: &pb.OperatorRemoval{AtMs: 1, RemovedUpto: -1}}}), aside("removal with a negative offset", "flag_wallet", "0", "0")...)
	w.append("flag_wallet_dead_letter", 3, []byte("c"), nil) // by another hand
	// Too large to copy.
	w.append("deposit_dead_letter", 3, []byte("d"), whole[:2], append(aside("malformed", "deposit", "1", "2"),
		header("dead-letter-key-size", "1"), header("dead-letter-key-sha256", "k"),
		header("dead-letter-value-size", "9437184"), header("dead-letter-value-sha256", "v"), header("dead-letter-headers-size", "0"))...)

	var got []string
	err := replay.DeadLetters(context.Background(), w, func(l replay.Letter) error {
		got = append(got, fmt.Sprintf("%s %s %q from %s %s: %s, %d headers, %v, %d left",
			l.Topic, l.Position, l.Key, l.SourceTopic, l.SourcePosition, l.Reason, len(l.Headers), l.Fields, l.Undecoded))
		if (l.Described != nil) != (string(l.Key) == "d") || l.Described != nil && l.Described.ValueSize != "9437184" {
			t.Errorf("%s is described as %+v", l.Key, l.Described)
		}
		return nil
	})
	w.must(err)
	const fields = "[{wallet_id a} {units 5} {accepted_at_ms 1700000000000 (2023-11-14T22:13:20Z)} {origin 0x3} {sequence 1}]"
	want := []string{
		`deposit_dead_letter 1:0 "b" from deposit 3:17: key and wallet_id differ, 2 headers, ` + fields + `, 0 left`,
		`deposit_dead_letter 2:0 "" from deposit 0:1: malformed, 0 headers, ` + fields + `, 1 left`,
		`deposit_dead_letter 3:0 "d" from deposit 1:2: malformed, 0 headers, [], 2 left`,
		`flag_wallet_dead_letter 0:0 "a" from flag_wallet 0:0: removal with a negative offset, 0 headers, ` +
			`[{wallet_id a} {removal.at_ms 1 (1970-01-01T00:00:00.001Z)} {removal.removed_upto -1}], 0 left`,
		`flag_wallet_dead_letter 3:0 "c" from  : , 0 headers, [], 0 left`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}
