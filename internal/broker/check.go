package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// maxPlain bounds every request but those that carry records.
	maxPlain = 1 << 20
	// maxPartitions is of all topics that one request creates or enlarges.
	maxPartitions = 10_000
)

var errMalformed = errors.New("malformed")

// checking is held by the one that checks a large request: parsed, its tagged fields may take
// twenty times their bytes. kfake parses it again, so those with many are refused.
var checking sync.Mutex

// maxTags is more than any client sends of fields that this version does not know.
const maxTags = 64

// check says why a request must not reach kfake. It parses as kfake does, so that what
// panics there panics here, where it costs one connection.
func check(body []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errMalformed, p)
		}
	}()
	r := kbin.Reader{Src: body}
	key, version, _ := r.Int16(), r.Int16(), r.Int32()
	r.NullableString()
	req := kmsg.RequestForKey(key)
	switch {
	case !r.Ok(), req == nil, version < 0:
		return fmt.Errorf("%w: key %d, version %d", errMalformed, key, version)
	case version > req.MaxVersion() && key != kmsg.ApiVersions.Int16(): // which is how a client asks for the versions
		return fmt.Errorf("%w: key %d has no version %d", errMalformed, key, version)
	case len(body) > maxPlain && key != kmsg.Produce.Int16():
		return fmt.Errorf("%w: %d bytes for key %d", errMalformed, len(body), key)
	}
	if len(body) > maxPlain {
		checking.Lock()
		defer checking.Unlock()
	}
	req.SetVersion(version)
	if req.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if err := req.ReadFrom(r.Src); err != nil {
		return fmt.Errorf("%w: key %d, version %d: %w", errMalformed, key, version, err)
	}
	return sane(req)
}

// sane is about values that kfake takes as they are and comes to grief over.
func sane(req kmsg.Request) error {
	partitions := 0
	switch req := req.(type) {
	case *kmsg.ProduceRequest:
		tags := req.UnknownTags.Len()
		for _, t := range req.Topics {
			tags += t.UnknownTags.Len()
			for _, p := range t.Partitions {
				tags += p.UnknownTags.Len()
				if err := checkBatch(p.Records); err != nil {
					return err
				}
			}
		}
		if tags > maxTags {
			return fmt.Errorf("%w: %d unknown tags", errMalformed, tags)
		}
	case *kmsg.CreateTopicsRequest:
		for _, t := range req.Topics {
			partitions += max(0, int(t.NumPartitions))
		}
	case *kmsg.CreatePartitionsRequest:
		for _, t := range req.Topics {
			partitions += max(0, int(t.Count))
		}
	}
	if partitions > maxPartitions {
		return fmt.Errorf("%w: %d partitions", errMalformed, partitions)
	}
	return nil
}

// checkBatch says why a batch must not be stored. kfake looks at its head alone and comes
// to the records later, when it compacts or looks for a time: there, lengths that lie end
// the process. A sum that is wrong it refuses itself.
func checkBatch(raw []byte) error {
	var b kmsg.RecordBatch
	if err := b.ReadFrom(raw); err != nil || int(b.Length) != len(raw)-12 || b.Magic != 2 || b.NumRecords < 1 {
		return fmt.Errorf("%w: no batch of records", errMalformed)
	}
	records, err := unpack(b.Records, kgo.CompressionCodecType(b.Attributes&7))
	if err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	for i := range b.NumRecords {
		length, n := binary.Varint(records)
		end := length + int64(n)
		if n <= 0 || length < 0 || end > int64(len(records)) {
			return fmt.Errorf("%w: record %d does not end within its batch", errMalformed, i)
		}
		var r kmsg.Record
		if err := r.ReadFrom(records[:end]); err != nil || r.OffsetDelta != i {
			return fmt.Errorf("%w: record %d", errMalformed, i)
		}
		records = records[end:]
	}
	if len(records) > 0 {
		return fmt.Errorf("%w: %d bytes after the last record", errMalformed, len(records))
	}
	return nil
}
