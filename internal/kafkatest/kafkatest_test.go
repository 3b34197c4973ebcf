package kafkatest_test

import (
	"context"
	"strings"
	"testing"

	"coinbit/internal/kafkatest"
)

func TestMissingJarsAreAnError(t *testing.T) {
	t.Setenv("KAFKA_LIBS", t.TempDir())
	_, err := kafkatest.Start(context.Background(), kafkatest.Options{})
	if err == nil || !strings.Contains(err.Error(), "make kafka-jars") {
		t.Errorf("Start without jars: %v, want an error that names `make kafka-jars`", err)
	}
}

func TestBrokersIsOneOrThree(t *testing.T) {
	if _, err := kafkatest.Start(context.Background(), kafkatest.Options{Brokers: 2}); err == nil {
		t.Error("no error for two brokers")
	}
}
