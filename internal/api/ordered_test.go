package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// object is a JSON object that keeps its members' order.
type object []member

type member struct {
	Key   string
	Value any
}

func (o object) get(key string) any {
	for _, m := range o {
		if m.Key == key {
			return m.Value
		}
	}
	return nil
}

// at follows keys; nil where there is none.
func (o object) at(keys ...string) any {
	var v any = o
	for _, k := range keys {
		inner, ok := v.(object)
		if !ok {
			return nil
		}
		v = inner.get(k)
	}
	return v
}

func (o object) keys() (keys []string) {
	for _, m := range o {
		keys = append(keys, m.Key)
	}
	return keys
}

// without is a copy without a member.
func (o object) without(key string) (rest object) {
	for _, m := range o {
		if m.Key != key {
			rest = append(rest, m)
		}
	}
	return rest
}

// MarshalJSON keeps the order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		for _, v := range []any{m.Key, m.Value} {
			data, err := marshal(v)
			if err != nil {
				return nil, err
			}
			b.Write(data)
			b.WriteByte(':')
		}
		b.Truncate(b.Len() - 1)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// ordered reads YAML: objects, []any, strings, and json.Number, bool or nil. Numbers
// stay as they were written.
func ordered(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.DocumentNode:
		return ordered(n.Content[0])
	case yaml.AliasNode:
		return ordered(n.Alias)
	case yaml.MappingNode:
		o := object{}
		for i := 0; i < len(n.Content); i += 2 {
			v, err := ordered(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			o = append(o, member{n.Content[i].Value, v})
		}
		return o, nil
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			v, err := ordered(c)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!int", "!!float":
			return json.Number(n.Value), nil
		case "!!bool":
			return n.Value == "true", nil
		case "!!null":
			return nil, nil //nolint:nilnil // null
		default:
			return n.Value, nil
		}
	}
	return nil, fmt.Errorf("line %d: what is this?", n.Line)
}
