module example.test/stacks

go 1.18
