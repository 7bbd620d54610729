// Uses CPU time in a method of a class template: `burner SECONDS`.
#include <cstdlib>
#include <ctime>

namespace burning {

template <typename T>
struct Burner {
    volatile T sink = 0;

    __attribute__((noinline)) void burn_in_cc(T n) {
        for (int i = 0; i < 20000; i++)
            sink = sink + n;
    }
};

}  // namespace burning

int main(int argc, char **argv) {
    double seconds = argc > 1 ? std::atof(argv[1]) : 1;
    burning::Burner<unsigned long> burner;
    while (std::clock() < seconds * CLOCKS_PER_SEC)
        burner.burn_in_cc(argc);
}
