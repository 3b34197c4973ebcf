package verify_test

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// corrupt changes the i-th scalar or list field of a message, those of its
// messages included, and names it; false when there is none.
func corrupt(m proto.Message, i int) (string, bool) { return corruptAt("", m.ProtoReflect(), &i) }

func corruptAt(path string, m protoreflect.Message, i *int) (string, bool) {
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		name := path + string(f.Name())
		if f.Message() != nil && !f.IsList() {
			if m.Has(f) {
				if name, ok := corruptAt(name+".", m.Mutable(f).Message(), i); ok {
					return name, true
				}
			}
			continue
		}
		if *i--; *i >= 0 {
			continue
		}
		if f.IsList() && f.Message() != nil {
			m.Mutable(f).List().AppendMutable()
			return name, true
		}
		if f.IsList() {
			if l := m.Mutable(f).List(); l.Len() > 0 {
				l.Set(l.Len()-1, changed(f, l.Get(l.Len()-1)))
			} else {
				l.Append(changed(f, l.NewElement()))
			}
			return name, true
		}
		m.Set(f, changed(f, m.Get(f)))
		return name, true
	}
	return "", false
}

func changed(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(append([]byte{'x'}, v.Bytes()...))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v.Uint()) + 1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(v.Uint() + 1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v.Int()) + 1)
	default:
		return protoreflect.ValueOfInt64(v.Int() + 1)
	}
}
