// lookup NAME…: the addresses that Go's own resolver finds, a line a name.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	resolver := &net.Resolver{PreferGo: true}
	for _, name := range os.Args[1:] {
		found, err := resolver.LookupHost(context.Background(), name)
		if failure, ok := err.(*net.DNSError); ok && failure.IsNotFound {
			fmt.Println("none")
		} else if err != nil {
			fmt.Println(err)
		} else {
			fmt.Println(strings.Join(found, " "))
		}
	}
}
