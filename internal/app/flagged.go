package app

import (
	"log/slog"
	"sync/atomic"

	"github.com/lovoo/goka/storage"

	"coinbit/internal/flagged"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// follower is told of the rows of one of a view's attempts: of those on disk as a
// partition opens, then of each that is taken; and that the view is served. A
// partition's rows come one after another, those of several at once.
type follower interface {
	row(walletID string, row []byte)
	served()
}

// flagList is the index of flagged wallets that the API reads, from when the
// flagger view has caught up.
type flagList struct {
	log     *slog.Logger
	current atomic.Pointer[flagged.Index]
}

// follow begins an index for another attempt.
func (l *flagList) follow() follower { return &flagFollower{list: l, index: flagged.New()} }

func (l *flagList) page(after *flagged.Entry, n int) ([]flagged.Entry, bool, error) {
	index := l.current.Load()
	if index == nil {
		return nil, false, errCatchingUp
	}
	page, more := index.Page(after, n)
	return page, more, nil
}

type flagFollower struct {
	list  *flagList
	index *flagged.Index
}

func (f *flagFollower) row(walletID string, row []byte) {
	if wallet.ValidWalletID(walletID) != nil {
		return // nobody can ask for it; the row is somebody else's
	}
	decoded, err := new(stream.FlagEncoder).Decode(row)
	if err != nil {
		f.unreadable(walletID, err)
		return
	}
	flag, err := stream.LoadFlag(decoded)
	if err != nil {
		f.unreadable(walletID, err)
		return
	}
	if flag.Raised() {
		_, at := flag.RaisedBy()
		f.index.Raise(walletID, at)
	} else {
		f.index.Lower(walletID)
	}
}

// unreadable: the wallet is listed as it last was, and asked for by name it is
// refused.
func (f *flagFollower) unreadable(walletID string, err error) {
	f.list.log.Error("row of the flagger table cannot be read", "wallet", walletID, "err", err)
}

func (f *flagFollower) served() { f.list.current.Store(f.index) }

// followed has f told of the rows in the storages that b builds as they open.
func followed(b storage.Builder, f follower) storage.Builder {
	return func(topic string, partition int32) (storage.Storage, error) {
		s, err := b(topic, partition)
		return &followedStorage{s, f}, err
	}
}

type followedStorage struct {
	storage.Storage
	follower
}

// Open opens the storage and walks it, before anything else can write to it.
func (s *followedStorage) Open() error {
	if err := s.Storage.Open(); err != nil {
		return err
	}
	it, err := s.Iterator()
	if err != nil {
		return err
	}
	defer it.Release()
	for it.Next() {
		if stream.Reserved(string(it.Key())) {
			continue
		}
		row, err := it.Value()
		if err != nil {
			return err
		}
		s.row(string(it.Key()), row)
	}
	return it.Err()
}
