// Functions of each kind that Go's table has a form for: methods, closures, generic ones, inlined ones, and those that
// the compiler makes. With cgo there is C beside them, see cgo.go. Prints one line and ends.
package main

import (
	"fmt"
	"os"
	"regexp"
	"sort"
)

type shape interface {
	area() float64
}

type square struct{ side float64 }

func (s square) area() float64 { return s.side * s.side }

// A pointer's method of an embedded value is a wrapper that the compiler makes.
type named struct {
	square
	name string
}

func innermost(x int) int { return x*len(os.Args) + 1 }

func inlined(x int) int {
	if x > 3 {
		return innermost(x) * 3
	}
	return innermost(x + 1)
}

//go:noinline
func caller(x int) int {
	return inlined(x) + inlined(x*2)
}

//go:noinline
func total(shapes []shape) (all float64) {
	defer func() {
		if recover() != nil {
			all = -1
		}
	}()
	for _, shape := range shapes {
		all += shape.area()
	}
	return all
}

func main() {
	values := []int{3, 1, 2}
	sort.Slice(values, func(a, b int) bool { return values[a] < values[b] })
	shapes := []shape{square{2}, &named{square{3}, "n"}}
	found := regexp.MustCompile(`(a|b)+c?`).FindString("xababcx")
	factor := len(os.Args)
	fmt.Println(generic(values, factor), total(shapes), found, fromC(factor))
}
