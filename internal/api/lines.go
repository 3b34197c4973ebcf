package api

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxLine is the longest line of a stream, in bytes, without its end.
const maxLine = maxBody

// errLong is a line over maxLine. It is passed over; the next one can be read.
var errLong = errors.New("line must be at most 65536 bytes")

// lines reads a stream line by line in the memory of the longest one.
type lines struct {
	in *bufio.Reader
	n  int64 // of the line being read, from 1
}

func newLines(r io.Reader) *lines { return &lines{in: bufio.NewReaderSize(r, maxLine+1)} }

// next is the next line that is not blank, until next is called again. The last
// one may lack its end. What was read of a line before an error is no line.
func (l *lines) next() ([]byte, error) {
	for {
		l.n++
		line, err := l.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = l.in.ReadSlice('\n')
			}
			if err == nil || errors.Is(err, io.EOF) {
				err = errLong
			}
			return nil, err
		}
		if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
			return nil, err
		}
		if line = bytes.Trim(line, " \t\r\n"); len(line) > 0 {
			return line, nil
		}
	}
}
