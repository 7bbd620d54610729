package main

/*
extern void calledBack(int);
static void callsBack(int n) { for (int i = 0; i < n; i++) calledBack(i); }
*/
import "C"

//go:noinline
//export calledBack
func calledBack(n C.int) {
	for i := 0; i < 20000; i++ {
		sum += uintptr(i) * uintptr(n)
	}
}

//go:noinline
func callsC() {
	C.callsBack(20)
}
