package app

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Command is the parsed command line.
type Command struct {
	// Service is a name of the table of services.
	Service string
	// Wallet goes with the services flag and statement, Remove with flag.
	Wallet string
	Remove bool
	// ACLs and Principal go with the service topics.
	ACLs      bool
	Principal string
	// JSON goes with the services that report, CSV with those that list.
	JSON, CSV bool
	// Load is nil but for the service loadgen.
	Load *loadFlags
	// WhatIf is nil but for the service whatif.
	WhatIf *whatIf
	// At goes with the service statement.
	At string
}

// parse reads the command line twice: with the flags of all services, to learn which
// one is meant wherever it stands, and then with that one's own.
func parse(args []string, stderr io.Writer) (Command, error) {
	var cmd Command
	all, owners := allFlags()
	name := all.String("service", "", "")
	err := all.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		usage(stderr, *name)
		return cmd, err
	}
	if err == nil && all.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", all.Arg(0))
	}
	var svc service
	if err == nil {
		svc, err = choose(*name)
	}
	if err == nil {
		err = svc.owns(all, owners)
	}
	if err == nil {
		cmd, err = svc.parse(args)
	}
	if err != nil {
		err = fmt.Errorf("%w; -h for help", err)
	}
	return cmd, err
}

// allFlags are the flags of all services, and which ones each goes with. A name that
// several declare is of the same kind in all, so that any of them can read it.
func allFlags() (*flag.FlagSet, map[string][]string) {
	all, owners := flag.NewFlagSet("coinbit", flag.ContinueOnError), make(map[string][]string)
	all.SetOutput(io.Discard) // usage prints what flag would
	for _, s := range services() {
		s.flagSet(new(Command)).VisitAll(func(f *flag.Flag) {
			if owners[f.Name] == nil {
				all.Var(f.Value, f.Name, f.Usage)
			}
			owners[f.Name] = append(owners[f.Name], s.name)
		})
	}
	return all, owners
}

// flagSet has the service's own flags.
func (s service) flagSet(c *Command) *flag.FlagSet {
	fs := flag.NewFlagSet("coinbit", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if s.flags != nil {
		s.flags(fs, c)
	}
	return fs
}

// names are those of all services.
func names() string {
	var all []string
	for _, s := range services() {
		all = append(all, s.name)
	}
	return strings.Join(all, ", ")
}

// choose finds the service that -service names.
func choose(name string) (service, error) {
	if name == "" {
		return service{}, errors.New("-service is missing, takes " + names())
	}
	svc, ok := find(name)
	if !ok {
		return service{}, fmt.Errorf("-service: got %q, takes %s", name, names())
	}
	return svc, nil
}

// owns says which given flag goes with other services only.
func (s service) owns(given *flag.FlagSet, owners map[string][]string) (err error) {
	own := s.flagSet(new(Command))
	given.Visit(func(f *flag.Flag) {
		if f.Name != "service" && own.Lookup(f.Name) == nil {
			err = fmt.Errorf("-%s goes with -service=%s", f.Name, strings.Join(owners[f.Name], " and -service="))
		}
	})
	return err
}

// parse reads a command line that is known to have no flags but the service's.
func (s service) parse(args []string) (Command, error) {
	cmd := Command{Service: s.name}
	fs := s.flagSet(&cmd)
	fs.String("service", "", "")
	err := fs.Parse(args)
	if err == nil {
		err = noneEmpty(fs)
	}
	if err == nil && s.check != nil {
		err = s.check(&cmd)
	}
	return cmd, err
}

// noneEmpty refuses a flag that was given with nothing, such as a variable that is not set.
func noneEmpty(fs *flag.FlagSet) (err error) {
	fs.Visit(func(f *flag.Flag) {
		if f.Value.String() == "" {
			err = fmt.Errorf("-%s: got nothing, takes a value", f.Name)
		}
	})
	return err
}
