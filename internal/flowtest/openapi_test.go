package flowtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// described is as much of the document as the examples need.
type described struct {
	Paths      json.RawMessage
	Components struct{ Responses map[string]answered }
}

type operation struct {
	Parameters []struct {
		Name, In string
		Examples map[string]struct{ Value json.RawMessage }
	}
	RequestBody struct{ Content json.RawMessage }
	Responses   map[string]answered
}

type answered struct {
	Ref     string `json:"$ref"`
	Headers map[string]struct{ Required bool }
	Content json.RawMessage
}

type media struct{ Examples json.RawMessage }

// members are the members of a JSON object, in order.
func members(t *testing.T, raw json.RawMessage) (keys []string, values map[string]json.RawMessage) {
	t.Helper()
	if raw == nil {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &values); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	for depth, last := 0, true; ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return keys, values
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth, last = depth+1, true
			continue
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth != 1 {
			continue
		}
		if key, ok := token.(string); ok && last {
			keys, last = append(keys, key), false
		} else {
			last = true
		}
	}
}

func decoded[T any](t *testing.T, raw json.RawMessage) (v T) {
	t.Helper()
	if raw == nil {
		return v
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestOpenAPI sends every example of the document to the running suite, in the
// document's order, and holds each answer to the schema and to the example's.
func TestOpenAPI(t *testing.T) {
	s := newSuite(t, startBroker(t), "THRESHOLD_AMOUNT=10000", "ROLLING_PERIOD=2m")
	status, text := s.get("api", "/openapi.json", nil)
	if status != http.StatusOK {
		t.Fatal(status, text)
	}
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	schemas := jsonschema.NewCompiler()
	schemas.AssertFormat()
	if err := schemas.AddResource(document, parsed); err != nil {
		t.Fatal(err)
	}
	doc := decoded[described](t, json.RawMessage(text))
	e := &examples{suite: s, schemas: schemas, shared: doc.Components.Responses, positions: map[string]string{}}
	paths, items := members(t, doc.Paths)
	for _, path := range paths {
		methods, operations := members(t, items[path])
		for _, method := range methods {
			if method != "head" {
				e.operation(t, method, path, decoded[operation](t, operations[method]))
			}
		}
	}
	if e.n < 12 {
		t.Errorf("only %d examples", e.n)
	}
}

// examples runs them.
type examples struct {
	*suite
	schemas   *jsonschema.Compiler
	shared    map[string]answered
	positions map[string]string // of a wallet's last deposit
	n         int
}

func (e *examples) operation(t *testing.T, method, path string, op operation) {
	t.Helper()
	var names []string
	bodies := map[string]json.RawMessage{}
	kinds, contents := members(t, op.RequestBody.Content)
	for _, kind := range kinds {
		var values map[string]json.RawMessage
		names, values = members(t, decoded[media](t, contents[kind]).Examples)
		for name, raw := range values {
			bodies[name] = decoded[struct{ Value json.RawMessage }](t, raw).Value
		}
	}
	for _, p := range op.Parameters {
		for name := range p.Examples {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		t.Run(method+" "+path+" "+name, func(t *testing.T) {
			outer := e.t
			defer func() { e.t = outer }()
			e.n, e.t = e.n+1, t
			once := func() error { return e.example(t, method, path, op, name, kinds, bodies[name]) }
			if method == "get" { // what a list shows may take a moment
				e.eventually("the example's answer", once)
			} else if err := once(); err != nil {
				t.Error(err)
			}
		})
	}
}

var anyPosition = regexp.MustCompile(`"position":"\d+:\d+"`)

func (e *examples) example(t *testing.T, method, path string, op operation, name string, kinds []string, body json.RawMessage) error {
	t.Helper()
	at := pointer("paths", path, method)
	wantStatus, want := e.wanted(t, op, name)
	valid := func(what string, data []byte, place ...string) {
		t.Helper()
		if wantStatus == http.StatusOK {
			e.valid(t, what, data, at+pointer(place...))
		}
	}
	header, route := http.Header{}, path
	for i, p := range op.Parameters {
		value, ok := p.Examples[name]
		if !ok {
			continue
		}
		valid("parameter "+p.Name, value.Value, "parameters", fmt.Sprint(i), "schema")
		text := strings.Trim(string(value.Value), `"`)
		switch p.In {
		case "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", text)
			if position := e.positions[text]; position != "" {
				header.Set("X-Deposit-Position", position)
			}
		case "query":
			path += "?" + p.Name + "=" + text
		case "header":
			header.Set(p.Name, text)
		}
	}
	sent := string(body)
	switch {
	case body == nil:
	case body[0] == '"': // lines
		sent = decoded[string](t, body)
		header.Set("Content-Type", kinds[0])
	default:
		valid("body", body, "requestBody", "content", kinds[0], "schema")
		header.Set("Content-Type", kinds[0])
	}
	status, text, got := e.request(strings.ToUpper(method), "api", path, sent, header)
	if status != wantStatus {
		return fmt.Errorf("%d %s, want %d", status, text, wantStatus)
	}
	if position := got.Get("X-Deposit-Position"); position != "" {
		e.positions[decoded[struct {
			WalletID string `json:"wallet_id"`
		}](t, body).WalletID] = position
	}
	e.asDescribed(t, at, op, status, text, got)
	if got, want := flat([]byte(text)), flat(want); got != want && (os.Getenv("BROKER") == "" || route != "/api/flags") {
		return fmt.Errorf("got  %s\nwant %s", got, want)
	}
	if (name == "replayed") != (got.Get("Idempotency-Replayed") == "true") {
		t.Errorf("Idempotency-Replayed is %q", got.Get("Idempotency-Replayed"))
	}
	return nil
}

// document is what the document is called; pointer is a place in it.
const document = "file:///openapi.json"

func pointer(tokens ...string) string {
	var b strings.Builder
	for _, each := range tokens {
		b.WriteString("/" + url.PathEscape(strings.ReplaceAll(strings.ReplaceAll(each, "~", "~0"), "/", "~1")))
	}
	return b.String()
}

// valid holds JSON to the schema at a place.
func (e *examples) valid(t *testing.T, what string, data []byte, at string) {
	t.Helper()
	schema, err := e.schemas.Compile(document + "#" + at)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Errorf("%s: %s: %v", what, data, err)
		return
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("%s: %s: %v", what, data, err)
	}
}

// wanted is the answer that has the example's name.
func (e *examples) wanted(t *testing.T, op operation, name string) (status int, body []byte) {
	t.Helper()
	for code, a := range op.Responses {
		if a.Ref != "" {
			a = e.shared[a.Ref[strings.LastIndex(a.Ref, "/")+1:]]
		}
		_, contents := members(t, a.Content)
		for _, raw := range contents {
			_, values := members(t, decoded[media](t, raw).Examples)
			if raw, ok := values[name]; ok {
				_, _ = fmt.Sscan(code, &status)
				body = decoded[struct{ Value json.RawMessage }](t, raw).Value
			}
		}
	}
	if status == 0 {
		t.Fatalf("no answer is described for the example %s", name)
	}
	if body[0] == '"' {
		body = []byte(decoded[string](t, body))
	}
	return status, body
}

// flat is JSON without white space, and without what depends on the broker.
func flat(data []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, data) != nil {
		b.Reset()
		b.Write(data)
	}
	return anyPosition.ReplaceAllString(b.String(), `"position":"P:O"`)
}

// asDescribed holds an answer to its schema, each line of many to a line's, and looks
// for the headers that are promised.
func (e *examples) asDescribed(t *testing.T, at string, op operation, status int, text string, header http.Header) {
	t.Helper()
	a, at := op.Responses[fmt.Sprint(status)], at+pointer("responses", fmt.Sprint(status))
	if a.Ref != "" {
		at = strings.TrimPrefix(a.Ref, "#")
		a = e.shared[at[strings.LastIndex(at, "/")+1:]]
	}
	for name, h := range a.Headers {
		if h.Required && header.Get(name) == "" {
			t.Errorf("no header %s", name)
		}
	}
	kind, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	at += pointer("content", kind, "schema")
	if kind != "application/x-ndjson" {
		e.valid(t, "answer", []byte(text), at)
		return
	}
	for each := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		e.valid(t, "line", []byte(each), at+pointer("contentSchema"))
	}
}
