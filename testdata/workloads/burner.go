// Uses CPU time in one function: `burner SECONDS`.
package main

import (
	"os"
	"strconv"
	"syscall"
	"time"
)

var sink uint64

//go:noinline
func burnInGo() {
	for i := uint64(0); i < 20000; i++ {
		sink += i
	}
}

// cpuTime returns the CPU time of the process, which is independent of other processes.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func main() {
	seconds, err := strconv.ParseFloat(os.Args[1], 64)
	if err != nil {
		panic(err)
	}
	for cpuTime() < time.Duration(seconds*float64(time.Second)) {
		burnInGo()
	}
}
