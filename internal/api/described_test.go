package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(describedAnswers{m}) }

// describedAnswers fails a run in which any test had an answer that the document
// does not describe.
type describedAnswers struct{ *testing.M }

func (m describedAnswers) Run() int {
	code := m.M.Run()
	undescribed.mu.Lock()
	defer undescribed.mu.Unlock()
	for _, what := range undescribed.answers {
		fmt.Fprintln(os.Stderr, "not in openapi.json:", what)
		code = 1
	}
	return code
}

var undescribed struct {
	mu      sync.Mutex
	answers []string
}

// answersOf are the statuses of each METHOD PATH, and of those the types that a
// problem may have.
var answersOf = sync.OnceValue(func() map[string]map[string][]string {
	data, err := os.ReadFile("openapi.json")
	if err != nil {
		panic(err)
	}
	type response struct {
		Ref     string `json:"$ref"`
		Content map[string]struct{ Examples map[string]any }
	}
	var doc struct {
		Paths      map[string]map[string]struct{ Responses map[string]response }
		Components struct{ Responses map[string]response }
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		panic(err)
	}
	all := map[string]map[string][]string{}
	for path, item := range doc.Paths {
		for method, op := range item {
			name := strings.ToUpper(method) + " " + path
			all[name] = map[string][]string{}
			for status, r := range op.Responses {
				if r.Ref != "" {
					r = doc.Components.Responses[strings.TrimPrefix(r.Ref, sharedResponse)]
				}
				codes := []string{}
				for code := range r.Content["application/problem+json"].Examples {
					codes = append(codes, "urn:coinbit:problem:"+code)
				}
				all[name][status] = codes
			}
		}
	}
	return all
})

// routeOf is the METHOD PATH of a request, as the document has it.
func routeOf(r *http.Request) string {
	path := r.URL.EscapedPath()
	for _, prefix := range []string{"/api/check/", "/api/wallets/"} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && !strings.Contains(rest, "/") {
			path = prefix + "{wallet_id}"
		}
	}
	return r.Method + " " + path
}

// mustBeDescribed notes an answer that the document does not have. What is no route
// of the document has no answers there either.
func mustBeDescribed(r *http.Request, res *http.Response, body string) {
	answers, ok := answersOf()[routeOf(r)]
	if !ok {
		return
	}
	types, ok := answers[fmt.Sprint(res.StatusCode)]
	if ok && res.StatusCode >= 400 && r.Method != http.MethodHead {
		var problem struct{ Type string }
		_ = json.Unmarshal([]byte(body), &problem)
		ok = slices.Contains(types, problem.Type)
	}
	if !ok {
		undescribed.mu.Lock()
		defer undescribed.mu.Unlock()
		undescribed.answers = append(undescribed.answers, fmt.Sprintf("%s: %d %s", routeOf(r), res.StatusCode, body))
	}
}
