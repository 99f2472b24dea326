// The Go SDK walks what an installation answers and looks at each typed field.
//
// Its arguments are the parts to walk, in order; environment variables say where, as pscale has them. It ends with
// the first answer that is not as it has to be, and prints "done" otherwise.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/planetscale/planetscale-go/planetscale"
)

const (
	patience = 90 * time.Second
	database = "shop"
	branch   = "main"
)

var (
	ctx          context.Context
	client       *planetscale.Client
	organization = os.Getenv("PLANETSCALE_ORG")
)

// fail ends the walk and names the line of the caller's caller.
func fail(what string) {
	if err := log.Output(3, what); err != nil {
		panic(err)
	}
	os.Exit(1)
}

func check(holds bool, what string) {
	if !holds {
		fail(what)
	}
}

func same[T comparable](got, wanted T, what string) {
	if got != wanted {
		fail(fmt.Sprintf("%s is %v, not %v", what, got, wanted))
	}
}

func none(err error) {
	if err != nil {
		fail(err.Error())
	}
}

// must is the value of a call that has to succeed.
func must[T any](value T, err error) T {
	if err != nil {
		fail(err.Error())
	}
	return value
}

// refused is the sentence of a call that has to fail with the code.
func refused(err error, code planetscale.ErrorCode) string {
	var told *planetscale.Error
	if !errors.As(err, &told) {
		fail(fmt.Sprintf("not refused as it has to be: %v", err))
	}
	if told.Code != code || told.Error() == "" {
		fail(fmt.Sprintf("refused with %q: %v", told.Code, told))
	}
	return told.Error()
}

// of is the error alone of a call that has a value beside it.
func of[T any](_ T, err error) error { return err }

// recent checks that a moment is one of this walk, and not the zero that a missing field becomes.
func recent(moment time.Time, what string) {
	if age := time.Since(moment); age < -time.Minute || age > time.Hour {
		fail(fmt.Sprintf("%s is %v", what, moment))
	}
}

// until asks until it holds.
func until(what string, holds func() bool) {
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			fail("not in time: " + what)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// names are those of a list, in its order.
func names[T any](list []T, name func(T) string) string {
	var all []string
	for _, one := range list {
		all = append(all, name(one))
	}
	return strings.Join(all, " ")
}

func pointer[T any](value T) *T { return &value }

func main() {
	log.SetFlags(log.Lshortfile)
	var cancel context.CancelFunc
	ctx, cancel = context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	client = must(planetscale.NewClient(
		planetscale.WithBaseURL(os.Getenv("PLANETSCALE_API_URL")),
		planetscale.WithServiceToken(os.Getenv("PLANETSCALE_SERVICE_TOKEN_ID"), os.Getenv("PLANETSCALE_SERVICE_TOKEN")),
	))
	parts := map[string]func(){
		"organizations": organizations, "databases": databases, "branches": branches, "keyspaces": keyspaces,
		"passwords": passwords, "tokens": tokens, "webhooks": webhooks, "audit": audit, "looking": looking,
		"workflows": workflows, "cancelled": cancelled, "deleting": deleting,
	}
	for _, part := range os.Args[1:] {
		walk, found := parts[part]
		check(found, "no part is called "+part)
		walk()
	}
	fmt.Println("done")
}
