# Two commands: `make run` and `make test`. deploy/ has a script for each step.
SHELL = /bin/bash

# Samples this machine and serves the page on http://127.0.0.1:7070 until Ctrl-C; `RUN_FOR=30s make
# run` stops by itself.
run:
	@deploy/setup run && deploy/build && . deploy/environment && exec target/release/pilotlight-run

# All tests of all parts; `make test PARTS="ui e2e"` runs only these, `make test FRESH=1` also
# unchanged parts.
test:
	@deploy/setup test && FRESH=$(FRESH) deploy/test $(PARTS)

# The end-to-end test on kernels 5.10, 6.1 and 6.12, emulated: about a minute each.
test-kernels:
	@deploy/setup kernels && deploy/build && deploy/test-kernels $(SUITES)

# Measures on this machine: the cost of sampling, the share of CPU time that is sampled, the share
# of complete stacks. Each takes minutes and needs an idle machine.
cost accuracy stacks:
	@deploy/setup test && deploy/build && testdata/bench/$@

# Fuzzes the parsers of untrusted input.
fuzz:
	@deploy/setup test && testdata/fuzz/run $(or $(FUZZ_SECONDS),60) $(TARGETS)

.PHONY: run test test-kernels cost accuracy stacks fuzz
