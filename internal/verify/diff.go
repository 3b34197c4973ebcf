package verify

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// diff tells each field in which got differs from want, messages by their own
// fields and lists as a whole.
func diff(path string, got, want protoreflect.Message, each func(field, got, want string)) {
	fields := want.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := path + string(f.Name())
		if f.Message() != nil && !f.IsList() {
			if got.Has(f) != want.Has(f) {
				each(name, shown(got, f), shown(want, f))
			} else if got.Has(f) {
				diff(name+".", got.Get(f).Message(), want.Get(f).Message(), each)
			}
			continue
		}
		if !got.Get(f).Equal(want.Get(f)) {
			each(name, shown(got, f), shown(want, f))
		}
	}
	if len(got.GetUnknown()) > 0 {
		each(path+"(unknown)", fmt.Sprintf("%x", []byte(got.GetUnknown())), "nothing")
	}
}

// shown is a field's value, long lists cut short.
func shown(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsList():
		l := m.Get(f).List()
		s := fmt.Sprintf("%d values", l.Len())
		for i := range min(3, l.Len()) {
			if f.Message() != nil {
				s += fmt.Sprintf(" (%.80v)", l.Get(i).Message().Interface())
			} else {
				s += fmt.Sprintf(" %v", l.Get(i))
			}
		}
		return s
	case f.Message() != nil && !m.Has(f):
		return "none"
	case f.Message() != nil:
		return fmt.Sprintf("%.80v", m.Get(f).Message().Interface())
	case f.Kind() == protoreflect.BytesKind:
		return fmt.Sprintf("%x", m.Get(f).Bytes())
	}
	return m.Get(f).String()
}
