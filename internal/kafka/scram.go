package kafka

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

// scramClient returns sarama's hook for a SCRAM mechanism, nil for PLAIN.
func scramClient(mechanism string, password func() string) func() sarama.SCRAMClient {
	switch mechanism {
	case sarama.SASLTypeSCRAMSHA256:
		return func() sarama.SCRAMClient { return &scramSession{hash: scram.SHA256, password: password} }
	case sarama.SASLTypeSCRAMSHA512:
		return func() sarama.SCRAMClient { return &scramSession{hash: scram.SHA512, password: password} }
	default:
		return nil
	}
}

// scramSession is one SCRAM exchange.
type scramSession struct {
	hash         scram.HashGeneratorFcn
	password     func() string // sarama's may be an old one
	conversation *scram.ClientConversation
}

func (s *scramSession) Begin(user, _, authzID string) error {
	client, err := s.hash.NewClient(user, s.password(), authzID)
	if err != nil {
		return fmt.Errorf("%w: %w", errPrepare, err)
	}
	s.conversation = client.NewConversation()
	return nil
}

var (
	// errPrepare says that user or password has characters that SCRAM does not take.
	errPrepare = errors.New("SCRAM does not take it")
	// errSCRAM says that what the other side said cannot be taken.
	errSCRAM = errors.New("SCRAM")
)

// maxIterations takes less than a second to compute. Kafka itself gives 16384 at most.
const maxIterations = 1_000_000

func (s *scramSession) Step(challenge string) (string, error) {
	if n := iterations(challenge); n > maxIterations {
		return "", fmt.Errorf("%w: it asks for more than %d iterations", errSCRAM, maxIterations)
	}
	answer, err := s.conversation.Step(challenge)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errSCRAM, err)
	}
	return answer, nil
}

func (s *scramSession) Done() bool { return s.conversation.Done() }

// iterations are those that a challenge asks for, read as the exchange will read them; 0
// for one that asks for none.
func iterations(challenge string) int {
	n := 0
	for attribute := range strings.SplitSeq(challenge, ",") {
		if text, ok := strings.CutPrefix(attribute, "i="); ok {
			asked, _ := strconv.Atoi(text) // the largest there is where it is out of range
			n = max(n, asked)
		}
	}
	return n
}
