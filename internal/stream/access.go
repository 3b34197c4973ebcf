package stream

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Right is one thing that a service must be allowed to do at Kafka. Describe
// comes with every other right, so it is named only where it is all there is.
type Right struct {
	Service string
	// Operation and Resource are Kafka's names: Read on a topic, …
	Operation, Resource, Name string
	// Prefix: Name is the beginning of the names meant.
	Prefix bool
	// Optional: the service works without it, and shows less.
	Optional bool
}

// Kafka's names of operations and kinds of resources.
const (
	Read     = "Read"
	Write    = "Write"
	Create   = "Create"
	Describe = "Describe"
	// DescribeConfigs is to read the settings of a topic.
	DescribeConfigs = "DescribeConfigs"

	TopicResource           = "topic"
	GroupResource           = "group"
	TransactionalIDResource = "transactional-id"
)

func (r Right) String() string { return r.Operation + " on " + r.resource() }

func (r Right) resource() string {
	name := r.Name
	if r.Prefix {
		name += "*"
	}
	return r.Resource + " " + name
}

// TransactionalID fences a partition of the group's table.
func (g Group) TransactionalID(partition int32) string {
	return fmt.Sprintf("%s%d", g.fence(), partition)
}

func (g Group) fence() string { return string(g) + "-" }

// FenceRight is what it takes to fence the group's table.
func (g Group) FenceRight() Right {
	return Right{Service: string(g), Operation: Write, Resource: TransactionalIDResource, Name: g.fence(), Prefix: true}
}

// Rights lists what each service needs, and nothing that it does not.
func Rights() []Right {
	var rights []Right
	add := func(service, operation, resource, name string) {
		rights = append(rights, Right{Service: service, Operation: operation, Resource: resource, Name: name})
	}
	for _, t := range Topics() {
		for _, w := range t.Writers {
			add(w, Write, TopicResource, t.Name)
		}
		for _, r := range t.Readers {
			add(r, Read, TopicResource, t.Name)
		}
		add("verify", Read, TopicResource, t.Name)
		add("topics", Create, TopicResource, t.Name)
		add("topics", Describe, TopicResource, t.Name)
		add("topics", DescribeConfigs, TopicResource, t.Name)
	}
	add("whatif", Read, TopicResource, string(DepositStream))
	add("statement", Read, TopicResource, string(DepositStream))
	add("statement", Read, TopicResource, string(FlagWalletStream))
	add("statement", Read, TopicResource, string(DepositDeadLetter))
	add("deadletter", Read, TopicResource, string(DepositDeadLetter))
	add("deadletter", Read, TopicResource, string(FlagWalletDeadLetter))
	// A removal names the end of the wallet's deposits.
	add("flag", Describe, TopicResource, string(DepositStream))
	// Flags name deposits, so the flagger must know which topic they are of.
	add("flagger", Describe, TopicResource, string(DepositStream))
	// The tables say how many partitions of the logs are in use.
	add("whatif", Describe, TopicResource, string(BalanceGroup.Table()))
	add("statement", Describe, TopicResource, string(BalanceGroup.Table()))
	for _, g := range Groups() {
		add(string(g), Read, GroupResource, string(g))
		add("verify", Describe, GroupResource, string(g))
		rights = append(rights, g.FenceRight())
	}
	return append(rights, watching()...)
}

// watching are the rights by which the API's live page shows how the groups are.
func watching() []Right {
	rights := []Right{{Service: "api", Operation: Describe, Resource: TopicResource, Name: string(FlagWalletStream), Optional: true}}
	for _, g := range Groups() {
		rights = append(rights, Right{Service: "api", Operation: Describe, Resource: GroupResource, Name: string(g), Optional: true})
	}
	return rights
}

// Required are those of rights that a service cannot do without.
func Required(rights []Right) []Right {
	return slices.DeleteFunc(slices.Clone(rights), func(r Right) bool { return r.Optional })
}

// RightsOf are those of one service, only on topics if any are named, sorted so
// that like stands by like.
func RightsOf(service string, topics ...string) []Right {
	rights := slices.DeleteFunc(Rights(), func(r Right) bool {
		return r.Service != service ||
			len(topics) > 0 && (r.Resource != TopicResource || !slices.Contains(topics, r.Name))
	})
	kinds := []string{TopicResource, GroupResource, TransactionalIDResource}
	slices.SortStableFunc(rights, func(a, b Right) int {
		return cmp.Or(slices.Index(kinds, a.Resource)-slices.Index(kinds, b.Resource), cmp.Compare(a.Operation, b.Operation))
	})
	return rights
}

// TopicsIn are the topics that rights speak of.
func TopicsIn(rights []Right) []Topic {
	return slices.DeleteFunc(Topics(), func(t Topic) bool {
		return !slices.ContainsFunc(rights, func(r Right) bool { return r.Resource == TopicResource && r.Name == t.Name })
	})
}

// accessServices are the columns of the matrix.
func accessServices() []string {
	return []string{"api", "balance", "threshold", "flagger", "flag", "verify", "whatif", "statement", "deadletter", "topics"}
}

// AccessMatrix is Rights as a Markdown table: resources down, services across.
func AccessMatrix() string {
	var b strings.Builder
	services := accessServices()
	fmt.Fprintf(&b, "| | %s |\n|%s\n", strings.Join(services, " | "), strings.Repeat(" --- |", len(services)+1))
	cells := make(map[string]map[string][]string)
	var resources []string
	for _, r := range Rights() {
		name := r.resource()
		if cells[name] == nil {
			cells[name] = make(map[string][]string)
			resources = append(resources, name)
		}
		cells[name][r.Service] = append(cells[name][r.Service], r.Operation)
	}
	for _, name := range resources {
		kind, id, _ := strings.Cut(name, " ")
		fmt.Fprintf(&b, "| %s `%s` |", kind, id)
		for _, s := range services {
			fmt.Fprintf(&b, " %s |", strings.Join(cells[name][s], ", "))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// AccessCommands are the commands that grant Rights. In principal, %s stands for
// the service's name.
func AccessCommands(brokers, principal string) string {
	var b strings.Builder
	for _, s := range accessServices() {
		rights := RightsOf(s)
		fmt.Fprintf(&b, "# %s\n", s)
		for i, r := range rights {
			if i > 0 && r.grantedWith(rights[i-1]) {
				fmt.Fprintf(&b, " --%s %s", r.Resource, r.Name)
				continue
			}
			if i > 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(&b, "kafka-acls.sh --bootstrap-server %s --command-config admin.properties --add --allow-principal %s --operation %s",
				brokers, quote(strings.ReplaceAll(principal, "%s", s)), r.Operation)
			if r.Prefix {
				b.WriteString(" --resource-pattern-type prefixed")
			}
			fmt.Fprintf(&b, " --%s %s", r.Resource, r.Name)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// grantedWith tells whether one command can grant both.
func (r Right) grantedWith(o Right) bool {
	return r.Operation == o.Operation && r.Resource == o.Resource && r.Prefix == o.Prefix
}

// quote is s as one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
