package config_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"coinbit/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load reads a settings file of this content, none when it is empty.
func load(t *testing.T, content string, environ ...string) (config.Config, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.env")
	if content != "" {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config.Load(name, environ)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.ThresholdAmount.String(); got != "10000" {
		t.Errorf("ThresholdAmount = %s", got)
	}
	want := config.Config{
		Port: "127.0.0.1:8000", Brokers: []string{"localhost:9092"}, Partitions: 8,
		ThresholdAmount: c.ThresholdAmount, RollingPeriod: 2 * time.Minute,
		StateDir: "./data/state", StateMemory: 256, DataDir: "./data/kafka",
		LogLevel: slog.LevelInfo, LogFormat: "text",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// The file we ship is the one generated from the table, and says the defaults.
func TestShippedFile(t *testing.T) {
	const shipped = "../../config.env"
	text, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != config.EnvFile() {
		t.Error("config.env is stale: write config.EnvFile() to it")
	}
	got, err := config.Load(shipped, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPrecedence(t *testing.T) {
	tests := []struct {
		name, file string
		environ    []string
		want       int32
	}{
		{"default", "", nil, 8},
		{"file over default", "PARTITIONS=3", nil, 3},
		{"environment over default", "", []string{"PARTITIONS=4"}, 4},
		{"environment over file", "PARTITIONS=3", []string{"PARTITIONS=4"}, 4},
		{"empty in the environment is not set", "PARTITIONS=3", []string{"PARTITIONS="}, 3},
		{"empty in the file is not set", "PARTITIONS=", nil, 8},
		{"no value in the environment", "PARTITIONS=3", []string{"PARTITIONS"}, 3},
		{"unknown in the environment is not ours", "PARTITIONS=3", []string{"PARTITION=4", "=C:=x", ""}, 3},
		{"the last of two in the environment", "", []string{"PARTITIONS=4", "PARTITIONS=5"}, 5},
		{"comment and spaces", "\n # note\n  PARTITIONS = 3  # three\n", nil, 3},
		{"export", "export PARTITIONS=3", nil, 3},
		{"byte order mark", "\ufeffPARTITIONS=3", nil, 3},
		{"CRLF", "PORT=1\r\nPARTITIONS=3\r\n", nil, 3},
		{"a wrong value that is overridden", "PARTITIONS=many", []string{"PARTITIONS=4"}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, tt.file, tt.environ...)
			if err != nil || c.Partitions != tt.want {
				t.Errorf("Partitions = %d, %v; want %d", c.Partitions, err, tt.want)
			}
		})
	}
}

func TestValues(t *testing.T) {
	tests := []struct {
		environ string // several settings separated by spaces
		field   string
		want    any
	}{
		{"PORT=9000", "Port", "127.0.0.1:9000"},
		{"PORT=0", "Port", "127.0.0.1:0"},
		{"PORT=:8000", "Port", ":8000"},
		{"PORT=0.0.0.0:8000", "Port", "0.0.0.0:8000"},
		{"PORT=[::1]:8000", "Port", "[::1]:8000"},
		{"ADMIN_PORT=9100", "AdminPort", "127.0.0.1:9100"},
		{"BROKER=a:1,b.example:9092,[::1]:65535", "Brokers", []string{"a:1", "b.example:9092", "[::1]:65535"}},
		{"PARTITIONS=1000", "Partitions", int32(1000)},
		{"REPLICATION_FACTOR=auto", "ReplicationFactor", int16(0)},
		{"REPLICATION_FACTOR=32767", "ReplicationFactor", int16(32767)},
		{"ROLLING_PERIOD=1ms", "RollingPeriod", time.Millisecond},
		{"ROLLING_PERIOD=8784h", "RollingPeriod", 366 * 24 * time.Hour},
		{"ROLLING_PERIOD=1.5s", "RollingPeriod", 1500 * time.Millisecond},
		{"STATE_DIR=/s", "StateDir", "/s"},
		{"STATE_MEMORY=8", "StateMemory", int32(8)},
		{"DATA_DIR=/d", "DataDir", "/d"},
		{"LOG_LEVEL=debug", "LogLevel", slog.LevelDebug},
		{"LOG_LEVEL=error", "LogLevel", slog.LevelError},
		{"LOG_FORMAT=json", "LogFormat", "json"},
		{"KAFKA_TLS_CA=ca.pem", "KafkaTLSCA", "ca.pem"},
		{"KAFKA_TLS_CERT=c.pem KAFKA_TLS_KEY=k.pem", "KafkaTLSKey", "k.pem"},
		{"KAFKA_SASL_MECHANISM=SCRAM-SHA-512 KAFKA_SASL_USER=u KAFKA_SASL_PASSWORD=p=w", "KafkaSASLPassword", "p=w"},
		{"KAFKA_SASL_MECHANISM=PLAIN KAFKA_SASL_USER=u KAFKA_SASL_PASSWORD_FILE=/run/secrets/p", "KafkaSASLPasswordFile", "/run/secrets/p"},
		{"API_KEYS=one,two", "APIKeys", []string{"one", "two"}},
		{"RATE_LIMIT=0.5", "RateLimit", 0.5},
		{"RATE_LIMIT=100", "RateLimit", 100.0},
	}
	for _, tt := range tests {
		t.Run(tt.environ, func(t *testing.T) {
			c, err := load(t, "", strings.Fields(tt.environ)...)
			if err != nil {
				t.Fatal(err)
			}
			if got := reflect.ValueOf(c).FieldByName(tt.field).Interface(); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s = %v, want %v", tt.field, got, tt.want)
			}
		})
	}
	for _, amount := range []string{"0.000000001", "1000000000000", "12.5"} {
		if c, err := load(t, "", "THRESHOLD_AMOUNT="+amount); err != nil || c.ThresholdAmount.String() != amount {
			t.Errorf("THRESHOLD_AMOUNT=%s: %s, %v", amount, c.ThresholdAmount, err)
		}
	}
	if c, err := load(t, "API_KEYS='k$HOME', \nRATE_LIMIT=1"); err == nil {
		t.Errorf("text after a closing quote was taken: %q", c.APIKeys)
	}
	if c, err := load(t, "API_KEYS='k$HOME, two'"); err != nil || !reflect.DeepEqual(c.APIKeys, []string{"k$HOME", "two"}) {
		t.Errorf("single quotes: %q, %v", c.APIKeys, err)
	}
}

// Each of these is refused, by the setting's own name and source.
func TestRefused(t *testing.T) {
	bad := map[string][]string{
		"PORT":                 {"x", "80a", "65536", "-1", "+1", " 8000", "a:b", "http://x:80", "x:", "1:2:3", "a b:80", "8000,8001", "[::1:80"},
		"BROKER":               {"localhost", ",", "a:1,", ",a:1", "a:0", ":9092", "a:99999", "PLAINTEXT://a:1", "a:1;b:2", "user@a:1"},
		"PARTITIONS":           {"0", "1001", "-1", "1.5", "auto", "99999999999999999999", "4294967297"},
		"REPLICATION_FACTOR":   {"0", "32768", "65537", "-1", "AUTO", "all"},
		"THRESHOLD_AMOUNT":     {"0", "-1", "x", "1000000000001", "0.0000000001", "10,000", "NaN", "1e13"},
		"ROLLING_PERIOD":       {"0", "2", "2 minutes", "-2m", "0s", "999us", "1.5ms", "8784h1ms", "1e9h", "2d"},
		"ADMIN_PORT":           {"none", "99999"},
		"LOG_LEVEL":            {"verbose", "INFO", "info+1"},
		"LOG_FORMAT":           {"xml", "JSON"},
		"KAFKA_SASL_MECHANISM": {"GSSAPI", "plain"},
		"API_KEYS":             {",", "a,", "a,,b", "a b", "ключ", "a\tb"},
		"RATE_LIMIT":           {"0", "-1", "NaN", "Inf", "1e3", "0x1p-2", "1_000", "1000001", "ten", ".", "0.0"},
	}
	for name, values := range bad {
		for _, v := range values {
			_, err := load(t, "", name+"="+v)
			wantError(t, err, "environment", name, v)
			_, err = load(t, name+"='"+v+"'\n")
			wantError(t, err, "config.env", name, v)
		}
	}
}

func wantError(t *testing.T, err error, source, setting, v string) {
	t.Helper()
	var e *config.Error
	if !errors.As(err, &e) {
		t.Errorf("%s=%q: error %v", setting, v, err)
		return
	}
	if e.Source != source || e.Setting != setting || strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("%s=%q: source %q, setting %q, %q", setting, v, e.Source, e.Setting, err)
	}
}

func TestErrorText(t *testing.T) {
	tests := []struct {
		name, file string
		environ    []string
		want       string
	}{
		{"file", "PARTITIONS=many", nil,
			`config.env: PARTITIONS is "many"; it takes a whole number from 1 to 1000`},
		{"environment", "PARTITIONS=3", []string{"PARTITIONS=0"},
			`environment: PARTITIONS is "0"; it takes a whole number from 1 to 1000`},
		{"secret", "", []string{"API_KEYS=hush,"},
			`environment: API_KEYS is a value that is not shown; it takes keys of visible ASCII characters, separated by commas`},
		{"a key in place of its file", "", []string{"KAFKA_TLS_KEY=-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----"},
			`environment: KAFKA_TLS_KEY is a value that is not shown; it takes a file's name, not what is in it`},
		{"a key in place of its file, on one line", "KAFKA_TLS_KEY='-----BEGIN PRIVATE KEY----- hush'", nil,
			`config.env: KAFKA_TLS_KEY is a value that is not shown; it takes a file's name, not what is in it`},
		{"a password in an address", "", []string{"BROKER=user:hush@kafka:9092"},
			`environment: BROKER is a value that is not shown; it takes host:port, or several separated by commas`},
		{"long", "LOG_FORMAT=" + strings.Repeat("x", 1000), nil,
			`config.env: LOG_FORMAT is "` + strings.Repeat("x", 80) + `"; it takes text or json`},
		{"unknown", "PORTS=1", nil, `config.env: "PORTS" is not a setting; did you mean PORT?`},
		{"unknown, of other case", "rolling_period=1m", nil, `config.env: "rolling_period" is not a setting; did you mean ROLLING_PERIOD?`},
		{"unknown and empty", "BROKERS=", nil, `config.env: "BROKERS" is not a setting; did you mean BROKER?`},
		{"unknown wins over wrong", "PORT=x\nTRESHOLD_AMOUNT=1", nil, `config.env: "TRESHOLD_AMOUNT" is not a setting; did you mean THRESHOLD_AMOUNT?`},
		{"no name", "=1", nil, `config.env: a line has no NAME= before its value`},
		{"no sign", "PORT=1\nhush", nil, `config.env: a line has no NAME= before its value`},
		{"syntax", "PORT=1\n\nhush hush\nBROKER=a:1", nil, `config.env: line 3 is not NAME=value, or its quote is not closed`},
		{"quote", "PORT=1\nAPI_KEYS='hush\nBROKER=a:1", nil, `config.env: line 2 is not NAME=value, or its quote is not closed`},
		{"cert alone", "KAFKA_TLS_CERT=c", nil, `config.env: KAFKA_TLS_CERT is set but KAFKA_TLS_KEY is not; a client certificate takes both`},
		{"key alone", "", []string{"KAFKA_TLS_KEY=k"}, `environment: KAFKA_TLS_KEY is set but KAFKA_TLS_CERT is not; a client certificate takes both`},
		{"mechanism alone", "KAFKA_SASL_MECHANISM=PLAIN", nil, `config.env: KAFKA_SASL_MECHANISM is set but KAFKA_SASL_USER is not; SASL takes KAFKA_SASL_MECHANISM, KAFKA_SASL_USER and KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE`},
		{"no password", "KAFKA_SASL_MECHANISM=PLAIN\nKAFKA_SASL_USER=u", nil, `config.env: KAFKA_SASL_MECHANISM is set but KAFKA_SASL_PASSWORD is not; SASL takes KAFKA_SASL_MECHANISM, KAFKA_SASL_USER and KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE`},
		{"user alone", "KAFKA_SASL_USER=u", nil, `config.env: KAFKA_SASL_USER is set but KAFKA_SASL_MECHANISM is not; SASL takes KAFKA_SASL_MECHANISM, KAFKA_SASL_USER and KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE`},
		{"password alone", "", []string{"KAFKA_SASL_PASSWORD=hush"}, `environment: KAFKA_SASL_PASSWORD is set but KAFKA_SASL_MECHANISM is not; SASL takes KAFKA_SASL_MECHANISM, KAFKA_SASL_USER and KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE`},
		{"password file alone", "KAFKA_SASL_PASSWORD_FILE=f", nil, `config.env: KAFKA_SASL_PASSWORD_FILE is set but KAFKA_SASL_MECHANISM is not; SASL takes KAFKA_SASL_MECHANISM, KAFKA_SASL_USER and KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE`},
		{"two passwords", "KAFKA_SASL_MECHANISM=PLAIN\nKAFKA_SASL_USER=u\nKAFKA_SASL_PASSWORD_FILE=f", []string{"KAFKA_SASL_PASSWORD=hush"},
			`config.env: KAFKA_SASL_PASSWORD_FILE is set, and so is KAFKA_SASL_PASSWORD; the password takes one of them`},
		{"a password in place of its file", "", []string{"KAFKA_SASL_PASSWORD_FILE=hush\nhush"},
			`environment: KAFKA_SASL_PASSWORD_FILE is a value that is not shown; it takes a file's name, not what is in it`},
		{"a secret over two lines", "PORT=1\nAPI_KEYS=one,\nhush=\nBROKER=a:1", nil,
			`config.env: line 3 is no setting, did you mean PORT? Its name is not shown, as it may be a part of a secret that was broken over two lines`},
		{"a secret over two lines, with a reference in it", "KAFKA_SASL_PASSWORD=one\nhush=$hush$HUSH", nil,
			`config.env: a name that is not shown in line 2 has a $NAME, which has no value above it in the file; ` +
				`write what it stands for, or give it in the environment, or put the value between single quotes if the $ is meant`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.file, tt.environ...)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestUnreadableFile(t *testing.T) {
	_, err := config.Load(t.TempDir(), nil) // a directory
	var e *config.Error
	if !errors.As(err, &e) || !strings.Contains(e.Problem, "cannot be read") {
		t.Errorf("error %v", err)
	}
}

// What the documents list is what Load knows.
func TestDocuments(t *testing.T) {
	for _, name := range []string{"PORT", "BROKER", "PARTITIONS", "REPLICATION_FACTOR", "THRESHOLD_AMOUNT",
		"ROLLING_PERIOD", "STATE_DIR", "STATE_MEMORY", "DATA_DIR", "ADMIN_PORT", "LOG_LEVEL", "LOG_FORMAT", "KAFKA_TLS_CA",
		"KAFKA_TLS_CERT", "KAFKA_TLS_KEY", "KAFKA_SASL_MECHANISM", "KAFKA_SASL_USER", "KAFKA_SASL_PASSWORD",
		"KAFKA_SASL_PASSWORD_FILE", "API_KEYS", "RATE_LIMIT"} {
		if !strings.Contains(config.Usage(), "  "+name+" ") {
			t.Errorf("usage lacks %s", name)
		}
		if !strings.Contains(config.MarkdownTable(), "| `"+name+"` | ") {
			t.Errorf("table lacks %s", name)
		}
		if !strings.Contains(config.EnvFile(), "\n"+name+"=") && !strings.Contains(config.EnvFile(), "\n#"+name+"=") {
			t.Errorf("config.env lacks %s", name)
		}
	}
	for line := range strings.Lines(config.MarkdownTable()) {
		if strings.Count(line, "|") != 4 {
			t.Errorf("a row of three columns? %s", line)
		}
	}
}

// Whatever the environment holds is taken or refused in one line, and that line
// never shows what a secret setting holds.
func FuzzEnvironment(f *testing.F) {
	f.Add("PORT", "8000", "hush-hush")
	f.Add("BROKER", "user:password@host:1", "hush hush")
	f.Add("KAFKA_SASL_MECHANISM", "PLAIN", "\x00")
	f.Add("RATE_LIMIT", "1e309", ",")
	none := filepath.Join(f.TempDir(), "none.env")
	f.Fuzz(func(t *testing.T, name, value, secret string) {
		for _, hidden := range []string{"API_KEYS", "KAFKA_SASL_PASSWORD", "KAFKA_SASL_PASSWORD_FILE"} {
			const mark = "canary-9f2c"
			c, err := config.Load(none, []string{name + "=" + value, hidden + "=" + secret + mark})
			var e *config.Error
			if err != nil && (!errors.As(err, &e) || strings.ContainsAny(err.Error(), "\n\r") || !strings.Contains(name+value, mark) && strings.Contains(err.Error(), mark)) {
				t.Fatalf("error %q", err)
			}
			if err == nil && (c.Port == "" || len(c.Brokers) == 0 || c.Partitions < 1 || c.RollingPeriod < time.Millisecond) {
				t.Fatalf("accepted %+v", c)
			}
		}
	})
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{config.EnvFile(), "PORT", "=", "export ", "PORT='", "a: b", "\x00", "PORT=$PORT", "\ufeff#",
		"API_KEYS='hush\nhush'", "ROLLING_PERIOD=9999999999h", "X\\=1", "A\u0085=1"} {
		f.Add(s)
	}
	name := filepath.Join(f.TempDir(), "config.env")
	f.Fuzz(func(t *testing.T, content string) {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(name, nil)
		var e *config.Error
		if err != nil && (!errors.As(err, &e) || strings.ContainsAny(err.Error(), "\n\r")) {
			t.Fatalf("error %q", err)
		}
		if err == nil && (c.Port == "" || len(c.Brokers) == 0 || c.Partitions < 1 || c.RollingPeriod < time.Millisecond) {
			t.Fatalf("accepted %+v", c)
		}
		const mark = "canary9f2c"
		for _, secret := range []string{mark, mark + "==", mark + ": " + mark, "export " + mark + "=", mark + "=$" + mark, mark + "=$A"} {
			if err := os.WriteFile(name, []byte(content+"\nAPI_KEYS=one,\n"+secret), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(name, nil); err != nil && strings.Contains(err.Error(), mark) && !strings.Contains(content, mark) {
				t.Fatalf("a secret over two lines, %q: %q", secret, err)
			}
		}
	})
}

// A $NAME that stands for nothing is refused: it would open the API.
func TestNothingIsExpanded(t *testing.T) {
	for content, want := range map[string]string{
		"PORT=1\nAPI_KEYS=$KEYS":                              "config.env: API_KEYS in line 2 has a $NAME, which has no value above it in the file; write what it stands for",
		"API_KEYS=one,${KEYS}":                                "API_KEYS in line 1 has a $NAME,",
		"# first\n\nexport API_KEYS=\"$KEYS\"":                "API_KEYS in line 3 has",
		"API_KEYS=\"one,\n$KEYS\"\nPORT=1":                    "API_KEYS in line 1 has",
		"PORT=8000\nADMIN_PORT=$PORT\nSTATE_DIR=$PORTS/state": "STATE_DIR in line 3 has $PORTS, which",
		"STATE_DIR=$DATA_DIR\nDATA_DIR=x":                     "STATE_DIR in line 1 has $DATA_DIR, which has no value above it",
		"PORT=$PORT":                                          "PORT in line 1 has $PORT, which",
		"KAFKA_SASL_USER=\nAPI_KEYS=$KAFKA_SASL_USER":         "API_KEYS in line 2 has",
		"KAFKA_SASL_PASSWORD=pa$SW0RD":                        "KAFKA_SASL_PASSWORD in line 1 has a $NAME,",
	} {
		_, err := load(t, content)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "SW0RD") {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
	for content, want := range map[string]string{
		"DATA_DIR=x\r\nSTATE_DIR=$DATA_DIR/state":                   "x/state",
		"DATA_DIR=x\nSTATE_DIR=\"${DATA_DIR}\"\n# $NOBODY reads me": "x",
		"STATE_DIR='$HOME'":              "$HOME",
		"STATE_DIR=\\$HOME":              "$HOME",
		"STATE_DIR=a$b":                  "a$b",
		"STATE_DIR=x # not $SO":          "x",
		"STATE_DIR='$A\n$B'\nDATA_DIR=y": "$A\n$B",
	} {
		if c, err := load(t, content); err != nil || c.StateDir != want {
			t.Errorf("%q: %q, %v, want %q", content, c.StateDir, err, want)
		}
	}
}

// A slip in the environment is warned of, and nothing else that is there.
func TestMisspelled(t *testing.T) {
	for name, want := range map[string]string{
		"TRESHOLD_AMOUNT": "THRESHOLD_AMOUNT", "ROLING_PERIOD": "ROLLING_PERIOD", "BROKERS": "BROKER", "API_KEY": "API_KEYS",
		"threshold_amount": "THRESHOLD_AMOUNT", "PORTS": "PORT", "PARTITION": "PARTITIONS", "KAFKA_SASL_PASWORD": "KAFKA_SASL_PASSWORD",
		"RATELIMIT": "RATE_LIMIT", "STATEDIR": "STATE_DIR",
	} {
		got := config.Misspelled([]string{name + "=secret"})
		if len(got) != 1 || !strings.Contains(got[0], "is not a setting; did you mean "+want+"?") || strings.Contains(got[0], "secret") {
			t.Errorf("%s: %q", name, got)
		}
	}
	others := []string{"PATH", "HOME", "HOST", "HOSTNAME", "USER", "SHELL", "LANG", "TERM", "PWD", "TMPDIR", "LOGNAME", "MAIL", "EDITOR", "XDG_DATA_DIRS",
		"XDG_STATE_HOME", "KUBERNETES_PORT", "KUBERNETES_SERVICE_HOST", "BROKER_SERVICE_PORT", "KAFKA_PORT", "KAFKA_HOME", "KAFKA_OPTS", "GOPATH", "GOROOT",
		"JAVA_HOME", "DB_HOST", "DB_PORT", "API_URL", "LC_ALL", "OLDPWD", "SHLVL", "DISPLAY", "_", "http_proxy", "NO_PROXY", "BASE_DIR", "CACHE_DIR", "PROMPT",
		"DEBUG", "TZ", "PS1", "CI", "=C:", "VERSION", "SERVER_PORT", "HTTP_PORT", "SSH_TTY", "LS_COLORS", "TEST_DIR", "RUNNER_OS"}
	for _, name := range append(others, "PORT", "API_KEYS") {
		if got := config.Misspelled([]string{name + "=x"}); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := config.Misspelled([]string{"TRESHOLD_AMOUNT="}); len(got) > 0 {
		t.Errorf("with no value: %q", got)
	}
}
