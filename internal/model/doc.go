// Package model simulates the protocol that makes at-least-once exact: logs,
// changelogs, claims, local state, marks and views as separate small steps, with
// crashes, sleepers, lost answers, rebalances and compaction between any two of
// them. The folds are the real ones of internal/wallet. It holds tests only; see
// docs/decisions/09-model.md.
package model
