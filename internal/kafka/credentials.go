package kafka

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// credentials are what a client shows to Kafka, and by what it knows Kafka, as far as that
// is in files. The files are read for each connection that is made. Connections are few,
// so nobody need watch the files, and what was renewed is used from the next one on, by
// every client of the program. Connections that are open go on as they are.
type credentials struct {
	authority *files[*x509.CertPool]   // nil: the system's
	pair      *files[*tls.Certificate] // nil: no certificate of the client
	password  *files[string]           // nil: as it is set
}

func newCredentials(s Settings, log *slog.Logger) (c credentials, err error) {
	if s.TLSCA != "" {
		c.authority = &files[*x509.CertPool]{settings: "KAFKA_TLS_CA", names: []string{s.TLSCA}, parse: parseAuthority, log: log}
		err = c.authority.open()
	}
	if s.TLSCert != "" && err == nil {
		c.pair = &files[*tls.Certificate]{settings: "KAFKA_TLS_CERT, KAFKA_TLS_KEY", names: []string{s.TLSCert, s.TLSKey}, parse: parsePair, log: log}
		err = c.pair.open()
	}
	if s.SASLPasswordFile != "" && err == nil {
		c.password = &files[string]{settings: "KAFKA_SASL_PASSWORD_FILE", hidden: true, names: []string{s.SASLPasswordFile}, parse: parsePassword, log: log}
		err = c.password.open()
	}
	return c, err
}

// tls is the configuration of the next connection, nil for one without TLS. It is made for
// that one alone: so another authority needs no verification of our own, which could be
// wrong, and the standard one has its usual way.
func (c credentials) tls() *tls.Config {
	if !c.usesTLS() {
		return nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.authority != nil {
		cfg.RootCAs = c.authority.now()
	}
	if c.pair != nil {
		cfg.Certificates = []tls.Certificate{*c.pair.now()}
	}
	return cfg
}

func (c credentials) usesTLS() bool { return c.authority != nil || c.pair != nil }

// certificate is the client's own, for people to read.
func (c credentials) certificate() (subject, validUntil string) {
	leaf := c.pair.now().Leaf
	return leaf.Subject.String(), leaf.NotAfter.UTC().Format(time.RFC3339)
}

func parseAuthority(pem ...[]byte) (*x509.CertPool, []any, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem[0]) {
		return nil, nil, errors.New("no PEM certificate is in it")
	}
	return pool, nil, nil
}

func parsePair(pem ...[]byte) (*tls.Certificate, []any, error) {
	pair, err := tls.X509KeyPair(pem[0], pem[1])
	if err != nil {
		return nil, nil, err
	}
	return &pair, []any{"subject", pair.Leaf.Subject.String(), "valid_until", pair.Leaf.NotAfter.UTC().Format(time.RFC3339)}, nil
}

// parsePassword takes a file of one line, with or without its end.
func parsePassword(text ...[]byte) (string, []any, error) {
	password := bytes.TrimSuffix(bytes.TrimSuffix(text[0], []byte("\n")), []byte("\r"))
	switch {
	case len(password) == 0:
		return "", nil, errors.New("it is empty")
	case bytes.ContainsAny(password, "\x00\r\n"):
		return "", nil, errors.New("it holds more than one line")
	}
	return string(password), nil, nil
}

// files are files that hold one thing together, and what they held when they could last be
// read. A renewal writes one after the other, so for a moment they may not fit.
type files[T any] struct {
	settings string // that name the files
	names    []string
	hidden   bool // names are not shown: somebody may have written the secret itself in their place
	// parse makes of their contents what they hold, and what the log says of it. Its error
	// shows nothing of what is in them.
	parse func(contents ...[]byte) (T, []any, error)
	log   *slog.Logger

	mu    sync.Mutex
	sum   [sha256.Size]byte // of the contents that value was made of
	value T
	fault string // that was said last, empty while they can be read
}

// open reads the files for the first time.
func (f *files[T]) open() error {
	value, sum, _, err := f.read()
	if err != nil {
		return fmt.Errorf("%s: %w", f.settings, err)
	}
	f.value, f.sum = value, sum
	return nil
}

// now is what the files hold, and while they cannot be read what they held before.
func (f *files[T]) now() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	value, sum, about, err := f.read()
	switch {
	case err != nil:
		if fault := err.Error(); fault != f.fault {
			f.fault = fault
			f.log.Warn(f.settings+": cannot be read, going on with what was read before", "err", err)
		}
	case sum != f.sum:
		f.value, f.sum, f.fault = value, sum, ""
		f.log.Info(f.settings+": read anew, connections from now on use it", about...)
	default:
		f.fault = ""
	}
	return f.value
}

func (f *files[T]) read() (value T, sum [sha256.Size]byte, about []any, err error) {
	contents := make([][]byte, len(f.names))
	all := sha256.New()
	for i, name := range f.names {
		if contents[i], err = readFile(name); err != nil {
			return value, sum, nil, f.named(err)
		}
		each := sha256.Sum256(contents[i])
		_, _ = all.Write(each[:])
	}
	if value, about, err = f.parse(contents...); err != nil {
		err = f.named(&fs.PathError{Op: "read", Path: strings.Join(f.names, ", "), Err: err})
	}
	return value, [sha256.Size]byte(all.Sum(nil)), about, err
}

// named is err with the name of the file, unless that is hidden.
func (f *files[T]) named(err error) error {
	var path *fs.PathError
	if f.hidden && errors.As(err, &path) {
		return fmt.Errorf("the file, whose name is not shown, cannot be used: %w", path.Err)
	}
	return err
}

// largestFile bounds what is read: hundreds of authorities fit.
const largestFile = 1 << 20

// readFile reads a regular file: another kind could keep the reader waiting. Its error is
// a *fs.PathError.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	file, err := os.Open(name) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, largestFile+1))
	if err == nil && len(content) > largestFile {
		err = &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("more than %d bytes", largestFile)}
	}
	return content, err
}

// plainConn puts the password that is in force into what sarama sends for the mechanism
// PLAIN. sarama takes that password from the configuration of its client, whose connections
// read it at any time, so it cannot be changed there; SCRAM has a hook, PLAIN has none.
type plainConn struct {
	net.Conn
	user, sent string // sent is the password that sarama knows
	password   func() string
}

// Write is given a whole request.
func (c *plainConn) Write(request []byte) (int, error) {
	n, err := c.Conn.Write(c.renewed(request))
	if err == nil {
		n = len(request)
	}
	return min(n, len(request)), err
}

// renewed is a request with the password that is in force.
func (c *plainConn) renewed(request []byte) []byte {
	if requestKey(request) != saslAuthenticate {
		return request
	}
	was, is := "\x00"+c.user+"\x00"+c.sent, "\x00"+c.user+"\x00"+c.password()
	at := bytes.LastIndex(request, []byte(was))
	if at < 0 || was == is {
		return request
	}
	length := func(s string) []byte { return binary.BigEndian.AppendUint32(nil, uint32(len(s))) } //nolint:gosec // below largestFile
	if version := binary.BigEndian.Uint16(request[6:]); version >= 2 {
		length = func(s string) []byte { return binary.AppendUvarint(nil, uint64(len(s))+1) }
	}
	rest := bytes.Join([][]byte{request[4 : at-len(length(was))], length(is), []byte(is), request[at+len(was):]}, nil)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(rest))), rest...) //nolint:gosec // as above
}
