package stream

import "google.golang.org/protobuf/encoding/protowire"

// AccountVersion is next_offset of an encoded Balance or Counter row, -1 for
// bytes that are no row. It reads only what it needs.
func AccountVersion(row []byte) int64 {
	account, ok := field(row, 1, protowire.BytesType)
	if !ok {
		return -1
	}
	inner, n := protowire.ConsumeBytes(account)
	if n < 0 {
		return -1
	}
	return FlagVersion(inner)
}

// FlagVersion is next_offset of an encoded Flag row, -1 for bytes that are no row.
func FlagVersion(row []byte) int64 {
	rest, ok := field(row, 1, protowire.VarintType)
	if !ok {
		return -1
	}
	v, n := protowire.ConsumeVarint(rest)
	if n < 0 {
		return -1
	}
	return int64(v) //nolint:gosec // protobuf's int64
}

// field returns the bytes from the value of the first field num of type typ on.
func field(b []byte, num protowire.Number, typ protowire.Type) ([]byte, bool) {
	for len(b) > 0 {
		n, t, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			return nil, false
		}
		b = b[tag:]
		if n == num && t == typ {
			return b, true
		}
		skip := protowire.ConsumeFieldValue(n, t, b)
		if skip < 0 {
			return nil, false
		}
		b = b[skip:]
	}
	return nil, false
}
