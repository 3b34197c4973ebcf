package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"coinbit/internal/api"
)

var update = flag.Bool("update", false, "write openapi.json, docs.html and docs/errors.md")

// operations are the handlers of the routes, by name, and for a stream what answers
// its lines.
var operations = map[string]struct{ handler, lines string }{
	"POST /api/deposit":            {handler: "API.deposit"},
	"POST /api/deposits":           {handler: "API.bulk", lines: "stream.run"},
	"GET /api/check/{wallet_id}":   {handler: "API.check"},
	"GET /api/wallets/{wallet_id}": {handler: "API.wallet"},
	"GET /api/flags":               {handler: "API.flags"},
	"GET /openapi.json":            {handler: "API.openapi"},
	"GET /docs":                    {handler: "API.docs"},
}

// kind is a problem's place in the document.
type kind struct {
	code, title           string
	status                int
	means, remedy, detail string
}

func (k kind) typ() string { return "urn:coinbit:problem:" + k.code }

// source is the document as written, its problems apart.
func source(t *testing.T) (object, []kind) {
	t.Helper()
	data, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var n yaml.Node
	if err := yaml.Unmarshal(data, &n); err != nil {
		t.Fatal(err)
	}
	v, err := ordered(&n)
	if err != nil {
		t.Fatal(err)
	}
	doc := v.(object)
	titles := map[string]kind{}
	for both, status := range api.Kinds() {
		code, title, _ := strings.Cut(both, "|")
		titles[code] = kind{code: code, title: title, status: status}
	}
	var kinds []kind
	for _, m := range doc.get("x-problems").(object) {
		k, ok := titles[m.Key]
		delete(titles, m.Key)
		o := m.Value.(object)
		k.means, _ = o.get("means").(string)
		k.remedy, _ = o.get("remedy").(string)
		k.detail, _ = o.get("detail").(string)
		if !ok || k.means == "" || k.remedy == "" || k.detail == "" {
			t.Errorf("x-problems: %s is no code, or says too little", m.Key)
		}
		kinds = append(kinds, k)
	}
	for code := range titles {
		t.Errorf("x-problems lacks %s", code)
	}
	return doc.without("x-problems"), kinds
}

func pick(kinds []kind, codes []string) (list []kind) {
	for _, k := range kinds {
		if slices.Contains(codes, k.code) {
			list = append(list, k)
		}
	}
	return list
}

// document is the whole: what is written, and what the code can answer with.
func document(t *testing.T) (object, []kind) {
	t.Helper()
	doc, kinds := source(t)
	r := reachOf(t)
	paths, shared := doc.get("paths").(object), object{}
	for i, path := range paths {
		item := path.Value.(object)
		for j, op := range item {
			method := strings.ToUpper(op.Key)
			o, ok := operations[method+" "+path.Key]
			if !ok {
				t.Fatalf("no handler for %s %s", method, path.Key)
			}
			codes := r.problems(t, []string{o.lines}, o.handler, "front.bounded")
			codes = append(codes, "overloaded") // which is also said of too many connections
			if strings.HasPrefix(path.Key, "/api/") {
				codes = append(codes, r.problems(t, nil, "guard.admit")...)
			}
			item[j].Value = withProblems(op.Value.(object), pick(kinds, codes), &shared)
			if o.lines != "" {
				item[j].Value = withLines(item[j].Value.(object), pick(kinds, r.problems(t, nil, o.lines)))
			}
		}
		if get, ok := item.get("get").(object); ok {
			item = append(item, member{"head", headOf(get, shared)})
		}
		paths[i].Value = item
	}
	components := doc.get("components").(object)
	for i, m := range doc {
		if m.Key == "components" {
			doc[i].Value = append(components, member{"responses", shared})
		}
	}
	var types []any
	for _, k := range kinds {
		types = append(types, k.typ())
	}
	problem := doc.at("components", "schemas", "Problem", "properties").(object)
	for i, m := range problem {
		if m.Key == "type" {
			problem[i].Value = append(m.Value.(object), member{"enum", types})
		}
	}
	return doc, kinds
}

// withProblems adds the answers of an operation that are problems, by status. Each
// is in shared once.
func withProblems(op object, kinds []kind, shared *object) object {
	byStatus := map[int][]kind{}
	for _, k := range kinds {
		byStatus[k.status] = append(byStatus[k.status], k)
	}
	responses := op.get("responses").(object)
	for status := 400; status < 600; status++ {
		if len(byStatus[status]) == 0 {
			continue
		}
		var codes []string
		for _, k := range byStatus[status] {
			codes = append(codes, k.code)
		}
		name := strings.Join(codes, ".")
		if shared.get(name) == nil {
			*shared = append(*shared, member{name, problemResponse(status, byStatus[status])})
		}
		responses = append(responses, member{strconv.Itoa(status), object{{"$ref", sharedResponse + name}}})
	}
	return append(op.without("responses"), member{"responses", responses})
}

const sharedResponse = "#/components/responses/"

// response is a response, or what it refers to.
func response(v any, shared object) object {
	o := v.(object)
	if ref, ok := o.get("$ref").(string); ok {
		return shared.get(strings.TrimPrefix(ref, sharedResponse)).(object)
	}
	return o
}

func problemResponse(status int, kinds []kind) object {
	var codes []string
	var types []any
	examples := object{}
	for _, k := range kinds {
		codes = append(codes, k.code)
		types = append(types, k.typ())
		examples = append(examples, member{k.code, object{{"value", object{
			{"type", k.typ()}, {"title", k.title}, {"status", k.status}, {"detail", k.detail},
			{"code", k.status}, {"data", nil}, {"message", k.detail},
		}}}})
	}
	response := object{{"description", http.StatusText(status) + ": " + strings.Join(codes, ", ")}}
	header := func(name, what string, schema object) {
		response = append(response, member{"headers", object{{name, object{
			{"description", what}, {"required", true}, {"schema", schema}}}}})
	}
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		header("Retry-After", "Seconds to wait.", object{{"type", "integer"}, {"minimum", 1}})
	case http.StatusUnauthorized:
		header("WWW-Authenticate", "The scheme.", object{{"type", "string"}, {"const", "Bearer"}})
	}
	return append(response, member{"content", object{{"application/problem+json", object{
		{"schema", object{
			{"allOf", []any{
				object{{"$ref", "#/components/schemas/Problem"}},
				object{{"properties", object{
					{"type", object{{"enum", types}}}, {"status", object{{"const", status}}}, {"code", object{{"const", status}}},
				}}},
			}},
		}},
		{"examples", examples},
	}}}})
}

// withLines says which problems a line may be answered with.
func withLines(op object, kinds []kind) object {
	var codes []string
	for _, k := range kinds {
		codes = append(codes, fmt.Sprintf("%d `%s`", k.status, k.code))
	}
	text := strings.TrimRight(op.get("description").(string), "\n") + "\n\nA line may be answered with " + strings.Join(codes, ", ") + ".\n"
	for i, m := range op {
		if m.Key == "description" {
			op[i].Value = text
		}
	}
	return op
}

// headOf is HEAD beside GET: the same, without bodies.
func headOf(get, shared object) object {
	head := object{}
	for _, m := range get {
		switch m.Key {
		case "operationId":
			head = append(head, member{m.Key, m.Value.(string) + "Head"})
		case "summary":
			head = append(head, member{m.Key, m.Value.(string) + ", its headers alone"})
		case "description":
		case "responses":
			responses := object{}
			for _, r := range m.Value.(object) {
				responses = append(responses, member{r.Key, response(r.Value, shared).without("content")})
			}
			head = append(head, member{m.Key, responses})
		default:
			head = append(head, m)
		}
	}
	return head
}

func indented(t *testing.T, v any) []byte {
	t.Helper()
	data, err := marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), '\n')
}

// generated holds a file to what it is generated from.
func generated(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, want) {
		t.Errorf("%s is stale (%v): run make openapi", path, err)
	}
}

// The document is what is written and what the code can do, no more and no less.
func TestDocument(t *testing.T) {
	doc, kinds := document(t)
	generated(t, "openapi.json", indented(t, doc))
	generated(t, "../../docs/errors.md", errorsPage(kinds))
	generated(t, "docs.html", docsPage(t, doc, kinds))
}

// Every route and method is in the document, and the other way round.
func TestDocumentHasTheRoutes(t *testing.T) {
	doc, _ := source(t)
	var want []string
	for _, path := range doc.get("paths").(object) {
		for _, method := range path.Value.(object).keys() {
			want = append(want, strings.ToUpper(method)+" "+path.Key)
			if method == "get" {
				want = append(want, "HEAD "+path.Key)
			}
		}
	}
	a, err := api.New(newWorld().options())
	if err != nil {
		t.Fatal(err)
	}
	got := a.Routes()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("routes %v\ndocument %v", got, want)
	}
	for op := range operations {
		if !slices.Contains(want, op) {
			t.Errorf("the document lacks %s", op)
		}
	}
}

// errorsPage is docs/errors.md.
func errorsPage(kinds []kind) []byte {
	var b strings.Builder
	b.WriteString(`# Errors

Every error is ` + "`application/problem+json`" + ` (RFC 9457): ` + "`type`" + ` is the stable code below after
` + "`urn:coinbit:problem:`" + `, ` + "`title`, `status` and `detail`" + ` are for people. It also carries the
success envelope's three fields: ` + "`code`" + ` (the status), ` + "`data`" + ` (null) and ` + "`message`" + ` (the detail).
Codes are never renamed, and a code keeps its status. Of a stream of deposits, each line that
does not count has the same ` + "`type` and `code`" + `.

What matters for money: 503 means that nothing counts, as it was not sent or Kafka refused it; 504 that the outcome
is not known. A repeat that is recognised by its ` + "`Idempotency-Key`" + ` is no error: it is answered as
the first time, with ` + "`Idempotency-Replayed: true`" + `.

Generated from internal/api by ` + "`make openapi`" + `; a test fails when it is stale.

| status | code | it means | what to do |
| --- | --- | --- | --- |
`)
	for _, k := range kinds {
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", k.status, k.code, k.means, k.remedy)
	}
	return []byte(b.String())
}
