/* Bfloat16: the upper half of a float32. */

#ifndef LENEXT_BF16_H
#define LENEXT_BF16_H

#include <stdint.h>

typedef uint16_t bf16;
typedef int64_t size;

static inline float widen(bf16 x) {
    union { uint32_t bits; float value; } both = {(uint32_t)x << 16};
    return both.value;
}

static inline bf16 narrow(float x) { /* to nearest, ties to even */
    union { float value; uint32_t bits; } both = {x};
    return (bf16)((both.bits + 0x7fff + ((both.bits >> 16) & 1)) >> 16);
}

#endif
