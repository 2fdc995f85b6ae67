/* 2×2 max pooling with stride 2, and ReLU after it, which gives what ReLU before it would.

   Maps are bfloat16 [images, height, width, channels]; a last odd row or column is in no window. `which` uint8
   [images, height / 2, width / 2, channels] is the place of the largest number in its window, the first among equals,
   or CLOSED where ReLU lets nothing through. NaN is the largest of all, and passes through ReLU. */

#include <omp.h>
#include <string.h>

#include "bf16.h"

#define CLOSED 4

/* Whole numbers in the order of the bfloat16 that they are the bits of: vectors of 16 bits rather than 32. */
static inline int16_t rank(bf16 x) {
    int16_t bits = (int16_t)x, order = bits ^ ((bits >> 15) & 0x7fff);
    return (x & 0x7fff) > 0x7f80 ? 0x7fff : order;
}

static inline void pool(const bf16 *above, const bf16 *below, bf16 *y, uint8_t *which, size channels, int relu) {
#pragma omp simd
    for (size c = 0; c < channels; c++) {
        bf16 a = above[c], b = above[channels + c], d = below[c], e = below[channels + c];
        int16_t most = rank(a), of_b = rank(b), of_d = rank(d), of_e = rank(e);
        bf16 value = a;
        int16_t place = 0;
        if (of_b > most) most = of_b, value = b, place = 1;
        if (of_d > most) most = of_d, value = d, place = 2;
        if (of_e > most) most = of_e, value = e, place = 3;
        if (relu && most <= 0) value = 0, place = CLOSED;
        y[c] = value;
        which[c] = (uint8_t)place;
    }
}

static inline void spread(const bf16 *gradient, const uint8_t *which, bf16 *above, bf16 *below, size channels) {
#pragma omp simd
    for (size c = 0; c < channels; c++) {
        bf16 g = gradient[c];
        uint16_t place = which[c];
        above[c] = place == 0 ? g : 0;
        above[channels + c] = place == 1 ? g : 0;
        below[c] = place == 2 ? g : 0;
        below[channels + c] = place == 3 ? g : 0;
    }
}

/* A loop whose length is known when it is compiled is unrolled: few channels are the rule where maps are large. */
#define FOR_CHANNELS(call)                                                                                             \
    switch (channels) {                                                                                                \
    case 8: { enum { C = 8 }; call; break; }                                                                           \
    case 16: { enum { C = 16 }; call; break; }                                                                         \
    case 32: { enum { C = 32 }; call; break; }                                                                         \
    case 64: { enum { C = 64 }; call; break; }                                                                         \
    default: { const size C = channels; call; }                                                                        \
    }

int forward(const bf16 *x, bf16 *y, uint8_t *which, size images, size height, size width, size channels, size relu,
            int threads) {
    const size down = height / 2, across = width / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size row = 0; row < images * down; row++) {
        const bf16 *above = x + (row / down * height + row % down * 2) * width * channels;
        const bf16 *below = above + width * channels;
        bf16 *out = y + row * across * channels;
        uint8_t *place = which + row * across * channels;
        FOR_CHANNELS(for (size j = 0; j < across; j++)
                         pool(above + 2 * j * C, below + 2 * j * C, out + j * C, place + j * C, C, relu))
    }
    return 0;
}

int backward(const bf16 *gradient, const uint8_t *which, bf16 *of_x, size images, size height, size width,
             size channels, int threads) {
    const size down = height / 2, across = width / 2, line = width * channels;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size row = 0; row < images * down; row++) {
        bf16 *above = of_x + (row / down * height + row % down * 2) * line, *below = above + line;
        const bf16 *g = gradient + row * across * channels;
        const uint8_t *place = which + row * across * channels;
        FOR_CHANNELS(for (size j = 0; j < across; j++)
                         spread(g + j * C, place + j * C, above + 2 * j * C, below + 2 * j * C, C))
        if (width % 2) {
            memset(above + 2 * across * channels, 0, channels * sizeof(bf16));
            memset(below + 2 * across * channels, 0, channels * sizeof(bf16));
        }
        if (height % 2 && row % down == down - 1) memset(below + line, 0, line * sizeof(bf16));
    }
    return 0;
}
