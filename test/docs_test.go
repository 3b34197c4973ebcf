package test

import (
	"os"
	"strings"
	"testing"

	"coinbit/internal/config"
	"coinbit/internal/stream"
)

// TestGeneratedDocs compares what is printed from the code with what is checked
// in. UPDATE_DOCS=1 writes it.
func TestGeneratedDocs(t *testing.T) {
	for _, g := range []struct{ file, begin, end, text string }{
		{"../README.md", "<!-- settings: generated from internal/config, checked by a test -->\n", "<!-- end of settings -->", config.MarkdownTable()},
		{"../docs/architecture.md", "<!-- diagram: generated from internal/stream, checked by a test -->\n", "<!-- end of diagram -->",
			"```mermaid\n" + stream.Diagram() + "```\n"},
		{"../docs/tour.md", "<!-- diagram: generated from internal/stream, checked by a test -->\n", "<!-- end of diagram -->",
			"```mermaid\n" + stream.Diagram() + "```\n"},
		{"../docs/security-kafka.md", "<!-- matrix: generated from internal/stream, checked by a test -->\n", "<!-- end of matrix -->", stream.AccessMatrix()},
		{"../docs/security-kafka.md", "<!-- commands: generated from internal/stream, checked by a test -->\n", "<!-- end of commands -->",
			"```sh\n" + stream.AccessCommands("$BROKER", "User:%s") + "```\n"},
	} {
		data, err := os.ReadFile(g.file)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, ok1 := strings.Cut(string(data), g.begin)
		_, after, ok2 := strings.Cut(rest, g.end)
		if !ok1 || !ok2 {
			t.Fatalf("%s: markers are gone", g.file)
		}
		want := before + g.begin + g.text + g.end + after
		if want == string(data) {
			continue
		}
		if os.Getenv("UPDATE_DOCS") == "" {
			t.Errorf("%s is stale: run UPDATE_DOCS=1 go test ./test -run TestGeneratedDocs", g.file)
			continue
		}
		if err := os.WriteFile(g.file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
