package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/IBM/sarama"
)

// ErrRefused says that Kafka is there but does not let this client in. It comes
// with ErrUnreachable: waiting may help, when the other side is mended.
var ErrRefused = errors.New("kafka does not let this client in")

// refusal names the settings at fault.
type refusal struct {
	settings string
	err      error
}

func (r *refusal) Error() string   { return fmt.Sprintf("%s: %s: %s", ErrRefused, r.settings, r.err) }
func (r *refusal) Unwrap() []error { return []error{ErrRefused, ErrUnreachable, r.err} }

// unreachable is the error for a connection that did not come about, with the
// settings at fault where they are. sarama keeps part of the reasons to itself,
// and to a client of the wrong kind a broker only hangs up, so this looks anew.
func (c *Client) unreachable(err error) error {
	if slow := net.Error(nil); !errors.As(err, &slow) || !slow.Timeout() {
		for _, addr := range c.settings.Brokers {
			switch r, there := c.diagnose(addr); {
			case r != nil:
				return r
			case there:
				return fmt.Errorf("%w: %w", ErrUnreachable, err)
			}
		}
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// diagnose connects step by step. It returns nil when it finds no fault of ours,
// and whether anything listens there.
func (c *Client) diagnose(addr string) (r *refusal, there bool) {
	cfg := c.probeConfig()
	dialer := &net.Dialer{Timeout: cfg.Net.DialTimeout}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return nil, false
	}
	_ = conn.Close()
	secure := c.credentials.tls()
	if secure != nil {
		if err := handshake(dialer, addr, secure); err != nil {
			return c.tlsRefusal(addr, err), true
		}
	}
	broker := sarama.NewBroker(addr)
	if err := broker.Open(cfg); err != nil {
		return nil, true
	}
	defer func() { _ = broker.Close() }()
	_, err = broker.Connected()
	if err == nil {
		_, err = broker.GetMetadata(sarama.NewMetadataRequest(cfg.Version, []string{}))
	}
	if err == nil {
		return nil, true
	}
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.Is(err, sarama.ErrUnsupportedSASLMechanism):
		return &refusal{"KAFKA_SASL_MECHANISM", fmt.Errorf("%s does not take %s", addr, c.settings.SASLMechanism)}, true
	case errors.Is(err, sarama.ErrIllegalSASLState):
		return &refusal{"KAFKA_SASL_MECHANISM", fmt.Errorf("%s does not take SASL: unset it, or is it another port?", addr)}, true
	case errors.Is(err, sarama.ErrSASLAuthenticationFailed):
		return &refusal{"KAFKA_SASL_USER, " + c.passwordSetting(), fmt.Errorf("%s, user %s: %w", addr, c.settings.SASLUser, sarama.ErrSASLAuthenticationFailed)}, true
	case errors.Is(err, errPrepare):
		return &refusal{"KAFKA_SASL_USER, " + c.passwordSetting(), err}, true
	case errors.Is(err, errSCRAM):
		return &refusal{"KAFKA_SASL_MECHANISM, BROKER", fmt.Errorf("what %s answers is not what Kafka would: %w", addr, err)}, true
	case alert(err) != nil: // with TLS 1.3 it comes after the handshake
		return c.tlsRefusal(addr, err), true
	case secure == nil && errors.As(handshake(dialer, addr, &tls.Config{MinVersion: tls.VersionTLS12}), &unverified):
		return &refusal{"KAFKA_TLS_CA", fmt.Errorf("%s speaks TLS: set it to the authority's PEM file", addr)}, true
	case secure != nil && c.settings.SASLMechanism == "":
		return &refusal{"KAFKA_SASL_MECHANISM", fmt.Errorf("%s hangs up: does it want SASL?", addr)}, true
	}
	return nil, true
}

func handshake(d *net.Dialer, addr string, cfg *tls.Config) error {
	conn, err := tls.DialWithDialer(d, "tcp", addr, cfg)
	if err != nil {
		return err
	}
	return conn.Close()
}

// passwordSetting is the setting that the password comes from.
func (c *Client) passwordSetting() string {
	if c.credentials.password != nil {
		return "KAFKA_SASL_PASSWORD_FILE"
	}
	return "KAFKA_SASL_PASSWORD"
}

// tlsRefusal tells a fault of the server from one of its certificate and one of the client's.
func (c *Client) tlsRefusal(addr string, err error) *refusal {
	var unverified *tls.CertificateVerificationError
	alert := alert(err)
	switch {
	case errors.As(err, &unverified):
		return &refusal{"KAFKA_TLS_CA, BROKER", fmt.Errorf("%s: %w", addr, unverified)}
	case outdated(err):
		return &refusal{"BROKER", fmt.Errorf("%s speaks no TLS of version 1.2 or newer, older ones are not safe: see its ssl.enabled.protocols", addr)}
	case is(alert, handshakeFailure):
		return &refusal{"KAFKA_TLS_CERT, BROKER", fmt.Errorf("%s ends the TLS handshake: it wants another client certificate, or it has no cipher in common with this client", addr)}
	case alert != nil && !is(alert, ofCertificate...):
		return &refusal{"BROKER, KAFKA_TLS_*", fmt.Errorf("%s ends the TLS handshake: %w", addr, alert)}
	case alert != nil && c.settings.TLSCert == "":
		return &refusal{"KAFKA_TLS_CERT, KAFKA_TLS_KEY", fmt.Errorf("%s wants a client certificate: %w", addr, alert)}
	case alert != nil:
		subject, validUntil := c.credentials.certificate()
		return &refusal{"KAFKA_TLS_CERT", fmt.Errorf("%s does not take the certificate %s, valid until %s: %w",
			addr, subject, validUntil, alert)}
	}
	if record := (tls.RecordHeaderError{}); errors.Is(err, io.EOF) || errors.As(err, &record) {
		return &refusal{"KAFKA_TLS_CA", fmt.Errorf("%s hangs up: does it speak TLS? If not, unset KAFKA_TLS_*", addr)}
	}
	return nil // too slow, or gone
}

// alert is what the other side said before it hung up, nil if nothing.
func alert(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" {
		return op.Err
	}
	return nil
}

// Alerts as RFC 8446, 6.2 numbers them.
const handshakeFailure, protocolVersion = tls.AlertError(40), tls.AlertError(70)

// ofCertificate are the alerts about the client's certificate, or that there is none:
// bad_, unsupported_, revoked, expired and unknown certificate, unknown_ca, access_denied,
// decrypt_error, certificate_required.
var ofCertificate = []tls.AlertError{42, 43, 44, 45, 46, 48, 49, 51, 116}

// is tells whether an alert is one of those. What a handshake returns is of a type that has
// no name outside its package; its text is that of an AlertError.
func is(alert error, those ...tls.AlertError) bool {
	return alert != nil && slices.ContainsFunc(those, func(a tls.AlertError) bool { return a.Error() == alert.Error() })
}

// outdated tells whether the other side speaks only versions of TLS that are too old: it
// says so, or chooses one.
func outdated(err error) bool {
	return is(alert(err), protocolVersion) ||
		strings.Contains(err.Error(), "server selected unsupported protocol version") // an error without a type
}
