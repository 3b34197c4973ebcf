package config

import (
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"coinbit/internal/wallet"
)

// maxPeriod bounds ROLLING_PERIOD: a leap year.
const maxPeriod = 366 * 24 * time.Hour

// setting is one row of the table that parsing, -h, the README and config.env
// all come from.
type setting struct {
	name string
	// initial is the default as one would write it, empty for none.
	initial string
	meaning string
	// takes completes "it takes …".
	takes string
	// secret values are never printed.
	secret bool
	// set parses text, never empty, into c and reports whether it could.
	set func(c *Config, text string) bool
}

var settings = []setting{
	{name: "PORT", initial: "8000",
		meaning: "API port. A bare port listens on 127.0.0.1 only; `0.0.0.0:8000` opens it to the network",
		takes:   "a port from 0 to 65535, or host:port",
		set:     func(c *Config, s string) bool { return setListen(&c.Port, s) }},
	{name: "BROKER", initial: "localhost:9092",
		meaning: "Kafka's bootstrap servers, comma-separated",
		takes:   "host:port, or several separated by commas",
		set:     func(c *Config, s string) bool { return setBrokers(&c.Brokers, s) }},
	{name: "PARTITIONS", initial: "8",
		meaning: "Partitions of every topic when created; never changed afterwards",
		takes:   "a whole number from 1 to 1000",
		set:     func(c *Config, s string) bool { return setInt(&c.Partitions, s, 1000) }},
	{name: "REPLICATION_FACTOR", initial: "auto",
		meaning: "Replicas of every topic when created; `auto` is the smaller of 3 and the number of brokers",
		takes:   "auto, or a whole number from 1 to 32767",
		set: func(c *Config, s string) bool {
			c.ReplicationFactor = 0
			return s == "auto" || setInt(&c.ReplicationFactor, s, 1<<15-1)
		}},
	{name: "THRESHOLD_AMOUNT", initial: "10000",
		meaning: "Strictly more than this within one window raises the flag",
		takes:   "a decimal above 0, at most 10^12, with at most 9 decimal places",
		set:     func(c *Config, s string) bool { return setAmount(&c.ThresholdAmount, s) }},
	{name: "ROLLING_PERIOD", initial: "2m",
		meaning: "Length of the rolling window, a Go duration",
		takes:   "a duration of whole milliseconds from 1ms to 366 days, such as 90s, 2m or 1h30m",
		set:     func(c *Config, s string) bool { return setPeriod(&c.RollingPeriod, s) }},
	{name: "STATE_DIR", initial: "./data/state",
		meaning: "Local state of the processors and the API; can be rebuilt from Kafka",
		takes:   "a directory",
		set:     func(c *Config, s string) bool { return setText(&c.StateDir, s) }},
	{name: "STATE_MEMORY", initial: "256",
		meaning: "Memory for recent rows, in MB, about: of a processor; the views of an API take half of it together",
		takes:   "a whole number from 8 to 65536",
		set:     func(c *Config, s string) bool { return setInt(&c.StateMemory, s, 65536) && c.StateMemory >= 8 }},
	{name: "DATA_DIR", initial: "./data/kafka",
		meaning: "The embedded broker's log",
		takes:   "a directory",
		set:     func(c *Config, s string) bool { return setText(&c.DataDir, s) }},
	{name: "ADMIN_PORT",
		meaning: "A processor's port for `/healthz`, `/readyz` and `/metrics`, written as `PORT` is; the API serves them on `PORT`",
		takes:   "a port from 0 to 65535, or host:port",
		set:     func(c *Config, s string) bool { return setListen(&c.AdminPort, s) }},
	{name: "LOG_LEVEL", initial: "info",
		meaning: "`debug`, `info`, `warn` or `error`",
		takes:   "debug, info, warn or error",
		set:     func(c *Config, s string) bool { return setLevel(&c.LogLevel, s) }},
	{name: "LOG_FORMAT", initial: "text",
		meaning: "`text` or `json`",
		takes:   "text or json",
		set:     func(c *Config, s string) bool { return setChoice(&c.LogFormat, s, "text", "json") }},
	{name: "KAFKA_TLS_CA",
		meaning: "PEM file of the authority that signed Kafka's certificates; setting it turns TLS on. This file and the next two are read anew for each connection",
		takes:   "a file's name, not what is in it",
		set:     func(c *Config, s string) bool { return setFile(&c.KafkaTLSCA, s) }},
	{name: "KAFKA_TLS_CERT",
		meaning: "PEM file of this client's certificate, together with `KAFKA_TLS_KEY`",
		takes:   "a file's name, not what is in it",
		set:     func(c *Config, s string) bool { return setFile(&c.KafkaTLSCert, s) }},
	{name: "KAFKA_TLS_KEY",
		meaning: "PEM file of this client's private key",
		takes:   "a file's name, not what is in it",
		set:     func(c *Config, s string) bool { return setFile(&c.KafkaTLSKey, s) }},
	{name: "KAFKA_SASL_MECHANISM",
		meaning: "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`, together with user and password",
		takes:   "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
		set: func(c *Config, s string) bool {
			return setChoice(&c.KafkaSASLMechanism, s, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
		}},
	{name: "KAFKA_SASL_USER",
		meaning: "SASL user",
		takes:   "a user name",
		set:     func(c *Config, s string) bool { return setText(&c.KafkaSASLUser, s) }},
	{name: "KAFKA_SASL_PASSWORD", secret: true,
		meaning: "SASL password",
		takes:   "a password",
		set:     func(c *Config, s string) bool { return setText(&c.KafkaSASLPassword, s) }},
	{name: "KAFKA_SASL_PASSWORD_FILE", secret: true, // the password itself may stand there by mistake
		meaning: "File of one line with the SASL password, in place of `KAFKA_SASL_PASSWORD`; read anew for each connection",
		takes:   "a file's name, not what is in it",
		set:     func(c *Config, s string) bool { return setFile(&c.KafkaSASLPasswordFile, s) }},
	{name: "API_KEYS", secret: true,
		meaning: "Bearer keys, comma-separated; when set, `/api/*` needs `Authorization: Bearer …`",
		takes:   "keys of visible ASCII characters, separated by commas",
		set:     func(c *Config, s string) bool { return setKeys(&c.APIKeys, s) }},
	{name: "RATE_LIMIT",
		meaning: "Requests per second for one key (without keys: one client address); beyond it 429",
		takes:   "a decimal above 0 and at most 1000000, such as 0.5 or 100",
		set:     func(c *Config, s string) bool { return setRate(&c.RateLimit, s) }},
}

func setText(dst *string, s string) bool {
	*dst = s
	return true
}

// setFile catches the file's content in place of its name, which an error that
// the file is missing would print.
func setFile(dst *string, s string) bool {
	*dst = s
	return !isPEM(s)
}

func isPEM(s string) bool { return strings.Contains(s, "-----BEGIN") || strings.ContainsAny(s, "\n\r") }

func setChoice(dst *string, s string, choices ...string) bool {
	*dst = s
	return slices.Contains(choices, s)
}

func setInt[T int16 | int32](dst *T, s string, highest uint64) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	*dst = T(n) // not used when beyond highest
	return err == nil && n >= 1 && n <= highest
}

// setListen takes a bare port for the loopback interface: an API that moves
// money must not open itself to the network by accident.
func setListen(dst *string, s string) bool {
	if !strings.Contains(s, ":") {
		s = "127.0.0.1:" + s
	}
	*dst = s
	host, port, err := net.SplitHostPort(s)
	return err == nil && isHost(host, true) && isPort(port, 0)
}

func setBrokers(dst *[]string, s string) bool {
	*dst = list(s)
	return !slices.ContainsFunc(*dst, func(b string) bool {
		host, port, err := net.SplitHostPort(b)
		return err != nil || !isHost(host, false) || !isPort(port, 1)
	})
}

// isHost is deliberately loose: it catches URLs and spaces, names are looked up.
func isHost(s string, emptyToo bool) bool {
	return (s != "" || emptyToo) && isVisible(s) && !strings.ContainsAny(s, `/\@?#"'`)
}

func isPort(s string, lowest uint64) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n >= lowest
}

func setAmount(dst *wallet.Amount, s string) bool {
	a, err := wallet.ParseAmount(s)
	*dst = a
	return err == nil
}

func setPeriod(dst *time.Duration, s string) bool {
	d, err := time.ParseDuration(s)
	*dst = d
	return err == nil && d >= time.Millisecond && d <= maxPeriod && d%time.Millisecond == 0
}

func setLevel(dst *slog.Level, s string) bool {
	return slices.Contains([]string{"debug", "info", "warn", "error"}, s) &&
		dst.UnmarshalText([]byte(s)) == nil
}

func setKeys(dst *[]string, s string) bool {
	*dst = list(s)
	return !slices.ContainsFunc(*dst, func(k string) bool { return k == "" || !isVisible(k) })
}

// setRate refuses what ParseFloat takes beyond plain decimals: Inf, 0x1p-2, 1e3.
func setRate(dst *float64, s string) bool {
	r, err := strconv.ParseFloat(s, 64)
	*dst = r
	return err == nil && strings.Trim(s, "0123456789.") == "" && r > 0 && r <= 1e6
}

// list splits at commas; a forgotten entry stays and fails its check.
func list(s string) []string {
	parts := strings.Split(s, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

func isVisible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e })
}
