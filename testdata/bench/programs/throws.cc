// Throws exceptions all the time, through frames with and without destructors. Some are caught at
// once, others many frames away, and some are rethrown on the way: `throws MS`, of CPU time.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Quiet : std::exception {
    explicit Quiet(int depth) : depth(depth) {}
    int depth;
};

volatile uint64_t kept;

[[gnu::noinline]] int fall(int depth, int kind) {
    if (depth == 0) {
        if (kind == 0)
            throw Quiet(kind);
        if (kind == 1)
            throw std::runtime_error("at the bottom, with a text that has to be allocated");
        return std::stoi(kind == 2 ? "not a number" : "99999999999999");
    }
    // At every other level, unwinding has to run a destructor.
    if (depth % 2) {
        std::vector<std::string> cargo(3, std::to_string(depth));
        return fall(depth - 1, kind) + static_cast<int>(cargo.size());
    }
    return fall(depth - 1, kind) + 1;
}

// Catches an exception that is not meant for it, and rethrows it, wrapped or as it is.
[[gnu::noinline]] int pass_on(int depth, int kind) {
    try {
        return fall(depth, kind);
    } catch (const Quiet &) {
        throw;
    } catch (const std::out_of_range &) {
        std::throw_with_nested(std::runtime_error("passed on"));
    }
}

[[gnu::noinline]] uint64_t round(int number) {
    try {
        return static_cast<uint64_t>(pass_on(number % 23, number % 4));
    } catch (const Quiet &quiet) {
        return static_cast<uint64_t>(quiet.depth) + 1;
    } catch (const std::exception &error) {
        return static_cast<uint64_t>(error.what()[0]);
    }
}

} // namespace

int main(int argc, char **argv) {
    double ms = argc == 2 ? std::atof(argv[1]) : 0;
    if (!(ms > 0)) {
        std::fprintf(stderr, "usage: %s MS\n", argv[0]);
        return 2;
    }
    for (int number = 0; std::clock() < ms / 1000 * CLOCKS_PER_SEC; number++)
        kept = kept + round(number);
    return 0;
}
