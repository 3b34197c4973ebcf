// Package config turns defaults, the settings file and the environment into one
// checked Config, so that nothing else reads a file or a variable, and nothing
// starts with a setting it misunderstood. It opens no connection and no other
// file, and it never prints a secret.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/joho/godotenv"

	"coinbit/internal/wallet"
)

// Config is every setting, parsed and checked. The zero value of a field whose
// default is "none" means none.
type Config struct {
	// Port is the API's listen address, host:port; ":8000" is every interface.
	Port string
	// Brokers are Kafka's bootstrap servers, each host:port, at least one.
	Brokers []string
	// Partitions is how many partitions a topic gets when it is created.
	Partitions int32
	// ReplicationFactor is that of created topics; 0 is auto.
	ReplicationFactor int16
	// ThresholdAmount is above 0: more than this within one window raises the flag.
	ThresholdAmount wallet.Amount
	// RollingPeriod is the length of the window, whole milliseconds, at least 1.
	RollingPeriod time.Duration
	// StateDir holds a processor's or view's local state.
	StateDir string
	// StateMemory is for recent rows of that state, in MB.
	StateMemory int32
	// DataDir holds the embedded broker's log.
	DataDir string
	// AdminPort is the listen address for health and metrics, empty for none.
	AdminPort string
	LogLevel  slog.Level
	// LogFormat is "text" or "json".
	LogFormat string

	// KafkaTLSCA, KafkaTLSCert and KafkaTLSKey name PEM files. Cert and key are
	// both set or both empty.
	KafkaTLSCA, KafkaTLSCert, KafkaTLSKey string
	// KafkaSASLMechanism is empty, PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; user
	// and one of password and its file are set exactly when it is.
	KafkaSASLMechanism, KafkaSASLUser, KafkaSASLPassword string
	// KafkaSASLPasswordFile names a file that holds the password.
	KafkaSASLPasswordFile string

	// APIKeys are the bearer keys that open /api/, none for an open API.
	APIKeys []string
	// RateLimit is in requests per second for one client, 0 for none.
	RateLimit float64
}

// Error is a setting that is wrong. Its text is one line and shows no secret.
type Error struct {
	// Source is the settings file's name, or "environment".
	Source string
	// Setting is the name at fault, quoted if it is none of ours, empty when the
	// file as a whole is at fault.
	Setting string
	// Problem says what it got and what it takes.
	Problem string
}

func (e *Error) Error() string {
	if e.Setting == "" {
		return e.Source + ": " + e.Problem
	}
	return e.Source + ": " + e.Setting + " " + e.Problem
}

// environment is the Source of what came from the process's environment.
const environment = "environment"

// value is one setting's text and where it came from.
type value struct{ text, source string }

// Load reads the settings: defaults, then envFile (which may be missing), then
// environ ("NAME=value", as os.Environ gives it). Only known names are looked
// at in environ; an unknown name in the file is an error. In both an empty
// value counts as not set, as Docker Compose passes on what its user left out.
// Every error is an *Error.
func Load(envFile string, environ []string) (Config, error) {
	file, data, err := readFile(envFile)
	if err != nil {
		return Config{}, err
	}
	given := map[string]value{}
	for _, name := range slices.Sorted(maps.Keys(file)) { // sorted: always the same error first
		if find(name) == nil {
			return Config{}, unknownIn(filepath.Base(envFile), data, name)
		}
		if file[name] != "" {
			given[name] = value{file[name], filepath.Base(envFile)}
		}
	}
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if text != "" && find(name) != nil {
			given[name] = value{text, environment}
		}
	}
	return build(given)
}

func build(given map[string]value) (Config, error) {
	var c Config
	for _, s := range settings {
		v, ok := given[s.name]
		if !ok {
			v = value{s.initial, "default"}
		}
		if v.text != "" && !s.set(&c, v.text) {
			got := fmt.Sprintf("%.80q", v.text)
			if s.secret || strings.Contains(v.text, "@") || isPEM(v.text) { // a URL's password, a key
				got = "a value that is not shown"
			}
			return Config{}, &Error{v.source, s.name, "is " + got + "; it takes " + s.takes}
		}
	}
	if err := validate(c, given); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Set gives one setting another value, for a command that asks what would be. Its
// error says what it got and what the setting takes.
func (c *Config) Set(name, text string) error {
	s := find(name)
	if s == nil || s.secret { // whose value no error may show
		return unknown("command", name)
	}
	if text == "" || !s.set(c, text) {
		return fmt.Errorf("got %.80q, takes %s", text, s.takes)
	}
	return nil
}

// validate checks what no setting can know alone.
func validate(c Config, given map[string]value) error {
	lacks := func(name, have, lack string) error {
		return &Error{given[have].source, have, "is set but " + lack + " is not; " + name}
	}
	const pair = "a client certificate takes both"
	const sasl = "SASL takes KAFKA_SASL_MECHANISM, KAFKA_SASL_USER and KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE"
	switch {
	case c.KafkaTLSCert != "" && c.KafkaTLSKey == "":
		return lacks(pair, "KAFKA_TLS_CERT", "KAFKA_TLS_KEY")
	case c.KafkaTLSKey != "" && c.KafkaTLSCert == "":
		return lacks(pair, "KAFKA_TLS_KEY", "KAFKA_TLS_CERT")
	case c.KafkaSASLMechanism != "" && c.KafkaSASLUser == "":
		return lacks(sasl, "KAFKA_SASL_MECHANISM", "KAFKA_SASL_USER")
	case c.KafkaSASLPassword != "" && c.KafkaSASLPasswordFile != "":
		const setting = "KAFKA_SASL_PASSWORD_FILE"
		return &Error{given[setting].source, setting, "is set, and so is KAFKA_SASL_PASSWORD; the password takes one of them"}
	case c.KafkaSASLMechanism != "" && c.KafkaSASLPassword == "" && c.KafkaSASLPasswordFile == "":
		return lacks(sasl, "KAFKA_SASL_MECHANISM", "KAFKA_SASL_PASSWORD")
	case c.KafkaSASLUser != "" && c.KafkaSASLMechanism == "":
		return lacks(sasl, "KAFKA_SASL_USER", "KAFKA_SASL_MECHANISM")
	case c.KafkaSASLPassword != "" && c.KafkaSASLMechanism == "":
		return lacks(sasl, "KAFKA_SASL_PASSWORD", "KAFKA_SASL_MECHANISM")
	case c.KafkaSASLPasswordFile != "" && c.KafkaSASLMechanism == "":
		return lacks(sasl, "KAFKA_SASL_PASSWORD_FILE", "KAFKA_SASL_MECHANISM")
	}
	return nil
}

// readFile parses the settings file and returns what is in it, too; a missing one has no
// settings. The parser's own errors quote the file, secrets and all, and are not passed on.
func readFile(name string) (parsed map[string]string, data []byte, err error) {
	data, err = os.ReadFile(name) //nolint:gosec // the program names it
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, &Error{Source: filepath.Base(name), Problem: "cannot be read: " + reason(err)}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // some editors begin a file so
	parsed, err = godotenv.UnmarshalBytes(data)
	if err != nil {
		return nil, nil, &Error{Source: filepath.Base(name),
			Problem: fmt.Sprintf("line %d is not NAME=value, or its quote is not closed", badLine(data))}
	}
	return parsed, data, checkReferences(filepath.Base(name), data)
}

// reason is err without the path that the Source already says.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// badLine is the number of the first line that is no setting by itself; values
// of several lines, which no setting takes, count as such.
func badLine(data []byte) int {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if _, err := godotenv.UnmarshalBytes(line); err != nil {
			break
		}
	}
	return n
}
