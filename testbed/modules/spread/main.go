// spread puts several servers behind one address: spread LISTEN SERVER...
//
// Each connection goes to the next server in turn. A server that refuses it is passed over. Nothing is kept from one
// connection to the next, so a client that relies on talking to the same server twice is found out.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: spread LISTEN SERVER...")
		os.Exit(64)
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "spread:", err)
		os.Exit(1)
	}
	servers := os.Args[2:]
	var turn atomic.Uint64
	for {
		client, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "spread:", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go serve(client.(*net.TCPConn), servers, turn.Add(1))
	}
}

func serve(client *net.TCPConn, servers []string, turn uint64) {
	defer client.Close()
	server := dial(servers, turn)
	if server == nil {
		client.SetLinger(0) // nobody is there: a reset, as a server that is down would give
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	go pass(server, client, done)
	go pass(client, server, done)
	<-done
	<-done
}

func dial(servers []string, turn uint64) *net.TCPConn {
	count := uint64(len(servers))
	for i := uint64(0); i < count; i++ {
		conn, err := net.DialTimeout("tcp", servers[(turn+i)%count], time.Second)
		if err == nil {
			return conn.(*net.TCPConn)
		}
	}
	return nil
}

// pass copies one direction and hands on its end: a clean end as one, a reset as one.
func pass(to, from *net.TCPConn, done chan<- struct{}) {
	if _, err := io.Copy(to, from); err != nil {
		to.SetLinger(0)
		from.SetLinger(0)
		to.Close()
		from.Close()
	} else {
		to.CloseWrite()
	}
	done <- struct{}{}
}
