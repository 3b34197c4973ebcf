package stream

import "strings"

// Keys of a table partition that are no wallet's: views and verification skip
// them.
const (
	// ClaimKey holds the pb.Claim of the partition's owner.
	ClaimKey = "_claim"
	// InputKey says what the table is folded from: the format, the topics by id, the partitions.
	InputKey = "_input"
)

// Reserved tells whether key is none that a wallet_id can be.
func Reserved(key string) bool { return strings.HasPrefix(key, "_") }
