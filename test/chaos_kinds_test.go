package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// kind is one kind of fault.
type kind struct {
	group, doc string
	// on chooses what the fault is done to; no other fault touches it meanwhile.
	on func(c *chaos, r *rand.Rand) []string
	// It lasts for least to most.
	least, most time.Duration
	traits      traits
	run         func(c *chaos, on []string, r *rand.Rand, hold time.Duration)
}

// traits say on which clusters a kind can be tried, and when it is.
type traits uint8

const (
	embedded traits = 1 << iota // on the embedded broker
	single                      // on Apache Kafka, one broker
	three                       // on Apache Kafka, three brokers
	slow                        // only when it is named
	alone                       // no other fault meanwhile
	brief                       // also in `make test`

	real     = single | three
	anywhere = embedded | real
)

const (
	ms = time.Millisecond
	s  = time.Second
)

// Groups and services of the fleet. Of each there are two instances.
var pairs = []string{"api", "balance", "threshold", "flagger"}

func instances() []string {
	var all []string
	for _, p := range pairs {
		all = append(all, p, p+"-2")
	}
	return all
}

func one(of ...string) func(*chaos, *rand.Rand) []string {
	return func(_ *chaos, r *rand.Rand) []string { return []string{of[r.IntN(len(of))]} }
}

func all(of ...string) func(*chaos, *rand.Rand) []string {
	return func(*chaos, *rand.Rand) []string { return of }
}

func anyInstance(_ *chaos, r *rand.Rand) []string { return one(instances()...)(nil, r) }

func anyGroup(_ *chaos, r *rand.Rand) []string {
	g := pairs[1+r.IntN(3)]
	return []string{g, g + "-2"}
}

func anyBroker(c *chaos, r *rand.Rand) []string {
	return []string{fmt.Sprint("broker-", r.IntN(len(c.kafka.Addrs())))}
}

func allBrokers(c *chaos, _ *rand.Rand) []string {
	var on []string
	for i := range c.kafka.Addrs() {
		on = append(on, fmt.Sprint("broker-", i))
	}
	return on
}

func number0(broker string) int { return int(broker[len(broker)-1] - '0') }

// kinds is every fault the harness knows, by name.
var kinds = map[string]kind{
	"kill":                   {"process", "kill -9 of one instance", anyInstance, 0, 1 * s, anywhere, killed},
	"kill all":               {"process", "kill -9 of all instances", all(instances()...), 0, 1 * s, anywhere, killed},
	"kill in recovery":       {"process", "kill -9 three times, the last two while it recovers", anyInstance, 50 * ms, 900 * ms, anywhere, killedInRecovery},
	"kill api":               {"process", "kill -9 of an API", one("api", "api-2"), 0, 300 * ms, anywhere, killed},
	"kill before the answer": {"process", "kill -9 of an API whose deposits are stored and not answered", anyAPIAndNetwork, 100 * ms, 800 * ms, real, killedBeforeAnswer},
	"terminate":              {"process", "SIGTERM to one instance", anyInstance, 0, 1 * s, anywhere, terminated},
	"stop briefly":           {"process", "SIGSTOP of one instance, for less than its session", anyInstance, 500 * ms, 4 * s, anywhere, stopped},
	"no descriptors":         {"process", "one instance may open no more files and sockets", anyInstance, 1 * s, 4 * s, anywhere, noDescriptors},
	"rolling restart":        {"process", "every instance in turn, with the other build", all(instances()...), 0, 200 * ms, anywhere, rolled},
	"sleeper":                {"process", "SIGSTOP of one of a group in mid-burst, for longer than its session", anyGroup, 11 * s, 13 * s, anywhere | slow, sleeper},
	"asleep while forgotten": {"process", "SIGSTOP of an API in mid-stream while the broker is killed and comes back", anyAPIAndBroker0, 0, 500 * ms, embedded | single | brief, asleepWhileForgotten},
	"asleep while expired":   {"process", "SIGSTOP of an API, answers outstanding, for longer than brokers remember producers", anyAPIAndNetwork, 2 * s, 3 * s, real | alone, asleepWhileExpired},
	"clock 2 h off":          {"process", "both of a pair run with a clock that is two hours ahead, or behind", anyPair, 1 * s, 2 * s, real | alone, clockOff},

	"broker restart":    {"broker", "one ends in an orderly way and comes back", anyBroker, 0, 1 * s, anywhere, brokerRestart},
	"broker kill":       {"broker", "kill -9 of one in mid-stream, its disk kept", anyBroker, 0, 1 * s, anywhere | brief, brokerKill},
	"kill controller":   {"broker", "kill -9 of the controller", allBrokers, 0, 1 * s, three, controllerKill},
	"kill coordinator":  {"broker", "kill -9 of a group's coordinator", allBrokers, 0, 1 * s, three, coordinatorKill},
	"broker disk full":  {"broker", "one has no room for a while (needs root)", anyBroker, 2 * s, 5 * s, real, brokerDiskFull},
	"broker stop":       {"broker", "SIGSTOP of one", anyBroker, 1 * s, 5 * s, anywhere, brokerStop},
	"all down":          {"broker", "kill -9 of all", allBrokers, 5 * s, 9 * s, anywhere, brokersDown},
	"all down for 70 s": {"broker", "kill -9 of all, for longer than most deadlines", allBrokers, 70 * s, 71 * s, anywhere | slow, brokersDown},
	"too few in sync":   {"broker", "two of three are away: nothing may be acknowledged", allBrokers, 3 * s, 6 * s, three, tooFewInSync},
	"leaders move":      {"broker", "another replica leads, again and again", allBrokers, 2 * s, 5 * s, three, leadersMove},

	"cluster replaced":         {"cluster", "another cluster at the same addresses while all run", nowhere, 0, 0, anywhere | alone | brief, replaced},
	"cluster of another count": {"cluster", "the same, with topics of another number of partitions", nowhere, 0, 0, anywhere | alone, replacedOther},
	"topics made anew":         {"cluster", "all topics and groups deleted and made again while the APIs run", nowhere, 0, 0, anywhere | alone, madeAnew(false)},
	"topics of another count":  {"cluster", "the same, with another number of partitions", nowhere, 0, 0, anywhere | alone | brief, madeAnew(true)},
	"partitions added":         {"cluster", "deposit gets one partition more, and services are started then", nowhere, 0, 0, anywhere | alone | brief, partitionsAdded},

	"latency":                {"network", "100 to 250 ms on every answer", network0, 1 * s, 4 * s, real, toxic("latency", "downstream", map[string]any{"latency": 150, "jitter": 100})},
	"black hole to broker":   {"network", "requests vanish", network0, 1 * s, 5 * s, real, toxic("timeout", "upstream", map[string]any{"timeout": 0})},
	"black hole from broker": {"network", "answers vanish", network0, 1 * s, 5 * s, real, toxic("timeout", "downstream", map[string]any{"timeout": 0})},
	"lost acknowledgements":  {"network", "answers vanish, then the connections are cut", network0, 200 * ms, 1 * s, real, lostAcks},
	"flag_wallet hung":       {"network", "what goes to flag_wallet is never answered, under a flood of deposits", networkAndDetector, 3 * s, 5 * s, real | alone, flagsHang},
	"cut in mid-frame":       {"network", "connections end after some bytes", network0, 500 * ms, 2 * s, real, midFrame},
	"reset":                  {"network", "connections are reset", network0, 500 * ms, 2 * s, real, toxic("reset_peer", "upstream", map[string]any{"timeout": 50})},
	"1 KB/s":                 {"network", "a slow line to the brokers", network0, 1 * s, 4 * s, real, toxic("bandwidth", "upstream", map[string]any{"rate": 1})},
	"corrupt bytes":          {"network", "bits flip in chunks large enough to be records", network0, 1 * s, 3 * s, real, toxic("flip", "upstream", map[string]any{})},
	"cut off":                {"network", "no broker can be reached", network0, 1 * s, 6 * s, real, cutOff},

	"state deleted":   {"disk", "an instance's state is gone", anyInstance, 0, 500 * ms, anywhere, disk(func(dir string, _ *rand.Rand) error { return os.RemoveAll(dir) })},
	"state truncated": {"disk", "files of an instance's state are cut short", anyInstance, 0, 500 * ms, anywhere, disk(truncateFiles)},
	"bits flipped":    {"disk", "bits of an instance's state are flipped", anyInstance, 0, 500 * ms, anywhere, disk(flipBits)},
	"older copy":      {"disk", "an instance gets its state of some moments ago", anyInstance, 1 * s, 3 * s, anywhere, olderCopy},
	"disk full":       {"disk", "an instance on 200 kB (needs root)", anyInstance, 1 * s, 3 * s, anywhere, diskFull},
	"read-only":       {"disk", "an instance whose disk cannot be written (needs root)", anyInstance, 1 * s, 3 * s, anywhere, readOnly},

	"third comes and goes": {"group", "a third instance of a group, again and again", anyGroup, 3 * s, 5 * s, anywhere, comesAndGoes},
	"one state directory":  {"group", "both of a group are given one state directory", anyGroup, 1 * s, 3 * s, anywhere, oneDirectory},
	"offsets rewound":      {"group", "a group's offsets are set back while it is away", anyGroup, 0, 1 * s, anywhere, rewound},
	"keys in a storm":      {"group", "150 clients with keys, one wallet, while a group is away", anyGroup, 2 * s, 6 * s, anywhere | brief, keysInStorm},

	"malformed":            {"data", "what must be set aside", nowhere, 0, 100 * ms, anywhere | brief, malformed},
	"hard letters":         {"data", "zeros of 5 and 9 MiB that are small compressed, and times before 1970", nowhere, 0, 100 * ms, anywhere | brief, hardLetters},
	"letters purged":       {"data", "the dead letters are deleted (DeleteRecords)", nowhere, 0, 100 * ms, anywhere | alone | brief, purgeLetters},
	"foreign transactions": {"data", "another producer's transactions on deposit: committed, aborted, given up", nowhere, 0, 300 * ms, anywhere | alone | brief, foreignTransactions},
	"twice":                {"data", "a deposit stands in the log again, next to itself and 300 others later", nowhere, 0, 100 * ms, anywhere | brief, twice},
	"origin forgotten":     {"data", "a deposit again after 3 origins, and its origin's next one after 40", nowhere, 0, 100 * ms, anywhere | brief, originForgotten},
	"late events":          {"data", "deposits up to 10 s late", nowhere, 0, 100 * ms, anywhere, late},
	"clock an hour off":    {"data", "two origins in one wallet whose clocks are an hour apart", nowhere, 0, 100 * ms, anywhere | brief, hourOff},

	"same request twice": {"http", "one request with a key on two connections at once", nowhere, 0, 100 * ms, anywhere, sameTwice},
	"client gone":        {"http", "clients that go in mid-request", nowhere, 0, 100 * ms, anywhere, clientGone},
	"bad bodies":         {"http", "bodies that must be refused", nowhere, 0, 100 * ms, anywhere, badBodies},
	"slow clients":       {"http", "a thousand connections that send one byte", nowhere, 2 * s, 4 * s, anywhere, slowClients},
}

func nowhere(*chaos, *rand.Rand) []string { return nil }

func anyAPIAndNetwork(_ *chaos, r *rand.Rand) []string {
	return [][]string{{"FIRST", "api"}, {"SECOND", "api-2"}}[r.IntN(2)]
}

func anyAPIAndBroker0(_ *chaos, r *rand.Rand) []string {
	return append(one("api", "api-2")(nil, r), "broker-0")
}

func anyPair(_ *chaos, r *rand.Rand) []string {
	g := pairs[r.IntN(len(pairs))]
	return []string{g, g + "-2"}
}

func networkAndDetector(_ *chaos, r *rand.Rand) []string {
	return [][]string{{"FIRST", "threshold"}, {"SECOND", "threshold-2"}}[r.IntN(2)]
}

func network0(_ *chaos, r *rand.Rand) []string {
	return []string{[]string{"FIRST", "SECOND"}[r.IntN(2)]}
}
