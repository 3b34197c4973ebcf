//go:build !kafka

package test

// chaosBrokers is what TestChaos runs on unless BROKERS says otherwise.
const chaosBrokers = "embedded"

// startShared has nothing to start: each test has an embedded broker of its own.
func startShared(string) (stop func(), err error) { return func() {}, nil }
