//go:build go1.18
// +build go1.18

package main

import (
	"fmt"
	"strings"
)

type pair[K comparable, V any] struct {
	key   K
	value V
}

//go:noinline
func (p *pair[K, V]) describe() string { return fmt.Sprint(p.key, "=", p.value) }

func (p *pair[K, V]) same(key K) bool { return p.key == key }

//go:noinline
func sum[T int | float64](values []T, weigh func(T) T) T {
	var total T
	for _, value := range values {
		total += weigh(value)
	}
	return total
}

func halve(x float64) float64 { return x / 2 }

func generic(values []int, factor int) string {
	p := &pair[string, int]{"a", caller(sum(values, func(x int) int { return x * factor }))}
	q := &pair[int, []string]{7, strings.Fields(" b  c ")}
	return fmt.Sprint(p.describe(), q.describe(), p.same("a"), sum([]float64{1.5}, halve))
}
