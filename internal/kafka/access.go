package kafka

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// errDenied says that Kafka does not grant this client what it needs. An admin
// mends it; the service need not be restarted.
var errDenied = errors.New("kafka denies a right")

// denial says which.
type denial struct{ text string }

func (d *denial) Error() string { return d.text }
func (d *denial) Unwrap() error { return errDenied }

// Denied tells whether Kafka refused something for want of a right.
func Denied(err error) bool {
	return errors.Is(err, errDenied) ||
		errors.Is(err, sarama.ErrTopicAuthorizationFailed) || errors.Is(err, sarama.ErrGroupAuthorizationFailed) ||
		errors.Is(err, sarama.ErrTransactionalIDAuthorizationFailed) || errors.Is(err, sarama.ErrClusterAuthorizationFailed)
}

// shutOut tells whether Kafka will not serve this client until somebody mends it.
func shutOut(err error) bool {
	return Denied(err) || errors.Is(err, sarama.ErrSASLAuthenticationFailed)
}

// denied is the error for rights that are not granted.
func (c *Client) denied(rights ...stream.Right) error {
	list := make([]string, len(rights))
	for i, r := range rights {
		list[i] = r.String()
	}
	return &denial{fmt.Sprintf("%s lacks %s: an admin grants it, see -service=topics -acls", c.who(), strings.Join(list, ", "))}
}

// deniedProducerID is the error where Kafka gives no producer id.
func (c *Client) deniedProducerID() error {
	return &denial{c.who() + " lacks Write on every topic, or where Kafka is older than 3.0 IdempotentWrite on the cluster: " +
		"an admin grants it, see -service=topics -acls"}
}

// who is this client as Kafka's admin knows it.
func (c *Client) who() string {
	switch {
	case c.settings.SASLUser != "":
		return "KAFKA_SASL_USER=" + c.settings.SASLUser
	case c.settings.TLSCert != "":
		subject, _ := c.credentials.certificate()
		return "the certificate of KAFKA_TLS_CERT (" + subject + ")"
	}
	return "a client without KAFKA_SASL_USER and KAFKA_TLS_CERT"
}

// operations are Kafka's numbers for what stream.Right names.
var operations = map[string]sarama.AclOperation{
	stream.Read: sarama.AclOperationRead, stream.Write: sarama.AclOperationWrite,
	stream.Create: sarama.AclOperationCreate, stream.Describe: sarama.AclOperationDescribe,
	stream.DescribeConfigs: sarama.AclOperationDescribeConfigs,
}

// lacking are the rights on topics that Kafka says it does not grant. A broker
// that does not tell is taken to grant them.
func lacking(meta *sarama.MetadataResponse, topics []stream.Topic, rights []stream.Right) []stream.Right {
	var lack []stream.Right
	for _, t := range topics {
		i := slices.IndexFunc(meta.Topics, func(m *sarama.TopicMetadata) bool { return m.Name == t.Name })
		if i < 0 {
			continue
		}
		granted := meta.Topics[i].TopicAuthorizedOperations
		hidden := errors.Is(meta.Topics[i].Err, sarama.ErrTopicAuthorizationFailed)
		wanted := slices.DeleteFunc(slices.Clone(rights), func(r stream.Right) bool {
			return r.Resource != stream.TopicResource || r.Name != t.Name
		})
		if len(wanted) == 0 && hidden {
			wanted = []stream.Right{{Operation: stream.Describe, Resource: stream.TopicResource, Name: t.Name}}
		}
		for _, r := range wanted {
			if hidden || granted != math.MinInt32 && granted&(1<<operations[r.Operation]) == 0 {
				lack = append(lack, r)
			}
		}
	}
	return lack
}

// Telling makes a reader tell when Kafka denies what it reads or no longer has it. Goka
// takes the end of a partition's messages for its end of recovery, and a view that
// reconnects by itself would go on trying, and nobody would know.
func Telling(reader sarama.Consumer, tell func(error)) sarama.Consumer {
	return tellingReader{reader, tell}
}

type tellingReader struct {
	sarama.Consumer
	told func(error)
}

func (r tellingReader) tell(err error) {
	if Denied(err) || errors.Is(err, sarama.ErrOffsetOutOfRange) {
		r.told(err)
	}
}

func (r tellingReader) ConsumePartition(topic string, partition int32, offset int64) (sarama.PartitionConsumer, error) {
	inner, err := r.Consumer.ConsumePartition(topic, partition, offset)
	if err != nil {
		r.tell(err)
		return nil, err
	}
	p := tellingPartition{inner, make(chan *sarama.ConsumerError)}
	go func() { // ends when the partition is closed and drained, as Goka does
		defer close(p.errs)
		for err := range inner.Errors() {
			r.tell(err)
			p.errs <- err
		}
	}()
	return p, nil
}

type tellingPartition struct {
	sarama.PartitionConsumer
	errs chan *sarama.ConsumerError
}

func (p tellingPartition) Errors() <-chan *sarama.ConsumerError { return p.errs }
