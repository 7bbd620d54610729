// Uses CPU time in one function: `burner SECONDS`.
package main

import (
	"os"
	"strconv"
	"time"
)

var sink uint64

//go:noinline
func burnInGo() {
	for i := uint64(0); i < 20000; i++ {
		sink += i
	}
}

func main() {
	seconds, err := strconv.ParseFloat(os.Args[1], 64)
	if err != nil {
		panic(err)
	}
	for end := time.Now().Add(time.Duration(seconds * float64(time.Second))); time.Now().Before(end); {
		burnInGo()
	}
}
