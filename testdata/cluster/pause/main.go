// Command pause is the first process of each pod's sandbox: it holds the pod's namespaces until it
// gets a signal. In a pod with a shared PID namespace it is process 1 and reaps orphans. It begins with
// 0.1 s of CPU time, so that each sandbox is sampled.
package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

func burn(cpu time.Duration) {
	var used syscall.Rusage
	for time.Duration(used.Utime.Nano()+used.Stime.Nano()) < cpu {
		if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
			return
		}
	}
}

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	burn(100 * time.Millisecond)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
