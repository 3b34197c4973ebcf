//go:build kafka

package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/kafkatest"
	"coinbit/internal/kafkatest/child"
	"coinbit/internal/stream"
)

// Who has a column in the matrix.
var users = []string{"api", "balance", "threshold", "flagger", "flag", "verify", "whatif", "statement", "deadletter", "topics"}

// guarded is a Kafka with authorizer, on which each service is a user of its own:
// User:name with a password, User:CN=name with a certificate.
type guarded struct {
	t        *testing.T
	cluster  *kafkatest.Cluster
	admin    sarama.ClusterAdmin
	pki      *kafkatest.PKI
	producer sarama.SyncProducer
	partOf   int32
	password map[string]string
	cert     map[string][2]string // certificate and key
	dir      string

	mu    sync.Mutex
	procs []*guardedProc
}

// props are further ones of the broker.
func newGuarded(t *testing.T, props map[string]string) *guarded {
	t.Helper()
	needsOwnKafka(t)
	g := &guarded{t: t, dir: t.TempDir(), partOf: 2, password: map[string]string{}, cert: map[string][2]string{}}
	var err error
	if g.pki, err = kafkatest.NewPKI(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"connections.max.reauth.ms": "4000"} // every connection has to say again who it is, again and again
	maps.Copy(all, props)
	g.cluster, err = kafkatest.Start(context.Background(), kafkatest.Options{Dir: t.TempDir(), PKI: g.pki, Props: all})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.cluster.Kill(0); g.cluster.Stop() }) // nobody needs its data, so it need not take leave
	if g.admin, err = g.cluster.Admin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.admin.Close() })
	conf := sarama.NewConfig()
	conf.Producer.Return.Successes = true
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	if g.producer, err = sarama.NewSyncProducer(g.cluster.Addrs(), conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.producer.Close() })
	for _, u := range users {
		g.password[u] = fmt.Sprintf("canary-%s-%x", u, rand.Uint64())
		if err := kafkatest.AddUser(g.admin, u, g.password[u]); err != nil {
			t.Fatal(err)
		}
		cert, key, err := g.pki.Issue(u, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		g.cert[u] = [2]string{cert, key}
	}
	for _, r := range stream.Rights() {
		g.grant("User:"+r.Service, r)
		if r.Service != "balance" {
			g.grant("User:CN="+r.Service, r)
		}
	}
	t.Cleanup(g.stop)
	return g
}

// obeyCommands runs what -service=topics -acls prints for balance, by Kafka's own
// tool, and returns when that is done.
func (g *guarded) obeyCommands(t *testing.T) {
	_, all := g.once("topics", []string{"BROKER=" + g.cluster.Bootstrap()}, "-acls", "-principal=User:CN=%s")
	_, rest, _ := strings.Cut(all, "# balance\n")
	section, _, ok := strings.Cut(rest, "#")
	if !ok {
		t.Errorf("nothing for balance in\n%s", all)
		return
	}
	if err := os.WriteFile(filepath.Join(g.dir, "admin.properties"), nil, 0o600); err != nil {
		t.Error(err)
		return
	}
	tool := strings.Join(g.cluster.Tool("org.apache.kafka.tools.AclCommand"), "' '")
	script := exec.Command("bash", "-ec", "kafka-acls.sh() { '"+tool+"' \"$@\"; }\n"+section)
	script.Dir = g.dir
	if out, err := script.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", section, err, out)
	}
}

func (g *guarded) sasl(user string) []string {
	return []string{"BROKER=" + g.cluster.Secured(kafkatest.SASLSSL), "KAFKA_TLS_CA=" + g.pki.CA,
		"KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "KAFKA_SASL_USER=" + user, "KAFKA_SASL_PASSWORD=" + g.password[user]}
}

func (g *guarded) mtls(user string) []string {
	return []string{"BROKER=" + g.cluster.Secured(kafkatest.SSL), "KAFKA_TLS_CA=" + g.pki.CA,
		"KAFKA_TLS_CERT=" + g.cert[user][0], "KAFKA_TLS_KEY=" + g.cert[user][1]}
}

var aclOperations = map[string]sarama.AclOperation{
	stream.Read: sarama.AclOperationRead, stream.Write: sarama.AclOperationWrite,
	stream.Create: sarama.AclOperationCreate, stream.Describe: sarama.AclOperationDescribe,
	stream.DescribeConfigs: sarama.AclOperationDescribeConfigs,
}

var aclResources = map[string]sarama.AclResourceType{
	stream.TopicResource: sarama.AclResourceTopic, stream.GroupResource: sarama.AclResourceGroup,
	stream.TransactionalIDResource: sarama.AclResourceTransactionalID,
}

func pattern(r stream.Right) sarama.AclResourcePatternType {
	if r.Prefix {
		return sarama.AclPatternPrefixed
	}
	return sarama.AclPatternLiteral
}

func (g *guarded) grant(principal string, r stream.Right) {
	g.t.Helper()
	err := g.admin.CreateACLs([]*sarama.ResourceAcls{{
		Resource: sarama.Resource{ResourceType: aclResources[r.Resource], ResourceName: r.Name, ResourcePatternType: pattern(r)},
		Acls:     []*sarama.Acl{{Principal: principal, Host: "*", Operation: aclOperations[r.Operation], PermissionType: sarama.AclPermissionAllow}},
	}})
	if err != nil {
		g.t.Fatalf("grant %s to %s: %v", r, principal, err)
	}
}

// revoke returns when the broker has taken note.
func (g *guarded) revoke(principal string, r stream.Right) {
	g.t.Helper()
	filter := sarama.AclFilter{
		ResourceType: aclResources[r.Resource], ResourceName: &r.Name, ResourcePatternTypeFilter: pattern(r),
		Principal: &principal, Operation: aclOperations[r.Operation], PermissionType: sarama.AclPermissionAllow,
	}
	gone, err := g.admin.DeleteACL(filter, false)
	if err != nil || len(gone) != 1 {
		g.t.Fatalf("revoke %s from %s: %v %v", r, principal, gone, err)
	}
	if !eventually(10*time.Second, func() bool {
		left, err := g.admin.ListAcls(filter)
		return err == nil && len(left) == 0
	}) {
		g.t.Fatalf("revoke %s from %s: it is still there", r, principal)
	}
}

// put appends a record as one who may do everything.
func (g *guarded) put(topic, key string, value []byte) {
	g.t.Helper()
	_, _, err := g.producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: stream.Partition(key, g.partOf),
		Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(value)})
	if err != nil {
		g.t.Errorf("put on %s: %v", topic, err)
	}
}

// guardedProc is one process of a service, and all that it printed.
type guardedProc struct {
	g       *guarded
	service string
	addr    string
	env     []string
	proc    *child.Process

	mu   sync.Mutex
	said bytes.Buffer
}

func (p *guardedProc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *guardedProc) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// run starts a service as a user; more are arguments and settings.
func (g *guarded) run(service string, env []string, args ...string) *guardedProc {
	g.t.Helper()
	p := &guardedProc{g: g, service: service, addr: freeAddr(g.t)}
	p.env = slices.Concat(os.Environ(), ownSettings, []string{"PARTITIONS=2", "LOG_LEVEL=debug",
		"STATE_DIR=" + g.dir, "PORT=" + p.addr, "ADMIN_PORT=" + p.addr}, env)
	p.start(args...)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.procs = append(g.procs, p)
	return p
}

func (p *guardedProc) start(args ...string) {
	p.g.t.Helper()
	cmd := exec.Command(binary, append([]string{"-service=" + p.service}, args...)...)
	cmd.Dir, cmd.Env = p.g.dir, p.env
	cmd.Stdout, cmd.Stderr = p, p
	var err error
	if p.proc, err = child.Start(cmd); err != nil {
		p.g.t.Fatal(err)
	}
}

// once runs a command that ends by itself.
func (g *guarded) once(service string, env []string, args ...string) (code int, said string) {
	g.t.Helper()
	p := g.run(service, env, args...)
	if !p.proc.Wait(40 * time.Second) {
		g.t.Errorf("%s %v does not end:\n%s", service, args, p.output())
		p.proc.Kill()
	}
	return p.proc.ExitCode(), p.output()
}

func (p *guardedProc) restart() {
	_ = p.proc.Signal(syscall.SIGTERM)
	p.proc.Wait(10 * time.Second)
	p.proc.Kill()
	p.start()
}

// show notes what its port shows, as if it had printed it.
func (p *guardedProc) show(t *testing.T) {
	for _, path := range []string{"/readyz", "/metrics", "/api/check/w"} {
		res, err := probes.Get("http://" + p.addr + path)
		if err != nil {
			t.Error(err)
			continue
		}
		text, err := readAll(res)
		if err != nil {
			t.Error(err)
		}
		_, _ = p.Write([]byte(text + "\n"))
	}
}

func (p *guardedProc) ready() bool {
	res, err := probes.Get("http://" + p.addr + "/readyz")
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func (p *guardedProc) awaitReady(t *testing.T) {
	t.Helper()
	if !eventually(40*time.Second, p.ready) {
		t.Fatalf("%s is not ready:\n%s", p.service, lastLines(p.output()))
	}
}

// awaitLine waits for a line of the log, after the first from bytes, that says
// all of words, and does again what may bring it about.
func (p *guardedProc) awaitLine(t *testing.T, from int, again func(), words ...string) {
	t.Helper()
	var line string
	if !eventually(20*time.Second, func() bool {
		for line = range strings.Lines(p.output()[from:]) {
			if !strings.Contains(line, "level=DEBUG") && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return true
			}
		}
		again()
		return false
	}) {
		t.Fatalf("%s does not say %q:\n%s", p.service, words, lastLines(p.output()[from:]))
	}
	t.Log(strings.TrimSpace(line))
	if len(line) > 700 {
		t.Errorf("a line of %d bytes", len(line))
	}
}

func lastLines(s string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(s, "\n"), func(l string) bool { return strings.Contains(l, "level=DEBUG") })
	return strings.Join(lines[max(0, len(lines)-15):], "")
}

func (g *guarded) stop() {
	var wg sync.WaitGroup
	for _, p := range g.procs {
		wg.Go(func() { p.proc.Stop(10 * time.Second) })
	}
	wg.Wait()
}

// TestAccess runs every service as a user that may do what the matrix says and
// nothing else, takes each right away and gives it back.
func TestAccess(t *testing.T) {
	g := newGuarded(t, nil)
	procs := map[string]*guardedProc{}

	obeyed := make(chan struct{})
	go func() { defer close(obeyed); g.obeyCommands(t) }()
	t.Run("before the topics are there", func(t *testing.T) {
		procs["balance"] = g.run("balance", g.sasl("balance"))
		procs["balance"].awaitLine(t, 0, func() {}, "topic deposit does not exist", "KAFKA_SASL_USER=balance lacks Create", "-service=topics")
		code, said := g.once("topics", g.sasl("topics"))
		for _, topic := range stream.Topics() {
			if code != 0 || !strings.Contains(said, "\n"+topic.Name+" ") {
				t.Fatalf("-service=topics exits with %d, says nothing of %s:\n%s", code, topic.Name, said)
			}
		}
	})
	t.Run("all allowed", func(t *testing.T) {
		for _, s := range services {
			if procs[s] == nil {
				procs[s] = g.run(s, g.sasl(s))
			}
		}
		g.wholeWay(t, procs, g.sasl("flag"))
	})
	<-obeyed
	t.Run("nothing else allowed", g.nothingElse)
	t.Run("each right", func(t *testing.T) {
		atOnce(services, func(s string) {
			t.Run(s, func(t *testing.T) {
				for _, r := range stream.RightsOf(s) {
					t.Run(strings.ReplaceAll(r.String(), " ", "_"), func(t *testing.T) { g.takeAway(t, procs[s], r) })
				}
			})
		})
	})
	t.Run("each right of a command", func(t *testing.T) {
		atOnce([]string{"flag", "verify", "whatif", "statement", "deadletter", "topics"}, func(s string) {
			t.Run(s, func(t *testing.T) { g.takeAwayFromCommand(t, s) })
		})
	})
	t.Run("all rights at once", func(t *testing.T) { g.takeAwayAll(t, procs) })
	if t.Failed() {
		return
	}
	t.Run("no trouble but that", func(t *testing.T) { noTrouble(t, procs) })
	t.Run("another password", func(t *testing.T) {
		p := procs["balance"]
		from := len(p.output())
		if err := kafkatest.AddUser(g.admin, "balance", "another"); err != nil {
			t.Fatal(err)
		}
		p.awaitLine(t, from, func() {}, "kafka refuses this client", "KAFKA_SASL_PASSWORD", "user balance")
		if err := kafkatest.AddUser(g.admin, "balance", g.password["balance"]); err != nil {
			t.Fatal(err)
		}
		p.awaitReady(t)
	})
	t.Run("certificates", func(t *testing.T) {
		g.stop()
		for _, s := range services {
			procs[s] = g.run(s, g.mtls(s))
		}
		g.wholeWay(t, procs, g.mtls("flag"))
	})
	t.Run("wrong settings", g.wrongSettings)
	g.stop()
	t.Run("no secrets", g.noSecrets)
}

// atOnce calls f for all of names at the same time.
func atOnce(names []string, f func(name string)) {
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() { f(name) })
	}
	wg.Wait()
}

// noTrouble demands that the services complained of nothing but rights, although
// each connection had to authenticate again every few seconds.
func noTrouble(t *testing.T, procs map[string]*guardedProc) {
	for s, p := range procs {
		p.awaitReady(t)
		p.show(t)
		for line := range strings.Lines(p.output()) {
			if strings.Contains(line, "level=WARN") && !strings.Contains(line, " lacks ") && !strings.Contains(line, "not authorized") {
				t.Errorf("%s: %s", s, line)
			}
		}
	}
}

// wholeWay takes deposits through all services, and the operator.
func (g *guarded) wholeWay(t *testing.T, procs map[string]*guardedProc, operator []string) {
	for _, s := range services {
		procs[s].awaitReady(t)
	}
	c, wallet := newClient(t, procs["api"].addr), fmt.Sprintf("access-%x", rand.Uint32())
	c.mustPost(t, wallet, "6000")
	c.await(t, wallet, c.mustPost(t, wallet, "6000.01"), state{12000*nano + nano/100, true})
	if code, said := g.once("flag", operator, "-wallet="+wallet, "-remove"); code != 0 {
		t.Fatalf("the operator's removal exits with %d:\n%s", code, lastLines(said))
	}
	if !eventually(10*time.Second, func() bool {
		s, ok, err := c.check(wallet, "")
		return err == nil && ok && s == state{12000*nano + nano/100, false}
	}) {
		t.Error("the flag is not removed")
	}
}

// takeAway takes a right from a service that runs, and gives it back.
func (g *guarded) takeAway(t *testing.T, p *guardedProc, r stream.Right) {
	p.awaitReady(t)
	if r.Optional {
		g.takeAwayOptional(t, p, r)
		return
	}
	from, wallet := len(p.output()), fmt.Sprintf("take-%x", rand.Uint32())
	g.revoke("User:"+p.service, r)
	group := stream.Group(p.service)
	again, healed := func() {}, p.ready
	switch {
	case p.service == "api" && r.Operation == stream.Write:
		c := newClient(t, p.addr)
		again = func() {
			if a := c.post(wallet, "1", ""); a.verdict != unknown && a.verdict != refused {
				t.Errorf("a deposit without the right: %s", a.detail)
			}
		}
		healed = func() bool { return c.post(wallet, "1", "").verdict == acked }
	case r.Resource == stream.TransactionalIDResource, r.Operation == stream.Describe, r.Name == string(group.Table()) && r.Operation == stream.Read:
		p.restart() // needed at the start alone
	case r.Operation == stream.Write && strings.HasSuffix(r.Name, "_dead_letter"):
		input := strings.TrimSuffix(r.Name, "_dead_letter")
		again = func() { g.put(input, wallet, []byte("garbage")) }
	case r.Operation == stream.Write && p.service == "flagger":
		again = func() { g.put("flag_wallet", wallet, message(t, "flag_wallet", wallet, 0)) }
	case r.Operation == stream.Write: // each a new wallet: over the threshold
		again = func() {
			w := fmt.Sprintf("%s-%x", wallet, rand.Uint32())
			g.put("deposit", w, deposit(t, w, 20_000))
		}
	}
	p.awaitLine(t, from, again, "KAFKA_SASL_USER="+p.service+" lacks "+strings.TrimSuffix(r.String(), "*"))
	g.grant("User:"+p.service, r)
	if !eventually(20*time.Second, healed) {
		t.Errorf("it does not heal:\n%s", lastLines(p.output()[from:]))
	}
}

// takeAwayAll takes every right from every service under load, for longer than a session
// lasts, and gives all back. Meanwhile no deposit is acknowledged, and every part answers.
func (g *guarded) takeAwayAll(t *testing.T, procs map[string]*guardedProc) {
	load := startSteady(t, newClient(t, procs["api"].addr), "all-rights")
	load.goesOn(t)
	for _, s := range services {
		for _, r := range stream.RightsOf(s) {
			g.revoke("User:"+s, r)
		}
	}
	if !eventually(20*time.Second, func() bool {
		before := load.others.Load()
		pause(500 * time.Millisecond)
		return load.others.Load() > before && !procs["api"].ready()
	}) {
		t.Error("deposits are taken without a right")
	}
	acknowledged := load.acked.Load()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); pause(200 * time.Millisecond) {
		for _, s := range services {
			ask(t, ownAnswer, procs[s].addr, "/healthz", 200)
			ask(t, ownAnswer, procs[s].addr, "/readyz", 200, 503)
		}
		ask(t, 3*time.Second, procs["api"].addr, "/api/check/"+load.wallet, 200, 503)
	}
	if n := load.acked.Load() - acknowledged; n > 0 {
		t.Errorf("%d deposits are acknowledged without a right", n)
	}
	for _, s := range services {
		for _, r := range stream.RightsOf(s) {
			g.grant("User:"+s, r)
		}
	}
	for _, s := range services {
		procs[s].awaitReady(t)
	}
	load.goesOn(t)
	load.finish(t)
}

// takeAwayOptional takes a right without which the API's page shows one thing less,
// and demands that nothing else changes. It is not given back before Kafka has been
// asked again: that takes a minute.
func (g *guarded) takeAwayOptional(t *testing.T, p *guardedProc, r stream.Right) {
	group := r.Name
	if r.Resource == stream.TopicResource {
		group = string(stream.FlaggerGroup)
	}
	from := len(p.output())
	g.revoke("User:"+p.service, r)
	defer g.grant("User:"+p.service, r)
	p.restart() // it forgets what it was denied
	p.awaitReady(t)
	if is := awaitLive(t, p.addr, group, "unknown"); !strings.Contains(is, "denies Describe") {
		t.Errorf("%s: %s", group, is)
	}
	for _, g := range stream.Groups() {
		if string(g) != group {
			awaitLive(t, p.addr, string(g), "up")
		}
	}
	c := newClient(t, p.addr)
	c.mustPost(t, fmt.Sprintf("optional-%x", rand.Uint32()), "1")
	if said := p.output()[from:]; strings.Contains(said, " lacks ") {
		t.Errorf("it complains:\n%s", lastLines(said))
	}
}

// awaitLive follows the page's stream until it says that a group is in a state, and
// returns what it says of the group.
func awaitLive(t *testing.T, addr, group, state string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	var last string
	for lines.Scan() {
		var s struct {
			Groups []struct{ Name, State, Why string }
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && json.Unmarshal([]byte(data), &s) == nil {
			for _, g := range s.Groups {
				if g.Name != group {
					continue
				}
				if last = g.State + ": " + g.Why; g.State == state {
					return last
				}
			}
		}
	}
	t.Fatalf("%s is not %s but %q: %v", group, state, last, lines.Err())
	return ""
}

// takeAwayFromCommand is takeAway for a command that ends by itself.
func (g *guarded) takeAwayFromCommand(t *testing.T, s string) {
	args := map[string][]string{
		"flag": {"-wallet=w", "-remove"}, "whatif": {"-threshold=1"}, "statement": {"-wallet=w"},
	}[s]
	for _, r := range stream.RightsOf(s) {
		if r.Operation == stream.Create { // the topics are there
			continue
		}
		g.revoke("User:"+s, r)
		began := time.Now()
		code, said := g.once(s, g.sasl(s), args...)
		if code != 1 || !strings.Contains(said, "KAFKA_SASL_USER="+s+" lacks "+r.String()) || time.Since(began) > 10*time.Second {
			t.Errorf("without %s it exits with %d after %v and says\n%s", r, code, time.Since(began), lastLines(said))
		}
		g.grant("User:"+s, r)
	}
	if code, said := g.once(s, g.sasl(s), args...); code != 0 {
		t.Errorf("with all rights again it exits with %d and says\n%s", code, lastLines(said))
	}
}

// nothingElse asks Kafka itself what each user may do with each topic, and lets
// each try to make one.
func (g *guarded) nothingElse(t *testing.T) {
	authority, err := os.ReadFile(g.pki.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	var names []string
	for _, topic := range stream.Topics() {
		names = append(names, topic.Name)
	}
	for _, u := range users {
		pair, err := tls.LoadX509KeyPair(g.cert[u][0], g.cert[u][1])
		if err != nil {
			t.Fatal(err)
		}
		conf := sarama.NewConfig()
		conf.Version = sarama.V2_8_0_0
		conf.Net.TLS.Enable, conf.Net.TLS.Config = true, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
		admin, err := sarama.NewClusterAdmin([]string{g.cluster.Secured(kafkatest.SSL)}, conf)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = admin.Close() }()
		if err := admin.CreateTopic("intruder", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err == nil || !strings.Contains(err.Error(), "not authorized") {
			t.Errorf("%s makes a topic of its own: %v", u, err)
		}
		if err := admin.DeleteTopic("deposit"); err == nil {
			t.Fatalf("%s deletes the deposits", u)
		}
		controller, err := admin.Controller()
		if err != nil {
			t.Fatal(err)
		}
		req := sarama.NewMetadataRequest(conf.Version, names)
		req.IncludeTopicAuthorizedOperations = true
		meta, err := controller.GetMetadata(req)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range meta.Topics {
			var want int32
			for _, r := range stream.RightsOf(u, m.Name) {
				want |= 1<<aclOperations[r.Operation] | 1<<sarama.AclOperationDescribe
			}
			hidden := m.Err == sarama.ErrTopicAuthorizationFailed
			if hidden != (want == 0) || !hidden && m.TopicAuthorizedOperations != want {
				t.Errorf("%s on %s: may %b, want %b, hidden %v", u, m.Name, m.TopicAuthorizedOperations, want, hidden)
			}
		}
	}
}

// wrongSettings gives the operator's command settings that cannot work.
func (g *guarded) wrongSettings(t *testing.T) {
	other, err := kafkatest.NewPKI(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	foreign, foreignKey, err := other.Issue("flag", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	old, oldKey, err := g.pki.Issue("expired", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	plain := "BROKER=" + g.cluster.Bootstrap()
	var wg sync.WaitGroup
	for name, c := range map[string]struct {
		env  []string
		says []string
	}{
		"another authority":              {append(g.sasl("flag"), "KAFKA_TLS_CA="+other.CA), []string{"KAFKA_TLS_CA", "unknown authority"}},
		"another host":                   {append(g.sasl("flag"), "BROKER="+strings.Replace(g.cluster.Secured(kafkatest.SASLSSL), "127.0.0.1", "localhost", 1)), []string{"BROKER", "localhost"}},
		"no certificate":                 {append(g.mtls("flag"), "KAFKA_TLS_CERT=", "KAFKA_TLS_KEY="), []string{"KAFKA_TLS_CERT", "wants a client certificate"}},
		"a foreign certificate":          {append(g.mtls("flag"), "KAFKA_TLS_CERT="+foreign, "KAFKA_TLS_KEY="+foreignKey), []string{"KAFKA_TLS_CERT", "CN=flag", "unknown certificate"}},
		"an expired certificate":         {append(g.mtls("flag"), "KAFKA_TLS_CERT="+old, "KAFKA_TLS_KEY="+oldKey), []string{"KAFKA_TLS_CERT", "CN=expired", "valid until"}},
		"a wrong password":               {append(g.sasl("flag"), "KAFKA_SASL_PASSWORD=canary-wrong"), []string{"KAFKA_SASL_PASSWORD", "user flag"}},
		"an unknown user":                {append(g.sasl("flag"), "KAFKA_SASL_USER=nobody"), []string{"KAFKA_SASL_USER", "user nobody"}},
		"a wrong mechanism":              {append(g.sasl("flag"), "KAFKA_SASL_MECHANISM=PLAIN"), []string{"KAFKA_SASL_MECHANISM", "PLAIN"}},
		"no SASL":                        {append(g.sasl("flag"), "KAFKA_SASL_MECHANISM=", "KAFKA_SASL_USER=", "KAFKA_SASL_PASSWORD="), []string{"KAFKA_SASL_MECHANISM", "want SASL"}},
		"SASL where there is none":       {append(g.sasl("flag"), "BROKER="+g.cluster.Secured(kafkatest.SSL), "KAFKA_TLS_CERT="+g.cert["flag"][0], "KAFKA_TLS_KEY="+g.cert["flag"][1]), []string{"KAFKA_SASL_MECHANISM", "does not take SASL"}},
		"plaintext to a TLS port":        {[]string{"BROKER=" + g.cluster.Secured(kafkatest.SSL)}, []string{"KAFKA_TLS_CA", "speaks TLS"}},
		"plaintext SASL to a TLS port":   {append(g.sasl("flag"), "KAFKA_TLS_CA="), []string{"KAFKA_TLS_CA", "speaks TLS"}},
		"TLS to a plaintext port":        {append(g.mtls("flag"), plain), []string{"KAFKA_TLS_CA", "does it speak TLS"}},
		"SASL to a plaintext port":       {append(g.sasl("flag"), plain, "KAFKA_TLS_CA="), []string{"KAFKA_SASL_MECHANISM", "does not take SASL"}},
		"a key that fits no certificate": {append(g.mtls("flag"), "KAFKA_TLS_KEY="+g.cert["api"][1]), []string{"KAFKA_TLS_CERT", "KAFKA_TLS_KEY"}},
	} {
		wg.Go(func() {
			began := time.Now()
			code, said := g.once("flag", c.env, "-wallet=w")
			took := time.Since(began)
			t.Logf("%s, %v: %s", name, took.Round(time.Millisecond), strings.TrimSpace(lastLines(said)))
			lines := strings.Split(strings.TrimSpace(lastLines(said)), "\n")
			if code == 0 || len(lines) != 1 || took > 10*time.Second {
				t.Errorf("%s: exit %d after %v, with %d lines", name, code, took, len(lines))
			}
			for _, s := range c.says {
				if !strings.Contains(said, s) {
					t.Errorf("%s: it does not say %q", name, s)
				}
			}
		})
	}
	wg.Wait()
}

// noSecrets searches all that was printed, at debug level, and shown for what must
// not be.
func (g *guarded) noSecrets(t *testing.T) {
	secrets := []string{"canary-", "PRIVATE KEY"}
	for _, files := range g.cert {
		key, err := os.ReadFile(files[1])
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.Split(string(key), "\n")[1])
	}
	printed := 0
	for _, p := range g.procs {
		printed += len(p.output())
		for _, s := range secrets {
			if i := strings.Index(p.output(), s); i >= 0 {
				t.Errorf("%s prints a secret: …%.80q…", p.service, p.output()[max(0, i-40):])
			}
		}
	}
	t.Logf("%d processes printed %d bytes", len(g.procs), printed)
}
