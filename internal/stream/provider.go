// Package stream is the map of the suite: every topic, group, table and codec,
// each named once, and who owns it. It holds no behaviour of its own beyond
// translating between bytes and the values of internal/wallet, and it never
// talks to Kafka.
package stream

import (
	"context"

	"github.com/lovoo/goka"
)

// Group names one of the three processor groups. Its string is Goka's group
// name, so the group's table is the topic "<group>-table".
type Group string

// The three processor groups.
const (
	BalanceGroup   Group = "balance"
	FlaggerGroup   Group = "flagger"
	ThresholdGroup Group = "threshold"
)

// Groups lists every processor group, in the order deposits reach them.
func Groups() []Group { return []Group{BalanceGroup, ThresholdGroup, FlaggerGroup} }

// Broker runs the processor of a group.
type Broker interface {
	// Execute runs the processor of groupName until ctx is done. It returns nil
	// when it stopped because of ctx with everything flushed.
	Execute(ctx context.Context, groupName Group) error
}

// Streams the processors read.
const (
	DepositStream    goka.Stream = "deposit"
	FlagWalletStream goka.Stream = "flag_wallet"
)

// Where a processor sets aside what it cannot apply.
const (
	DepositDeadLetter    goka.Stream = "deposit_dead_letter"
	FlagWalletDeadLetter goka.Stream = "flag_wallet_dead_letter"
)

// Table is the group's table, as Goka names it.
func (g Group) Table() goka.Table { return goka.GroupTable(goka.Group(g)) }
