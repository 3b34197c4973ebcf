package config

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/joho/godotenv"
)

// Usage lists the settings for -h, one or two lines each.
func Usage() string {
	var b strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&b, "  %-20s  default %s\n      %s.\n", s.name, s.initialOr("none"), plain(s.meaning))
	}
	return b.String()
}

// MarkdownTable is the README's table of settings.
func MarkdownTable() string {
	var b strings.Builder
	b.WriteString("| name | default | meaning |\n| --- | --- | --- |\n")
	for _, s := range settings {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", s.name, s.initialOr("none"), s.meaning)
	}
	return b.String()
}

// EnvFile is the config.env to check in: every setting, at its default.
func EnvFile() string {
	var b strings.Builder
	b.WriteString(`# Settings, at their defaults. The environment goes before this file, and
# neither needs to name them all. An empty value counts as not set. Put a value
# with a $, a # or a quote in it between single quotes: it is then taken as it is.
# Keep secrets out of version control: give them in the environment.
`)
	for _, s := range settings {
		fmt.Fprintf(&b, "\n# %s.\n# Default: %s. Takes %s.\n", plain(s.meaning), s.initialOr("none"), s.takes)
		if s.initial == "" {
			b.WriteString("#")
		}
		fmt.Fprintf(&b, "%s=%s\n", s.name, s.initial)
	}
	return b.String()
}

func (s setting) initialOr(none string) string {
	if s.initial == "" {
		return none
	}
	return s.initial
}

// plain is meaning without Markdown.
func plain(meaning string) string { return strings.ReplaceAll(meaning, "`", "") }

// find returns the setting of that name, nil for none.
func find(name string) *setting {
	for i := range settings {
		if settings[i].name == name {
			return &settings[i]
		}
	}
	return nil
}

// unknown is the error for a name that is no setting.
func unknown(source, name string) error {
	if name == "" {
		return &Error{Source: source, Problem: "a line has no NAME= before its value"}
	}
	to, _ := nearest(name)
	return &Error{source, fmt.Sprintf("%.80q", name), "is not a setting; did you mean " + to + "?"}
}

// unknownIn is unknown for a name in the settings file. A secret that was broken over two
// lines may look like one, up to an equals sign in it, so what resembles no setting is not
// shown.
func unknownIn(source string, data []byte, name string) error {
	to, _ := nearest(name)
	if name == "" || isNear(name) {
		return unknown(source, name)
	}
	return &Error{Source: source, Problem: fmt.Sprintf("line %d is no setting, did you mean %s? "+
		"Its name is not shown, as it may be a part of a secret that was broken over two lines", lineOf(data, name), to)}
}

// lineOf is the number of the line in which a name has got its value.
func lineOf(data []byte, name string) int {
	n, begun, end := 0, 0, 0
	for line := range bytes.Lines(data) {
		n++
		end += len(line)
		given, err := godotenv.UnmarshalBytes(data[begun:end])
		if _, ok := given[name]; ok {
			break
		}
		if err == nil {
			begun = end
		}
	}
	return n
}

// isNear tells whether a name is a setting's but for a slip: of a short one's only one
// letter may be off, of a longer one's two.
func isNear(name string) bool {
	to, off := nearest(name)
	return len(name) <= 64 && off <= min(2, len(to)/4)
}

// nearest is the setting whose name takes the fewest changes to come to, and how many.
func nearest(name string) (to string, best int) {
	for _, s := range settings {
		if d := distance(strings.ToUpper(name), s.name); to == "" || d < best {
			to, best = s.name, d
		}
	}
	return to, best
}

// Misspelled warns of names in environ that are none of ours and near one: a line for
// each. The environment is full of other names.
func Misspelled(environ []string) (warnings []string) {
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if text != "" && find(name) == nil && isNear(name) {
			warnings = append(warnings, unknown(environment, name).Error())
		}
	}
	return warnings
}

// distance is the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
