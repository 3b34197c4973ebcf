package kafka

import (
	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

// scramClient returns sarama's hook for a SCRAM mechanism, nil for PLAIN.
func scramClient(mechanism string) func() sarama.SCRAMClient {
	switch mechanism {
	case sarama.SASLTypeSCRAMSHA256:
		return func() sarama.SCRAMClient { return &scramSession{hash: scram.SHA256} }
	case sarama.SASLTypeSCRAMSHA512:
		return func() sarama.SCRAMClient { return &scramSession{hash: scram.SHA512} }
	default:
		return nil
	}
}

// scramSession is one SCRAM exchange.
type scramSession struct {
	hash         scram.HashGeneratorFcn
	conversation *scram.ClientConversation
}

func (s *scramSession) Begin(user, password, authzID string) error {
	client, err := s.hash.NewClient(user, password, authzID)
	if err != nil {
		return err
	}
	s.conversation = client.NewConversation()
	return nil
}

func (s *scramSession) Step(challenge string) (string, error) { return s.conversation.Step(challenge) }

func (s *scramSession) Done() bool { return s.conversation.Done() }
