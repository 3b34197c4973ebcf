package kafkatest

import (
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/kafkatest/child"
)

// Further listeners of a cluster with Options.PKI, next to the plain one. Who
// comes in by the plain one may do everything, as the brokers themselves do.
const (
	// SSL demands a certificate of Options.PKI; the user is User:CN=name.
	SSL = "SSL"
	// SASLSSL demands SCRAM-SHA-512; the user is User:name. AddUser makes one.
	SASLSSL = "SASL_SSL"
)

// secure adds the two listeners, and the properties that go with them to props.
func (b *broker) secure(o Options, props map[string]string) error {
	cert, key, err := o.PKI.Issue(fmt.Sprintf("broker-%d", b.id), time.Now().Add(24*time.Hour))
	if err != nil {
		return err
	}
	keystore, err := join(cert+".store", key, cert)
	if err != nil {
		return err
	}
	b.secured = map[string]string{}
	for _, name := range []string{SSL, SASLSSL} {
		port, err := child.FreePort()
		if err != nil {
			return err
		}
		addr := localAddr(port)
		b.secured[name] = addr
		props["listeners"] += "," + name + "://" + addr
		props["advertised.listeners"] += "," + name + "://" + addr
		props["listener.security.protocol.map"] += "," + name + ":" + name
	}
	for k, v := range map[string]string{
		"ssl.keystore.type": "PEM", "ssl.keystore.location": keystore,
		"ssl.truststore.type": "PEM", "ssl.truststore.location": o.PKI.CA,
		"listener.name.ssl.ssl.client.auth":                     "required",
		"sasl.enabled.mechanisms":                               "SCRAM-SHA-512",
		"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"authorizer.class.name":                                 "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                                           "User:ANONYMOUS", // the plain listener's
	} {
		props[k] = v
	}
	return nil
}

// join writes the files' contents one after another: a keystore is key and
// certificate in one.
func join(to string, files ...string) (string, error) {
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		all = append(all, b...)
	}
	return to, os.WriteFile(to, all, 0o600)
}

// Secured is broker 0's address of a listener, SSL or SASLSSL.
func (c *Cluster) Secured(listener string) string { return c.brokers[0].secured[listener] }

// Admin connects as a user who may do everything.
func (c *Cluster) Admin() (sarama.ClusterAdmin, error) {
	conf := sarama.NewConfig()
	conf.Version = sarama.V2_8_0_0
	conf.ClientID = "kafkatest"
	return sarama.NewClusterAdmin(c.Addrs(), conf)
}

// Tool is the command line of one of Kafka's own tools, to which arguments are to
// be added.
func (c *Cluster) Tool(class string) []string {
	return []string{c.java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", c.classpath(), class}
}

// AddUser makes a SCRAM user, or gives one that is there another password.
func AddUser(admin sarama.ClusterAdmin, name, password string) error {
	results, err := admin.UpsertUserScramCredentials([]sarama.AlterUserScramCredentialsUpsert{{
		Name: name, Mechanism: sarama.SCRAM_MECHANISM_SHA_512, Iterations: 4096,
		Salt: []byte("salt of " + name), Password: []byte(password),
	}})
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.ErrorCode != sarama.ErrNoError {
			return fmt.Errorf("user %s: %w", r.User, r.ErrorCode)
		}
	}
	return nil
}
