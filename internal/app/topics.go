package app

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"coinbit/internal/kafka"
	"coinbit/internal/out"
	"coinbit/internal/stream"
)

// topicsTimeout bounds the admin's step.
const topicsTimeout = 30 * time.Second

var teachTopics = []string{
	"Services create the topics that they miss, if Kafka lets them. Where nobody but an admin may,",
	"run this once, before them. It also names every setting of topics that are there by which money",
	"can be lost, with the command that mends it, and exits 1 if there is one.",
	"",
	"Create and check all, three replicas each:",
	"    PARTITIONS=24 REPLICATION_FACTOR=3 coinbit -service=topics",
	"The least rights for a user per service, as kafka-acls commands:",
	"    coinbit -service=topics -acls",
	"The same for users known by their certificates:",
	"    coinbit -service=topics -acls -principal 'User:CN=%s'",
}

func topicsFlags(fs *flag.FlagSet, c *Command) {
	fs.BoolVar(&c.ACLs, "acls", false, "print the rights that services need, as commands of Kafka's own tool; touch nothing")
	fs.StringVar(&c.Principal, "principal", "", "how users are called, with %s for the service's name; goes with -acls (default User:%s)")
}

func checkTopics(c *Command) error {
	if c.Principal != "" && !c.ACLs {
		return errors.New("-principal goes with -acls")
	}
	return nil
}

// runTopics is the admin's step: it creates and checks every topic, so that no
// service needs the right to, and prints them. With -acls it prints the rights
// that the services need instead, and touches nothing.
func runTopics(ctx context.Context, rt *Runtime, cmd Command) error {
	if cmd.ACLs {
		principal := cmp.Or(cmd.Principal, "User:%s")
		if !strings.Contains(principal, "%s") || out.Text(principal) != principal {
			return usageError{fmt.Errorf("-principal: got %q, takes a Kafka principal with %%s for the service's name, such as User:CN=%%s", principal)}
		}
		_, err := io.WriteString(rt.stdout, stream.AccessCommands(strings.Join(rt.cfg.Brokers, ","), principal))
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, topicsTimeout)
	defer cancel()
	cluster, err := rt.ensure(ctx)
	if err != nil {
		return err
	}
	if err := printTopics(rt.stdout, cluster, rt.cfg.Brokers); err != nil {
		return err
	}
	if n := len(cluster.Faults); n > 0 {
		return fmt.Errorf("%d settings of topics lose money: the commands above mend them", n)
	}
	if len(cluster.Unchecked) > 0 {
		return rt.client.Unchecked(cluster.Unchecked)
	}
	return nil
}

// printTopics lists all topics, and the settings of theirs that lose money.
func printTopics(o *out.Writer, cluster kafka.Cluster, brokers []string) error {
	w := tabwriter.NewWriter(o, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tPARTITIONS\tREPLICAS\tCARRIES")
	for _, t := range stream.Topics() {
		l := cluster.Layouts[t.Name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", t.Name, l.Partitions, l.Replicas, t.Carries)
	}
	_ = w.Flush() // o keeps the error
	for _, t := range cluster.Unchecked {
		o.F("topic %s: settings not checked\n", t)
	}
	for _, f := range cluster.Faults {
		o.F("%s\n    %s\n", f, f.Command(brokers))
	}
	return o.Err()
}
