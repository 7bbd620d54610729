# Two commands: `make run` and `make test`. What they do is in deploy/, one script a step.
SHELL = /bin/bash

# Samples this machine and serves the page on http://127.0.0.1:7070 until Ctrl-C; `RUN_FOR=30s make run` ends by itself.
run:
	@deploy/setup run && deploy/build && . deploy/environment && exec target/release/pilotlight-run

# Every test of every part; `make test PARTS="ui e2e"` runs some, `make test FRESH=1` also those that are unchanged.
test:
	@deploy/setup test && FRESH=$(FRESH) deploy/test $(PARTS)

# The end-to-end test on kernels 5.10, 6.1 and 6.12, emulated: about a minute each.
test-kernels:
	@deploy/setup kernels && deploy/build && deploy/test-kernels $(SUITES)

# Measures what sampling costs on this machine, how much of the CPU time it sees, and how many stacks are complete. Minutes
# each, on an idle machine.
cost accuracy stacks:
	@deploy/setup test && deploy/build && testdata/bench/$@

# The parsers of bytes that nobody controls, under random input.
fuzz:
	@deploy/setup test && testdata/fuzz/run $(or $(FUZZ_SECONDS),60) $(TARGETS)

.PHONY: run test test-kernels cost accuracy stacks fuzz
