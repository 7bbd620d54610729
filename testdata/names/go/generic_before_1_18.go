//go:build !go1.18
// +build !go1.18

package main

import "fmt"

func generic(values []int, factor int) string { return fmt.Sprint(caller(len(values) * factor)) }
