// Exceptions through several frames, with destructors on their way, thrown again, and caught by a type that is not theirs.
#include <stdexcept>
#include <string>
#include <vector>

#define APART __attribute__((noinline, noclone))

static volatile unsigned long sink;

struct Counted {
    explicit Counted(unsigned value) : text(20 + value, 'x') {}
    ~Counted() { sink = sink + text.size(); }
    std::string text;
};

APART static void thrower(unsigned kind) {
    Counted counted(kind);
    if (kind % 3 == 0) throw std::runtime_error(counted.text);
    if (kind % 3 == 1) throw kind;
    throw std::vector<int>{1, 2, 3};
}

APART static void between(unsigned depth, unsigned kind) {
    Counted counted(depth);
    alignas(64) volatile unsigned block[16];
    block[depth % 16] = kind;
    if (sink != 1 && depth) between(depth - 1, kind);
    if (!depth) thrower(block[depth % 16]);
    sink = sink + 1;
}

APART static void again(unsigned kind) {
    try {
        between(2, kind);
    } catch (const std::exception &error) {
        sink = sink + std::string(error.what()).size();
        throw;
    }
}

int main() {
    for (unsigned kind = 0; kind < 4; kind++) {
        try {
            again(kind);
        } catch (const std::logic_error &) {
            return 1;
        } catch (unsigned value) {
            sink = sink + value;
        } catch (...) {
            sink = sink + 2;
        }
    }
    return 0;
}
