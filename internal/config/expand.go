package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/joho/godotenv"
)

// reference is a $NAME or ${NAME} as the parser expands it.
var reference = regexp.MustCompile(`\$\{?([A-Z0-9_]+)`)

// checkReferences refuses a $NAME that has no value above it in the file, which is known to
// parse: the parser puts nothing in its place, and API_KEYS=$KEYS would open the API.
func checkReferences(source string, data []byte) error {
	n, first, begun := 0, 1, 0 // lines; the current entry's first; the byte where it begins
	end := 0
	for line := range bytes.Lines(data) {
		n++
		end += len(line)
		entry := data[begun:end]
		given, err := godotenv.UnmarshalBytes(entry)
		if err != nil {
			continue // a quote goes on to the next line
		}
		for _, ref := range reference.FindAllSubmatch(entry, -1) {
			if key := user(given, entry, string(ref[1])); key != "" && valueOf(data[:begun], string(ref[1])) == "" {
				return undefined(source, key, first, string(ref[1]))
			}
		}
		begun, first = end, n+1
	}
	return nil
}

// user is the setting of an entry whose value a name is expanded into, empty for none.
func user(given map[string]string, entry []byte, name string) string {
	const mark = "\x01"
	marked, _ := godotenv.UnmarshalBytes(append([]byte(name+"="+mark+"\n"), entry...))
	for key := range given {
		if strings.Contains(marked[key], mark) && !strings.Contains(given[key], mark) {
			return key
		}
	}
	return ""
}

func valueOf(data []byte, name string) string {
	given, _ := godotenv.UnmarshalBytes(data)
	return given[name]
}

func undefined(source, key string, line int, name string) error {
	what, s := "$"+name, find(key)
	if s == nil || s.secret { // it may be a part of the secret itself
		what = "a $NAME"
	}
	if s == nil {
		key = "a name that is not shown"
	}
	return &Error{source, key, fmt.Sprintf("in line %d has %s, which has no value above it in the file; "+
		"write what it stands for, or give it in the environment, or put the value between single quotes if the $ is meant", line, what)}
}
