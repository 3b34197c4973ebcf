//go:build !kafka

package test

// What TestChaos runs on, and tries, unless BROKERS and KINDS say otherwise.
const chaosBrokers, chaosKinds = "embedded", "brief"

// startShared has nothing to start: each test has an embedded broker of its own.
func startShared(string) (stop func(), err error) { return func() {}, nil }
