// client-go-member runs a command while it leads, by the election of client-go:
//
//	client-go-member -kubeconfig FILE -namespace NAMESPACE -name LEASE -identity NAME [-endpoints] [-release-on-cancel] [-deaf] COMMAND...
//
// What it does to the Lease is client-go's own. When leadership is lost, the command gets SIGKILL, and nothing that the
// command has started does, as in programs that wrap one command this way. SIGTERM is kinder than theirs: the command is
// stopped first, and the Lease is let go after that. The command finds the variables that soloist would give it.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

type settings struct {
	kubeconfig, namespace, name, identity string
	lease, renew, retry                   time.Duration
	endpoints, release, deaf              bool
	command                               []string
}

func parse() settings {
	var s settings
	flag.StringVar(&s.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "how to reach the API server")
	flag.StringVar(&s.namespace, "namespace", "default", "where the Lease is")
	flag.StringVar(&s.name, "name", "", "the Lease")
	flag.StringVar(&s.identity, "identity", "", "this member")
	flag.DurationVar(&s.lease, "lease-duration", 15*time.Second, "how long others wait")
	flag.DurationVar(&s.renew, "renew-deadline", 10*time.Second, "how long a leader tries to renew")
	flag.DurationVar(&s.retry, "retry-period", 2*time.Second, "between two tries")
	flag.BoolVar(&s.endpoints, "endpoints", false, "elect by the annotation of Endpoints, as client-go did up to 0.26")
	flag.BoolVar(&s.deaf, "deaf", false, "do not handle SIGTERM, as k8s-await-election does not")
	flag.BoolVar(&s.release, "release-on-cancel", false, "empty the holder at the end")
	flag.Parse()
	s.command = flag.Args()
	if s.name == "" || s.identity == "" || len(s.command) == 0 {
		flag.Usage()
		os.Exit(64)
	}
	return s
}

// workload is the command: it starts once at most, and not any more once it is closed.
type workload struct {
	mutex         sync.Mutex
	begun, closed bool
	ended         chan struct{}
	err           error
}

// begin says whether the command may start.
func (w *workload) begin() bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.begun = !w.closed
	return w.begun
}

// close waits for a command that has been started, and keeps one from being started.
func (w *workload) close() {
	w.mutex.Lock()
	w.closed = true
	begun := w.begun
	w.mutex.Unlock()
	if begun {
		<-w.ended
	}
}

func run(s settings) error {
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	asked, stop := context.WithCancel(context.Background())
	if !s.deaf {
		asked, stop = signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	}
	defer stop()
	taking, leave := context.WithCancel(context.Background())
	defer leave()
	work := &workload{ended: make(chan struct{})}
	context.AfterFunc(asked, func() { work.close(); leave() })

	lead := func(leading context.Context) {
		if !work.begin() {
			return
		}
		leading, end := context.WithCancel(leading)
		defer end()
		context.AfterFunc(asked, end)
		work.err = execute(leading, client, s)
		close(work.ended)
		leave()
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          lock(client, s),
		LeaseDuration: s.lease, RenewDeadline: s.renew, RetryPeriod: s.retry, ReleaseOnCancel: s.release,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: lead,
			OnStoppedLeading: func() { fmt.Fprintln(os.Stderr, "leads no more") },
			OnNewLeader:      func(name string) { fmt.Fprintf(os.Stderr, "the leader is %q\n", name) },
		},
	})
	if err != nil {
		return err
	}
	elector.Run(taking)
	work.close()
	if asked.Err() != nil {
		return nil
	}
	if work.err == nil && taking.Err() == nil {
		return errors.New("leadership lost before the command started")
	}
	return work.err
}

// lock is what the election is about.
func lock(client kubernetes.Interface, s settings) resourcelock.Interface {
	if s.endpoints {
		return &endpointsLock{client: client.CoreV1().Endpoints(s.namespace), name: s.name, identity: s.identity}
	}
	return &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: s.namespace, Name: s.name},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: s.identity},
	}
}

// version is that of the lock as it is now.
func version(ctx context.Context, client kubernetes.Interface, s settings) (string, error) {
	if s.endpoints {
		endpoints, err := client.CoreV1().Endpoints(s.namespace).Get(ctx, s.name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return endpoints.ResourceVersion, nil
	}
	lease, err := client.CoordinationV1().Leases(s.namespace).Get(ctx, s.name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return lease.ResourceVersion, nil
}

// execute runs the command until it ends or is not to lead any longer.
func execute(leading context.Context, client kubernetes.Interface, s settings) error {
	version, err := version(leading, client, s)
	if err != nil {
		return err
	}
	activation := make([]byte, 16)
	if _, err := rand.Read(activation); err != nil {
		return err
	}
	command := exec.CommandContext(leading, s.command[0], s.command[1:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Env = append(os.Environ(),
		// At least the version of the write that won, and less than that of any later winner.
		"SOLOIST_FENCING_TOKEN="+version,
		"SOLOIST_ACTIVATION="+hex.EncodeToString(activation),
		"SOLOIST_MEMBER="+s.identity,
	)
	return command.Run()
}

func main() {
	if err := run(parse()); err != nil {
		fmt.Fprintln(os.Stderr, "client-go-member:", err)
		os.Exit(1)
	}
}
