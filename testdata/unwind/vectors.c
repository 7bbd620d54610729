// AVX code, which keeps its vectors on stacks that are realigned to 32 bytes.
#include <immintrin.h>
#include <stdio.h>

#define AVX __attribute__((noinline, noclone, target("avx2")))

AVX static void add(__m256d *to, const __m256d *from) { *to = _mm256_add_pd(*to, *from); }

AVX static double sum(__m256d values) {
    __m256d copy[3] = {values, values, _mm256_setzero_pd()};
    add(&copy[2], &copy[0]);
    add(&copy[2], &copy[1]);
    double words[4];
    _mm256_storeu_pd(words, copy[2]);
    return words[0] + words[1] + words[2] + words[3];
}

AVX static double deep(unsigned depth, __m256d values) {
    __m256d kept = _mm256_mul_pd(values, values);
    double below = depth ? deep(depth - 1, kept) : sum(kept);
    add(&kept, &values);
    return below + sum(kept);
}

AVX static double start(void) { return deep(5, _mm256_set_pd(1, 0.5, 0.25, 2)); }

int main(void) {
    if (__builtin_cpu_supports("avx2")) printf("%f\n", start());
    return 0;
}
