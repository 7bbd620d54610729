//go:build cgo
// +build cgo

package main

// __attribute__((noinline)) static int in_c(int x) { return x * 7 + 1; }
import "C"

func fromC(x int) int { return int(C.in_c(C.int(x))) }
