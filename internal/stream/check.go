package stream

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// Record is where and under which key a value was delivered.
type Record struct {
	Key        string
	Partition  int32
	Offset     int64
	Partitions int32 // of the topic
}

// maxEventTime is the last millisecond of the year 9999: a later time is no
// deposit but garbage that would distort a window.
const maxEventTime = 253402300799999

// ErrEarlierBuild says that a deposit was written by a build from before deposits named
// their origin. It counted by rules that this build does not have, so it is neither
// folded nor set aside: the service ends.
var ErrEarlierBuild = errors.New("this deposit was written by a build before the first release, which numbered deposits otherwise: " +
	"go on with that build, or start on a new cluster and bring the balances over as deposits")

// CheckDeposit decides whether a delivered value is a deposit that may be
// folded; its error is the reason for the dead letter. value is what
// DepositEncoder decoded, nil for a record without a value.
func CheckDeposit(r Record, value any) (wallet.Deposit, error) {
	var none wallet.Deposit
	m, err := keyed[pb.Deposit](r, value, (*pb.Deposit).GetWalletId)
	if err != nil {
		return none, err
	}
	amount, err := wallet.NewDepositAmount(m.Units, m.Nanos)
	if err != nil {
		return none, fmt.Errorf("impossible amount: %w", err)
	}
	if m.AcceptedAtMs <= 0 || m.AcceptedAtMs > maxEventTime {
		return none, fmt.Errorf("impossible time: accepted_at_ms is %d", m.AcceptedAtMs)
	}
	if (m.Origin == 0) != (m.Sequence == 0) {
		return none, fmt.Errorf("impossible origin: an origin and a sequence go together")
	}
	d := wallet.Deposit{Amount: amount, At: m.AcceptedAtMs, Origin: m.Origin, Sequence: m.Sequence, Partition: r.Partition, Offset: r.Offset}
	if m.IdempotencyKey != "" {
		if err := wallet.ValidKey(m.IdempotencyKey); err != nil {
			return none, err
		}
		d.Key, d.HasKey, d.KeyChecked = wallet.HashKey(m.IdempotencyKey), true, m.KeyChecked
	}
	if _, named := field(m.ProtoReflect().GetUnknown(), 5, protowire.Fixed64Type); named {
		return none, ErrEarlierBuild
	}
	return d, nil
}

// ReadDeposit is CheckDeposit of a record's value as it lies in the log, nil for none.
// balance, threshold and every replay ask it, so they always agree. What an API of ours
// wrote it reads without a message in between.
func ReadDeposit(r Record, value []byte) (wallet.Deposit, error) {
	if d, ok := plainDeposit(r, value); ok {
		return d, nil
	}
	return CheckDeposit(r, decoded(new(DepositEncoder).Decode, value))
}

// ReadFlagEvent is ReadDeposit for FlagWalletStream.
func ReadFlagEvent(r Record, value []byte) (wallet.FlagEvent, error) {
	return CheckFlagEvent(r, decoded(new(FlagEventEncoder).Decode, value))
}

// decoded is a value as Goka hands it to a callback. Codecs are total.
func decoded(decode func([]byte) (any, error), value []byte) any {
	if value == nil {
		return nil
	}
	v, _ := decode(value)
	return v
}

// keyChecked is the one field of a deposit that does not stand in order.
const keyChecked = 9

// plainDeposit reads a deposit with which nothing is wrong; it is false for all else.
//
//nolint:gosec // numbers are as protobuf has them
func plainDeposit(r Record, value []byte) (d wallet.Deposit, ok bool) {
	var units, at int64
	var nanos int32
	fields := reader{rest: value}
	for fields.next() {
		switch fields.number {
		case 1:
			ok = fields.typ == protowire.BytesType && string(fields.bytes) == r.Key
		case 2:
			units = int64(fields.number64())
		case 3:
			nanos = int32(fields.number64())
		case 4:
			at = int64(fields.number64())
		case 6:
			key := string(fields.bytes)
			if fields.typ != protowire.BytesType || wallet.ValidKey(key) != nil {
				return d, false
			}
			d.Key, d.HasKey = wallet.HashKey(key), true
		case 7:
			d.Origin = fields.fixed64()
		case 8:
			d.Sequence = fields.number64()
		case keyChecked: // what the writer appended comes behind it
			d.KeyChecked, fields.number = int64(fields.number64()), 6
		default:
			return d, false
		}
	}
	if (d.Origin == 0) != (d.Sequence == 0) {
		return d, false
	}
	if !ok || fields.bad || at <= 0 || at > maxEventTime || wallet.ValidWalletID(r.Key) != nil || Partition(r.Key, r.Partitions) != r.Partition {
		return d, false
	}
	if !d.HasKey {
		d.KeyChecked = 0
	}
	d.Amount, _ = wallet.NewDepositAmount(units, nanos)
	d.At, d.Partition, d.Offset = at, r.Partition, r.Offset
	return d, d.Amount != wallet.Amount{}
}

// CheckFlagEvent is CheckDeposit for FlagWalletStream.
func CheckFlagEvent(r Record, value any) (wallet.FlagEvent, error) {
	e := wallet.FlagEvent{Offset: r.Offset}
	m, err := keyed[pb.FlagEvent](r, value, (*pb.FlagEvent).GetWalletId)
	if err != nil {
		return e, err
	}
	switch v := m.Event.(type) {
	case *pb.FlagEvent_Crossing:
		e.Crossing = loadEvidence(v.Crossing.GetEvidence())
		if e.Crossing == nil {
			return e, fmt.Errorf("crossing without evidence")
		}
		if e.Crossing.Partition != r.Partition || e.Crossing.Offset < 0 {
			return e, fmt.Errorf("crossing names an impossible deposit %d:%d", e.Crossing.Partition, e.Crossing.Offset)
		}
		if e.Parts, err = loadParts(v.Crossing.GetParts()); err != nil {
			return e, fmt.Errorf("crossing: %w", err)
		}
		if err = e.Crossing.Check(); err == nil {
			err = wallet.CheckParts(e.Parts)
		}
		if err != nil {
			return e, fmt.Errorf("crossing: %w", err)
		}
		if len(e.Parts) > wallet.MaxParts {
			return e, fmt.Errorf("crossing names %d deposits, at most %d are kept", len(e.Parts), wallet.MaxParts)
		}
	case *pb.FlagEvent_Raise:
		e.Raise, e.ID, e.At = true, v.Raise.GetEventId(), v.Raise.GetAtMs()
	case *pb.FlagEvent_Removal:
		e.Remove, e.ID, e.At, e.RemovedUpto = true, v.Removal.GetEventId(), v.Removal.GetAtMs(), v.Removal.GetRemovedUpto()
		if e.RemovedUpto < 0 {
			return e, fmt.Errorf("removal with a negative offset")
		}
	default:
		return e, fmt.Errorf("flag event of an unknown kind")
	}
	return e, nil
}

// keyed checks what every keyed topic demands of a record.
func keyed[M any](r Record, value any, walletOf func(*M) string) (*M, error) {
	switch v := value.(type) {
	case nil:
		return nil, fmt.Errorf("no value")
	case *Malformed:
		return nil, fmt.Errorf("malformed: %s", v.Reason)
	case *M:
		id := walletOf(v)
		switch {
		case r.Key == "":
			return nil, fmt.Errorf("no key")
		case wallet.ValidWalletID(r.Key) != nil:
			return nil, fmt.Errorf("key is no wallet_id")
		case id != r.Key:
			return nil, fmt.Errorf("key and wallet_id differ")
		case Partition(r.Key, r.Partitions) != r.Partition:
			return nil, fmt.Errorf("wrong partition: wallet belongs on %d", Partition(r.Key, r.Partitions))
		}
		return v, nil
	default:
		return nil, fmt.Errorf("malformed: %T", value)
	}
}
