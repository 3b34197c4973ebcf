package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// maxUnpacked bounds what a batch of records is once it is unpacked, which may be a
// million times what was sent.
const maxUnpacked = 64 << 20

var errUnpacked = errors.New("a batch that unpacks to too much")

// unpacking is held by the one that unpacks, so that only one batch is in memory.
var unpacking sync.Mutex

// unpack has what kfake will make of a batch's records, by the same library. That knows no
// bound, so the size is measured first.
func unpack(records []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return records, nil
	}
	unpacking.Lock()
	defer unpacking.Unlock()
	if err := measure(records, codec); err != nil {
		return nil, err
	}
	return kgo.DefaultDecompressor().Decompress(records, codec)
}

// measure unpacks to nowhere, as far as the bound.
func measure(src []byte, codec kgo.CompressionCodecType) error {
	var r io.Reader
	switch codec {
	case kgo.CodecSnappy:
		return measureSnappy(src)
	case kgo.CodecGzip:
		unzip, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return err
		}
		r = unzip
	case kgo.CodecLz4:
		r = lz4.NewReader(bytes.NewReader(src))
	case kgo.CodecZstd:
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked))
		if err != nil {
			return err
		}
		defer z.Close()
		_, err = z.DecodeAll(src, nil) // which holds a frame to the size that it announces
		return err
	default:
		return errors.New("an unknown compression")
	}
	switch n, err := io.Copy(io.Discard, io.LimitReader(r, maxUnpacked+1)); {
	case err != nil:
		return err
	case n > maxUnpacked:
		return errUnpacked
	}
	return nil
}

// xerial begins snappy as Java writes it: two versions follow, and then blocks, each after
// its length. Elsewhere there is one block.
var xerial = []byte("\x82SNAPPY\x00")

// measureSnappy adds up what the blocks say of their size; they are held to it.
func measureSnappy(src []byte) error {
	blocks := [][]byte{src}
	if len(src) > 16 && bytes.HasPrefix(src, xerial) {
		blocks = nil
		for src = src[16:]; len(src) > 0; {
			if len(src) < 4 {
				return errMalformed
			}
			end := 4 + int(binary.BigEndian.Uint32(src))
			if end > len(src) {
				return errMalformed
			}
			blocks, src = append(blocks, src[4:end]), src[end:]
		}
	}
	sum := 0
	for _, b := range blocks {
		n, err := s2.DecodedLen(b)
		if err != nil {
			return err
		}
		if sum += n; n > maxUnpacked || sum > maxUnpacked {
			return errUnpacked
		}
	}
	return nil
}
