// Runs on each stack that Go switches to: the scheduler's (runtime.Callers), that of C code, a goroutine's again when C code calls
// back, and a signal's (the runtime interrupts its goroutines).
package main

import (
	"runtime"
	"time"
)

var sum uintptr

//go:noinline
func asksForItsCallers(pcs []uintptr) {
	for i := 0; i < 100; i++ {
		sum += pcs[runtime.Callers(0, pcs)-1]
	}
}

func main() {
	pcs := make([]uintptr, 32)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		asksForItsCallers(pcs)
		callsC()
		runtime.GC()
	}
}
