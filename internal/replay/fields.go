package replay

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// Field is one field of a message as it stands on the wire. Text holds what a client
// sent, which may be any bytes.
type Field struct{ Name, Text string }

// messageOf is what a dead letter topic's source carries.
func messageOf(deadLetters string) protoreflect.MessageDescriptor {
	if deadLetters == string(stream.FlagWalletDeadLetter) {
		return (*pb.FlagEvent)(nil).ProtoReflect().Descriptor()
	}
	return (*pb.Deposit)(nil).ProtoReflect().Descriptor()
}

// decode reads fields up to the first byte that belongs to none, and tells how many
// bytes are left from there on. A field that md does not know has its number for a name.
func decode(md protoreflect.MessageDescriptor, b []byte) (fields []Field, rest int) {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fields, len(b)
		}
		size := protowire.ConsumeFieldValue(number, typ, b[n:])
		if size < 0 {
			return fields, len(b)
		}
		fields = append(fields, field(md.Fields().ByNumber(number), number, typ, b[n:n+size])...)
		b = b[n+size:]
	}
	return fields, 0
}

// field is what value, which is whole, says: of a message its fields, one by one.
func field(fd protoreflect.FieldDescriptor, number protowire.Number, typ protowire.Type, value []byte) []Field {
	if fd == nil {
		return []Field{{fmt.Sprintf("field_%d", number), wireText(typ, value)}}
	}
	name := string(fd.Name())
	inner, _ := protowire.ConsumeBytes(value)
	if fd.Message() == nil || typ != protowire.BytesType {
		text := wireText(typ, value)
		if ms, err := strconv.ParseInt(text, 10, 64); err == nil && strings.HasSuffix(name, "_ms") {
			text += " (" + time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) + ")"
		}
		return []Field{{name, text}}
	}
	fields, rest := decode(fd.Message(), inner)
	for i := range fields {
		fields[i].Name = name + "." + fields[i].Name
	}
	if len(fields) == 0 || rest > 0 {
		fields = append(fields, Field{name, fmt.Sprintf("%d bytes not decoded", rest)})
	}
	return fields
}

// wireText is a value as its wire type has it: integers as signed, as ours are.
func wireText(typ protowire.Type, value []byte) string {
	switch typ { //nolint:exhaustive // groups are in no message of ours
	case protowire.VarintType:
		v, _ := protowire.ConsumeVarint(value)
		return strconv.FormatInt(int64(v), 10) //nolint:gosec // as protobuf's int64
	case protowire.Fixed64Type:
		v, _ := protowire.ConsumeFixed64(value)
		return fmt.Sprintf("%#x", v)
	case protowire.Fixed32Type:
		v, _ := protowire.ConsumeFixed32(value)
		return fmt.Sprintf("%#x", v)
	case protowire.BytesType:
		v, _ := protowire.ConsumeBytes(value)
		return string(v)
	}
	return fmt.Sprintf("%d bytes", len(value))
}
