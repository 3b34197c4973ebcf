//go:build !kafka

package kafka

import "testing"

func tableBroker(t testing.TB) string { return startBroker(t) }

func stopTableBroker() {}
