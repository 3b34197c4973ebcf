//go:build !kafka

package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"coinbit/internal/kafkatest/child"
)

// Secrets that no output of the program may hold. Each is searched for also in
// the encodings that a log or a header could give it.
var canaries = map[string]string{
	"an API key":            "canary-1f6b-api-key",
	"another API key":       "canary-2d09-api-key",
	"a wrong API key":       "canary-3a77-wrong-key",
	"the SASL password":     "canary-4c1e-sasl-password",
	"a wrong SASL password": "canary-5be0-wrong-password",
	"an Idempotency-Key":    "canary-6d52-idempotency-key",
	"what a key file holds": "canary-7f00-in-a-key-file",
}

// leaks says which canaries text holds.
func leaks(text string) []string {
	var found []string
	for name, secret := range canaries {
		b := []byte(secret)
		for _, form := range []string{
			secret, hex.EncodeToString(b), fmt.Sprint(b),
			strings.TrimRight(base64.StdEncoding.EncodeToString(b), "="),
			// in the middle of something else, at each of the three alignments
			base64.StdEncoding.EncodeToString(b[1 : 1+12]), base64.StdEncoding.EncodeToString(b[2 : 2+12]),
		} {
			if strings.Contains(text, form) {
				found = append(found, name+" as "+form)
			}
		}
	}
	return found
}

func TestLeaks(t *testing.T) {
	secret := canaries["the SASL password"]
	for _, text := range []string{secret, "x" + secret + "y", base64.StdEncoding.EncodeToString([]byte("user:" + secret)), hex.EncodeToString([]byte(secret))} {
		if len(leaks(text)) == 0 {
			t.Errorf("not found in %s", text)
		}
	}
	if found := leaks("canary"); found != nil {
		t.Error(found)
	}
}

// authority signs certificates and writes them where the program reads them.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", nil)
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) write(name, kind string, der []byte) []byte {
	a.t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(a.dir, name), text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return text
}

func (a *authority) sign(name string, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: by == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent := a.cert
	if by == nil {
		by, parent = key, c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c, key
}

// issue writes NAME.pem and NAME.key and returns the pair.
func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	cert, key := a.sign(name, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(a.write(name+".pem", "CERTIFICATE", cert.Raw), a.write(name+".key", "PRIVATE KEY", der))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// transcript is all that the program ever said: what it printed and what it
// answered.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// program runs the built program in dir and records it.
type program struct {
	t        *testing.T
	binary   string
	dir      string
	recorded *transcript
}

func (p *program) command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(p.binary, args...)
	cmd.Dir = p.dir
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = p.recorded, p.recorded
	return cmd
}

// once runs a command that ends by itself.
func (p *program) once(code int, env []string, args ...string) {
	p.t.Helper()
	started, err := child.Start(p.command(env, args...))
	if err != nil {
		p.t.Fatal(err)
	}
	if !started.Wait(60*time.Second) || started.ExitCode() != code {
		started.Kill()
		p.t.Errorf("%v: exit %d, want %d", args, started.ExitCode(), code)
	}
}

// ask makes a request and records the answer.
func (p *program) ask(addr, method, path, body string, headers ...string) int {
	r, err := http.NewRequest(method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	client := http.Client{Timeout: 20 * time.Second}
	res, err := client.Do(r)
	if err != nil {
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	fmt.Fprintln(p.recorded, res.Status)
	_ = res.Header.Write(p.recorded)
	_, _ = io.Copy(p.recorded, res.Body)
	fmt.Fprintln(p.recorded)
	return res.StatusCode
}

func (p *program) await(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(90 * time.Second); !ok(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("not in time: %s\n%s", what, p.recorded)
		}
	}
}

// TestSecrets runs every service with secrets in all the places where it has
// them, over SASL_SSL with client certificates, with all logs on, through what
// goes well and what goes wrong; and finds none of them in anything it said and
// in no file that it wrote.
func TestSecrets(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "coinbit")
	build := exec.Command("go", "build", "-o", binary, "./cmd")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ca := newAuthority(t)
	server, _ := ca.issue("kafka"), ca.issue("client")
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
		kfake.Superuser("SCRAM-SHA-512", "coinbit", canaries["the SASL password"]),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}))
	if err != nil {
		t.Fatal(err)
	}
	closeKafka := sync.OnceFunc(kafka.Close)
	defer closeKafka()

	keyText, err := os.ReadFile(filepath.Join(ca.dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(keyText), "\n") {
		if len(line) > 20 && !strings.HasPrefix(line, "-----") {
			canaries[fmt.Sprintf("line %d of the TLS key", i)] = line
		}
	}

	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			p := &program{t, binary, t.TempDir(), &transcript{}}
			env := []string{
				"BROKER=" + kafka.ListenAddrs()[0], "PARTITIONS=2", "LOG_LEVEL=debug", "LOG_FORMAT=" + format,
				"STATE_DIR=" + filepath.Join(p.dir, "state"), "DATA_DIR=" + filepath.Join(p.dir, "kafka"),
				"KAFKA_TLS_CA=" + filepath.Join(ca.dir, "ca.pem"), "KAFKA_TLS_CERT=" + filepath.Join(ca.dir, "client.pem"),
				"KAFKA_TLS_KEY=" + filepath.Join(ca.dir, "client.key"),
				"KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "KAFKA_SASL_USER=coinbit",
			}
			secrets := []string{"API_KEYS=" + canaries["an API key"] + "," + canaries["another API key"], "KAFKA_SASL_PASSWORD=" + canaries["the SASL password"]}
			// The first round has them in the file, the second in the environment.
			if format == "text" {
				if err := os.WriteFile(filepath.Join(p.dir, "config.env"), []byte(strings.Join(secrets, "\n")+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			} else {
				env = append(env, secrets...)
			}
			p.wellAndWrong(env, func() {
				if format == "json" {
					closeKafka()
				}
			})
			p.usage(env, ca.dir)
			p.judge()
		})
	}
}

// wellAndWrong starts all services, lets clients do what they do, and ends all;
// outage may take Kafka away before that.
func (p *program) wellAndWrong(env []string, outage func()) {
	p.t.Helper()
	addr := map[string]string{}
	var all []*child.Process
	defer func() {
		for _, c := range all {
			c.Stop(15 * time.Second)
		}
	}()
	for _, service := range []string{"api", "balance", "threshold", "flagger"} {
		port, err := child.FreePort()
		if err != nil {
			p.t.Fatal(err)
		}
		addr[service] = fmt.Sprintf("127.0.0.1:%d", port)
		c, err := child.Start(p.command(append(slices.Clone(env), "PORT="+addr[service], "ADMIN_PORT="+addr[service]), "-service="+service))
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, c)
	}
	for service := range addr {
		p.await(service+" is ready", func() bool { return p.ask(addr[service], "GET", "/readyz", "") == 200 })
	}
	const deposit = `{"wallet_id":"w","amount":6000}`
	api, key := addr["api"], "Authorization: Bearer "+canaries["an API key"]
	wrong, once := canaries["a wrong API key"], "Idempotency-Key: "+canaries["an Idempotency-Key"]
	basic := base64.StdEncoding.EncodeToString([]byte("user:" + canaries["an API key"]))
	for _, r := range []struct {
		status             int
		method, path, body string
		headers            []string
	}{
		{200, "POST", "/api/deposit", deposit, []string{key}},
		{200, "POST", "/api/deposit", deposit, []string{key, once}},
		{200, "POST", "/api/deposit", deposit, []string{key, once}},
		{422, "POST", "/api/deposit", `{"wallet_id":"w","amount":1}`, []string{key, once}},
		{400, "POST", "/api/deposit", deposit, []string{key, once, once}},
		{400, "POST", "/api/deposit", deposit, []string{key, once + "\u00e4"}},
		{400, "POST", "/api/deposit", "{", []string{key, once}},
		{403, "POST", "/api/deposit", deposit, []string{key, once, "Origin: http://evil.example"}},
		{200, "GET", "/api/check/w", "", []string{key}},
		{400, "GET", "/api/check/w", "", []string{key, "X-Deposit-Position: 9:9"}},
		{503, "GET", "/api/check/w", "", []string{key, "X-Deposit-Position: " + position(p, api, key)}},
		{404, "GET", "/api/" + "nothing", "", []string{key}},
		{405, "PUT", "/api/deposit", "", []string{key}},
		{405, "TRACE", "/api/deposit", "", []string{key}},
		{401, "GET", "/api/check/w", "", []string{"Authorization: Bearer " + wrong}},
		{401, "GET", "/api/check/w", "", []string{"Authorization: " + canaries["an API key"]}},
		{401, "GET", "/api/check/w", "", []string{"Authorization: Basic " + basic}},
		{401, "GET", "/api/check/w", "", []string{key, key}},
		{401, "GET", "/api/check/w?key=" + canaries["an API key"], "", nil},
		{401, "POST", "/api/deposit?access_token=" + canaries["an API key"], deposit, []string{once}},
		{404, "GET", "/" + wrong, "", nil},
		{414, "GET", "/" + strings.Repeat(wrong, 200), "", nil},
		{431, "GET", "/", "", []string{"Authorization: Bearer " + strings.Repeat(wrong, 1500)}},
		{200, "GET", "/metrics", "", []string{key}},
		{200, "GET", "/healthz", "", []string{key}},
	} {
		if got := p.ask(api, r.method, r.path, r.body, r.headers...); got != r.status {
			p.t.Errorf("%s %.60s: %d, want %d", r.method, r.path, got, r.status)
		}
	}
	for service := range addr {
		for _, path := range []string{"/metrics", "/readyz", "/healthz", "/debug/pprof/", "/debug/vars", "/" + wrong} {
			p.ask(addr[service], "GET", path, "", key)
		}
	}
	p.once(0, env, "-service=flag", "-wallet", "w")
	p.once(0, append(slices.Clone(env), "PORT="+api), "-service=health")

	outage()
	p.ask(api, "POST", "/api/deposit", deposit, key, once)
	p.ask(api, "POST", "/api/deposit", deposit, key)
	p.ask(api, "GET", "/readyz", "", key)
	p.ask(api, "GET", "/metrics", "", key)
}

// position is one that nothing has reached yet.
func position(p *program, addr, key string) string {
	r, err := http.NewRequest("POST", "http://"+addr+"/api/deposit", strings.NewReader(`{"wallet_id":"w","amount":1}`))
	if err != nil {
		p.t.Fatal(err)
	}
	name, value, _ := strings.Cut(key, ": ")
	r.Header.Set(name, value)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	_ = res.Body.Close()
	partition, _, _ := strings.Cut(res.Header.Get("X-Deposit-Position"), ":")
	return partition + ":1000"
}

// usage makes the mistakes that settings and command lines invite.
func (p *program) usage(env []string, certs string) {
	p.t.Helper()
	with := func(more ...string) []string { return slices.Concat(env, more) }
	p.once(0, env, "-h")
	p.once(0, env, "-service=api", "-h")
	p.once(2, env)
	p.once(2, env, "-service=nothing")
	p.once(2, with("API_KEYS="+canaries["an API key"]+","), "-service=api")
	p.once(2, with("API_KEYS="+canaries["an API key"]+" "+canaries["another API key"]), "-service=api")
	p.once(2, with("KAFKA_SASL_MECHANISM=", "KAFKA_SASL_PASSWORD="+canaries["the SASL password"]), "-service=api")
	p.once(2, with("BROKER=coinbit:"+canaries["the SASL password"]+"@127.0.0.1:9092"), "-service=api")
	p.once(2, with("BROKER=SASL_SSL://coinbit:"+canaries["the SASL password"]+"@127.0.0.1:9092"), "-service=api")
	p.once(2, env, "-service=kafka") // the embedded broker has no SASL

	key, err := os.ReadFile(filepath.Join(certs, "client.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.once(2, with("KAFKA_TLS_KEY="+string(key)), "-service=api")
	p.once(2, with("KAFKA_TLS_CA="+string(key)), "-service=api")
	broken := filepath.Join(p.t.TempDir(), "broken.key")
	text := "-----BEGIN PRIVATE KEY-----\n" + canaries["what a key file holds"] + "\n-----END PRIVATE KEY-----\n"
	if err := os.WriteFile(broken, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.once(2, with("KAFKA_TLS_KEY="+broken), "-service=api")
	p.once(2, with("KAFKA_TLS_CA="+broken), "-service=api")
	p.once(2, with("KAFKA_TLS_CERT="+broken), "-service=api")

	settings := filepath.Join(p.dir, "config.env")
	for _, text := range []string{
		"API_KEYS='" + canaries["an API key"],
		"API_KEYS " + canaries["an API key"],
		canaries["the SASL password"],
		"KAFKA_SASL_PASSWORD=\"" + canaries["the SASL password"] + "\nPORT=x\n",
		"API_KEY=" + canaries["an API key"],
	} {
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			p.t.Fatal(err)
		}
		p.once(2, env, "-service=api")
	}
	if err := os.Remove(settings); err != nil {
		p.t.Fatal(err)
	}

	// Kafka does not believe the password, or is not there: until told to stop.
	c, err := child.Start(p.command(with("KAFKA_SASL_PASSWORD="+canaries["a wrong SASL password"], "PORT=0"), "-service=api"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Stop(15 * time.Second)
	before := strings.Count(p.recorded.String(), "kafka is away")
	p.await("the line", func() bool { return strings.Count(p.recorded.String(), "kafka is away") > before })
}

// judge looks for the canaries in all that was said and written.
func (p *program) judge() {
	p.t.Helper()
	said := p.recorded.String()
	for _, want := range []string{"listening", "DEBUG", "-service=all", "coinbit_http_requests_total", "problem:unauthorized"} {
		if !strings.Contains(said, want) {
			p.t.Errorf("nothing like %s was recorded: is all of it there?", want)
		}
	}
	for _, found := range leaks(said) {
		p.t.Errorf("said: %s", found)
		for line := range strings.Lines(said) {
			if len(leaks(line)) > 0 {
				p.t.Logf("%.400s", line)
			}
		}
	}
	files := 0
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		files++
		for _, found := range leaks(string(data)) {
			p.t.Errorf("%s holds %s", path, found)
		}
		return err
	})
	if err != nil || files == 0 {
		p.t.Errorf("%d files, %v", files, err)
	}
	p.t.Logf("%d bytes of output and %d files hold none of %d secrets", len(said), files, len(canaries))
}
