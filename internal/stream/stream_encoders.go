package stream

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
)

// Malformed is what a codec returns for bytes it cannot decode. Goka stops a
// processor whose codec errs, so codecs are total and the callback decides.
type Malformed struct {
	// Reason says what is wrong, for the dead letter.
	Reason string
}

// protoCodec encodes and decodes one protobuf message type. It is a goka.Codec.
type protoCodec[T any, M interface {
	*T
	proto.Message
}] struct{}

// Encode returns the wire bytes of value, which must be of the codec's type.
func (protoCodec[T, M]) Encode(value interface{}) ([]byte, error) {
	m, ok := value.(M)
	if !ok || m == nil {
		return nil, fmt.Errorf("encode: want %T, got %T", M(nil), value)
	}
	return proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, proto.Size(m)+numberSize), m)
}

// Decode returns the message, or *Malformed for bytes that are none. Its error
// is always nil.
func (protoCodec[T, M]) Decode(data []byte) (interface{}, error) {
	m := M(new(T))
	if bad := unmarshal(data, m); bad != nil {
		return bad, nil
	}
	return m, nil
}

func unmarshal(data []byte, m proto.Message) *Malformed {
	if len(data) == 0 {
		return &Malformed{Reason: "empty value"}
	}
	if proto.Unmarshal(data, m) != nil {
		return &Malformed{Reason: fmt.Sprintf("not a %s message", m.ProtoReflect().Descriptor().Name())}
	}
	return nil
}

// The codecs, one for each stream and table, BalanceEncoder and CounterEncoder
// among them. All of them are total.
type (
	// DepositEncoder is the codec of DepositStream: *pb.Deposit.
	DepositEncoder = protoCodec[pb.Deposit, *pb.Deposit]
	// FlagEventEncoder is the codec of FlagWalletStream: *pb.FlagEvent.
	FlagEventEncoder = protoCodec[pb.FlagEvent, *pb.FlagEvent]
	// FlagEncoder is the codec of the flagger table: *pb.Flag.
	FlagEncoder = protoCodec[pb.Flag, *pb.Flag]
)

// numberSize is the most that NumberDeposit appends, for which encoded messages have room.
const numberSize = 1 + 8 + 1 + binary.MaxVarintLen64

// NumberDeposit appends origin and sequence to an encoded Deposit that has neither.
func NumberDeposit(deposit []byte, origin, sequence uint64) []byte {
	deposit = protowire.AppendFixed64(protowire.AppendTag(deposit, 7, protowire.Fixed64Type), origin)
	return protowire.AppendVarint(protowire.AppendTag(deposit, 8, protowire.VarintType), sequence)
}
