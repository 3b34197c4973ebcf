package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What testdata/docs.tmpl is filled with.
type (
	docsData struct {
		Title, Summary, Description string
		Operations                  []docsOperation
		Kinds                       []docsKind
		Types                       []docsType
	}
	docsOperation struct {
		ID, Method, Path, Summary, Description string
		Parameters, Headers                    []docsField
		Body, Answer                           *docsContent
		Examples                               []docsExample
		Problems                               []docsProblem
	}
	docsField struct {
		Name, In, Meaning string
		Required          bool
		Type              docsRef
	}
	docsContent struct {
		Media, Meaning string
		Lines          bool
		Type           docsRef
	}
	docsExample struct{ Summary, Request, Answer string }
	docsProblem struct {
		Status string
		Codes  []string
	}
	docsKind struct {
		Code, Means, Remedy string
		Status              int
	}
	docsType struct {
		Name, Description string
		Type              docsRef
		Fields            []docsField
	}
	// docsRef is the name of a type, and what else there is to say.
	docsRef struct{ Ref, Text, Pattern string }
)

func str(v any) string {
	s, _ := v.(string)
	return s
}

func obj(v any) object {
	o, _ := v.(object)
	return o
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

var spans = regexp.MustCompile("`([^`]+)`|\\*\\*([^*]+)\\*\\*")

// inline is one paragraph, prose several.
func inline(text string) template.HTML {
	marked := spans.ReplaceAllStringFunc(html.EscapeString(strings.TrimSpace(text)), func(m string) string {
		if m[0] == '`' {
			return "<code>" + m[1:len(m)-1] + "</code>"
		}
		return "<b>" + m[2:len(m)-2] + "</b>"
	})
	return template.HTML(marked) // escaped above
}

func prose(text string) (all template.HTML) {
	for p := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if p != "" {
			all += "<p>" + inline(p) + "</p>\n"
		}
	}
	return all
}

func refOf(schema object) docsRef {
	if ref := str(schema.get("$ref")); ref != "" {
		return docsRef{Ref: ref[strings.LastIndex(ref, "/")+1:]}
	}
	if any := list(schema.get("anyOf")); len(any) == 2 { // and null
		return docsRef{Ref: refOf(any[0].(object)).Ref, Text: " or null"}
	}
	if items := obj(schema.get("items")); items != nil {
		return docsRef{Ref: refOf(items).Ref, Text: ", a list"}
	}
	text := str(schema.get("type"))
	if types := list(schema.get("type")); types != nil {
		text = fmt.Sprint(types[0], " or ", types[1])
	}
	if values := list(schema.get("enum")); values != nil && len(values) < 5 {
		text += fmt.Sprintf(": %v", values)
	}
	for _, rule := range []struct{ key, text string }{
		{"const", ", always %v"}, {"minimum", ", from %v"}, {"exclusiveMinimum", ", above %v"}, {"maximum", " to %v"},
		{"default", ", %v when left out"},
	} {
		if v := schema.get(rule.key); v != nil {
			text += fmt.Sprintf(rule.text, v)
		}
	}
	return docsRef{Text: text, Pattern: str(schema.get("pattern"))}
}

func contentOf(content object, meaning string) *docsContent {
	if len(content) == 0 {
		return nil
	}
	c := &docsContent{Media: content[0].Key, Meaning: meaning}
	schema := obj(obj(content[0].Value).get("schema"))
	if each := obj(schema.get("contentSchema")); each != nil {
		c.Lines, schema = true, each
	}
	if c.Type = refOf(schema); c.Type.Ref == "" {
		c.Type = docsRef{}
	}
	return c
}

// fieldsOf are the properties of a schema and of those that it is made of.
func fieldsOf(schema object) (fields []docsField) {
	for _, m := range obj(schema.get("properties")) {
		s := m.Value.(object)
		fields = append(fields, docsField{Name: m.Key, Meaning: str(s.get("description")), Type: refOf(s),
			Required: slices.Contains(list(schema.get("required")), any(m.Key))})
	}
	return fields
}

func docsPage(t *testing.T, doc object, kinds []kind) []byte {
	t.Helper()
	data := docsData{Title: str(doc.at("info", "title")), Summary: str(doc.at("info", "summary")), Description: str(doc.at("info", "description"))}
	for _, path := range doc.get("paths").(object) {
		for _, op := range path.Value.(object) {
			if op.Key != "head" {
				data.Operations = append(data.Operations, operationOf(t, doc, path.Key, op.Key, op.Value.(object)))
			}
		}
	}
	for _, k := range kinds {
		data.Kinds = append(data.Kinds, docsKind{k.code, k.means, k.remedy, k.status})
	}
	for _, m := range doc.at("components", "schemas").(object) {
		schema := m.Value.(object)
		d := docsType{Name: m.Key, Description: str(schema.get("description")), Fields: fieldsOf(schema)}
		for _, of := range list(schema.get("allOf")) {
			if ref := refOf(of.(object)); ref.Ref != "" {
				d.Description += " All of `" + ref.Ref + "`, and:"
			}
			d.Fields = append(d.Fields, fieldsOf(of.(object))...)
		}
		if d.Fields == nil {
			d.Type = refOf(schema)
		}
		data.Types = append(data.Types, d)
	}
	page, err := template.New("docs.tmpl").Funcs(template.FuncMap{"prose": prose, "inline": inline}).ParseFiles("testdata/docs.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, data); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func operationOf(t *testing.T, doc object, path, method string, op object) docsOperation {
	t.Helper()
	d := docsOperation{ID: str(op.get("operationId")), Method: strings.ToUpper(method), Path: path,
		Summary: str(op.get("summary")), Description: str(op.get("description")), Body: contentOf(obj(op.at("requestBody", "content")), "")}
	for _, p := range list(op.get("parameters")) {
		o := p.(object)
		d.Parameters = append(d.Parameters, docsField{Name: str(o.get("name")), In: str(o.get("in")), Meaning: str(o.get("description")),
			Type: refOf(obj(o.get("schema")))})
	}
	shared := obj(doc.at("components", "responses"))
	for _, m := range obj(op.get("responses")) {
		r := response(m.Value, shared)
		if m.Key == "200" {
			d.Answer = contentOf(obj(r.get("content")), str(r.get("description")))
			for _, h := range obj(r.get("headers")) {
				meaning := str(obj(h.Value).get("description"))
				if meaning == "" {
					meaning = "Where the deposit stands, as `PARTITION:OFFSET`."
				}
				d.Headers = append(d.Headers, docsField{Name: h.Key, Meaning: meaning})
			}
			continue
		}
		d.Problems = append(d.Problems, docsProblem{m.Key, obj(r.at("content", "application/problem+json", "examples")).keys()})
	}
	for _, name := range exampleNames(op) {
		d.Examples = append(d.Examples, exampleOf(t, d, op, shared, name))
	}
	return d
}

// exampleNames are the names of an operation's examples, in order.
func exampleNames(op object) (names []string) {
	add := func(o object) {
		for _, k := range o.keys() {
			if !slices.Contains(names, k) {
				names = append(names, k)
			}
		}
	}
	for _, m := range obj(op.at("requestBody", "content")) {
		add(obj(obj(m.Value).get("examples")))
	}
	for _, p := range list(op.get("parameters")) {
		add(obj(p.(object).get("examples")))
	}
	return names
}

// exampleOf is an example as a command and what it answers.
func exampleOf(t *testing.T, d docsOperation, op, shared object, name string) docsExample {
	t.Helper()
	e := docsExample{Summary: name}
	path, query, args := d.Path, "", ""
	for _, p := range list(op.get("parameters")) {
		o := p.(object)
		v := o.at("examples", name, "value")
		if v == nil {
			continue
		}
		switch param := str(o.get("name")); str(o.get("in")) {
		case "path":
			path = strings.ReplaceAll(path, "{"+param+"}", fmt.Sprint(v))
		case "query":
			query = fmt.Sprintf("?%s=%v", param, v)
		case "header":
			args += fmt.Sprintf(" -H '%s: %v'", param, v)
		}
	}
	stdin := ""
	for _, m := range obj(op.at("requestBody", "content")) {
		example := obj(obj(m.Value).at("examples", name))
		if s := str(example.get("summary")); s != "" {
			e.Summary = s
		}
		if lines := str(example.get("value")); lines != "" {
			stdin = "printf '" + strings.ReplaceAll(lines, "\n", `\n`) + "' |\n  "
			args += " -sS -X POST -T - -H 'Content-Type: application/x-ndjson'"
			continue
		}
		body, err := marshal(example.get("value"))
		if err != nil {
			t.Fatal(err)
		}
		args += " -d '" + string(body) + "'"
	}
	e.Request = stdin + "curl" + args + " 'localhost:8000" + path + query + "'"
	if query == "" {
		e.Request = stdin + "curl" + args + " localhost:8000" + path
	}
	for _, m := range op.get("responses").(object) {
		for _, media := range obj(response(m.Value, shared).get("content")) {
			v := obj(media.Value).at("examples", name, "value")
			if s := str(v); s != "" {
				e.Answer = s
			} else if v != nil {
				data, err := marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				e.Answer = "HTTP " + m.Key + "\n" + pretty(t, data)
			}
		}
	}
	if e.Answer == "" {
		t.Errorf("%s: no answer to the example %s", d.ID, name)
	}
	return e
}

// pretty breaks lines where they are too long to read.
func pretty(t *testing.T, data []byte) string {
	t.Helper()
	if len(data) < 100 {
		return string(data)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
