/* A 5×5 convolution of few channels, 2×2 max pooling with stride 2, and ReLU: one pass over an image each way.

   Few channels leave the usual ways of convolving with little to multiply at a time. Here 16 numbers at a time are
   forward the channels of an output, or of two outputs; backward neighbours in a line of input. And of four outputs
   pooling passes one gradient back: backward goes through that one alone, with a quarter of the multiply-adds.

   Maps are bfloat16 [images, height, width, channels], at most 6 channels in and 16 out; filters have stride 1 and are
   float32 [channels out, 5, 5, channels in]; sums are float32. `which` uint8 is the place of the largest output in its
   window, the first among equals, or CLOSED where ReLU lets nothing through. NaN is the largest of all, and passes
   through ReLU. */

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

#define CLOSED 4
#define LANES 16
#define SIDE 5   /* of a filter */
#define REACH 3 /* vectors that a line of a window's input takes, (SIDE + 1) pixels */
#define GROUP 5 /* windows at a time: 20 sums, of 32 registers */

typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t whole __attribute__((vector_size(64)));
typedef int64_t pair __attribute__((may_alias)); /* of float32 */
typedef int64_t pairs __attribute__((vector_size(64)));
typedef bf16 halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 32")

typedef struct {
    size height, width, in, out, padding;
    size line;         /* numbers in a line of the padded input */
    size taps;         /* of a filter in a line */
    size down, across; /* windows */
} shape;

static shape shape_of(size height, size width, size in, size out, size padding) {
    shape s = {height, width, in, out, padding};
    s.line = (width + 2 * padding) * in;
    s.taps = SIDE * in;
    s.down = (height + 2 * padding - SIDE + 1) / 2;
    s.across = (width + 2 * padding - SIDE + 1) / 2;
    return s;
}

/* Numbers of a padded input, and what vectors reach beyond it. */
static size padded(shape s) { return (s.height + 2 * s.padding) * s.line + REACH * LANES; }

/* An image, into what is zero around it. */
static void pad(const bf16 *x, float *wide, shape s) {
    for (size row = 0; row < s.height; row++) {
        const bf16 *from = x + row * s.width * s.in;
        float *to = wide + (row + s.padding) * s.line + s.padding * s.in;
        for (size i = 0; i < s.width * s.in; i++) to[i] = widen(from[i]);
    }
}

/* The sums of `many` windows beside each other, four outputs each. */
INLINE void convolve(const float *x, const lanes *filters, lanes bias, lanes (*sums)[4], shape s, const int many) {
    lanes sum[GROUP][4];
    UNROLLED for (int m = 0; m < many; m++) UNROLLED for (int q = 0; q < 4; q++) sum[m][q] = bias;
    for (size row = 0; row < SIDE; row++)
        for (size tap = 0; tap < s.taps; tap++) {
            const lanes filter = filters[row * s.taps + tap];
            const float *above = x + row * s.line + tap, *below = above + s.line;
            UNROLLED for (int m = 0; m < many; m++) {
                sum[m][0] += filter * above[2 * m * s.in];
                sum[m][1] += filter * above[(2 * m + 1) * s.in];
                sum[m][2] += filter * below[2 * m * s.in];
                sum[m][3] += filter * below[(2 * m + 1) * s.in];
            }
        }
    UNROLLED for (int m = 0; m < many; m++) UNROLLED for (int q = 0; q < 4; q++) sums[m][q] = sum[m][q];
}

#define EVERY_SECOND(v, from)                                                                                          \
    __builtin_shufflevector(v, v, from, from + 2, from + 4, from + 6, from + 8, from + 10, from + 12, from + 14,       \
                            0, 0, 0, 0, 0, 0, 0, 0)

/* The same with at most half the lanes' channels: two outputs at a time, left and right, in alternate lanes. */
INLINE void convolve_pairs(const pair *x, const lanes *filters, lanes bias, lanes (*sums)[4], shape s, const int many) {
    lanes sum[GROUP][2];
    UNROLLED for (int m = 0; m < many; m++) sum[m][0] = sum[m][1] = bias;
    for (size row = 0; row < SIDE; row++)
        for (size tap = 0; tap < s.taps; tap++) {
            const lanes filter = filters[row * s.taps + tap];
            const pair *above = x + row * s.line + tap, *below = above + s.line;
            UNROLLED for (int m = 0; m < many; m++) {
                sum[m][0] += filter * (lanes)((pairs){0} + above[2 * m * s.in]);
                sum[m][1] += filter * (lanes)((pairs){0} + below[2 * m * s.in]);
            }
        }
    UNROLLED for (int m = 0; m < many; m++) UNROLLED for (int q = 0; q < 4; q++)
        sums[m][q] = q % 2 ? EVERY_SECOND(sum[m][q / 2], 1) : EVERY_SECOND(sum[m][q / 2], 0);
}

INLINE lanes choose(whole first, lanes one, lanes other) {
    return (lanes)((first & (whole)one) | (~first & (whole)other));
}

/* Writes all LANES numbers, of which those beyond the channels are to be overwritten. */
static inline void pool(const lanes *sums, bf16 *y, uint8_t *which) {
    lanes most = sums[0];
    whole place = {0};
    for (int q = 1; q < 4; q++) {
        const whole larger = ~(sums[q] <= most) & (most == most);
        most = choose(larger, sums[q], most);
        place = (larger & q) | (~larger & place);
    }
    const whole closed = most <= 0, bits = ~closed & (whole)most;
    const whole rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* as narrow() does */
    *(halves *)y = __builtin_convertvector(rounded, halves);
    *(bytes *)which = __builtin_convertvector((closed & CLOSED) | (~closed & place), bytes);
}

/* Loops whose length is known when they are compiled keep their sums in registers. */
#define FOR_MANY(call)                                                                                                 \
    switch (many) {                                                                                                    \
    case 1: { enum { M = 1 }; call; break; }                                                                           \
    case 2: { enum { M = 2 }; call; break; }                                                                           \
    case 3: { enum { M = 3 }; call; break; }                                                                           \
    case 4: { enum { M = 4 }; call; break; }                                                                           \
    case 5: { enum { M = 5 }; call; break; }                                                                           \
    }

/* y = relu(pool(convolution of x)). Returns 0, or 1 where memory ran out. */
int forward(const bf16 *x, const float *weight, const float *bias, bf16 *y, uint8_t *which, size images, size height,
            size width, size in, size out, size padding, int threads) {
    const shape s = shape_of(height, width, in, out, padding);
    const size taps = SIDE * s.taps, row_length = s.across * out;
    lanes *filters = calloc(taps + 1, sizeof(lanes)), *biases = filters ? filters + taps : NULL;
    if (!filters) return 1;
    const int each = out <= LANES / 2 ? 2 : 1; /* outputs that share the lanes */
    for (size lane = 0; lane < out * each; lane++) {
        const size c = lane / each;
        for (size tap = 0; tap < taps; tap++) filters[tap][lane] = weight[c * taps + tap];
        if (bias) (*biases)[lane] = bias[c];
    }
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *wide = calloc(3 * padded(s), sizeof(float)), *beside = wide + padded(s);
        bf16 *values = malloc((row_length + LANES) * (sizeof(bf16) + 1));
        uint8_t *places = (uint8_t *)(values + row_length + LANES);
        failed = !wide || !values;
#pragma omp for schedule(static)
        for (size image = 0; image < images; image++) {
            if (failed) continue;
            pad(x + image * height * width * in, wide, s);
            for (size i = 0; each == 2 && i < padded(s) - in; i++)
                beside[2 * i] = wide[i], beside[2 * i + 1] = wide[i + in];
            for (size i = 0; i < s.down; i++) {
                const size groups = (s.across + GROUP - 1) / GROUP;
                for (size group = 0; group < groups; group++) {
                    const size first = s.across * group / groups, many = s.across * (group + 1) / groups - first;
                    const size from = 2 * (i * s.line + first * in);
                    lanes sums[GROUP][4];
                    FOR_MANY(if (each == 2) convolve_pairs((pair *)beside + from, filters, *biases, sums, s, M);
                             else convolve(wide + from, filters, *biases, sums, s, M))
                    for (size m = 0; m < many; m++)
                        pool(sums[m], values + (first + m) * out, places + (first + m) * out);
                }
                memcpy(y + (image * s.down + i) * row_length, values, row_length * sizeof(bf16));
                memcpy(which + (image * s.down + i) * row_length, places, row_length);
            }
        }
        free(wide), free(values);
    }
    free(filters);
    return failed;
}

/* Adds to the gradients of a channel's filter [SIDE, vectors] and bias what an image gives. */
INLINE void add_to_filter(lanes *of_filter, float *of_bias, const bf16 *gradient, const uint8_t *which, const float *x,
                          shape s, const int vectors) {
    const size of_place[CLOSED + 1] = {0, s.in, s.line, s.line + s.in, 0};
    lanes sum[SIDE][2] = {0};
    for (size i = 0; i < s.down; i++)
        for (size j = 0; j < s.across; j++, gradient += s.out, which += s.out) {
            const float g = *which == CLOSED ? 0 : widen(*gradient);
            const float *from = x + 2 * (i * s.line + j * s.in) + of_place[*which];
            UNROLLED for (int row = 0; row < SIDE; row++) UNROLLED for (int v = 0; v < vectors; v++)
                sum[row][v] += g * *(const lanes *)(from + row * s.line + v * LANES);
            *of_bias += g;
        }
    UNROLLED for (int row = 0; row < SIDE; row++) UNROLLED for (int v = 0; v < vectors; v++)
        of_filter[row * vectors + v] += sum[row][v];
}

/* Each filter twice, with zeros around it: for the left outputs of a window and for the right ones, which begin a
   pixel later. For the lower outputs it is read from a line above on. NULL where memory ran out. */
#define WIDE (REACH * LANES)
#define LINES ((SIDE + 2) * WIDE)
static float *widened(const float *weight, shape s) {
    const size all = 2 * s.out * LINES * sizeof(float);
    float *filters = aligned_alloc(sizeof(lanes), all);
    if (!filters) return NULL;
    memset(filters, 0, all);
    for (size c = 0; c < s.out; c++)
        for (size right = 0; right < 2; right++)
            for (size row = 0; row < SIDE; row++)
                memcpy(filters + (2 * c + right) * LINES + (row + 1) * WIDE + right * s.in,
                       weight + (c * SIDE + row) * s.taps, s.taps * sizeof(float));
    return filters;
}

/* Adds to the gradient of the input what a window gives: of each channel the filter, where the largest output was. */
static void add_to_input(float *of_x, const bf16 *gradient, const uint8_t *which, const float *filters, shape s) {
    static const size of_place[CLOSED + 1] = {WIDE, LINES + WIDE, 0, LINES, 0};
    lanes sum[SIDE + 1][REACH] = {0};
    for (size c = 0; c < s.out; c++) {
        const float g = which[c] == CLOSED ? 0 : widen(gradient[c]), *filter = filters + 2 * c * LINES + of_place[which[c]];
        UNROLLED for (int row = 0; row <= SIDE; row++) UNROLLED for (int v = 0; v < REACH; v++)
            sum[row][v] += g * *(const lanes *)(filter + row * WIDE + v * LANES);
    }
    UNROLLED for (int row = 0; row <= SIDE; row++) UNROLLED for (int v = 0; v < REACH; v++)
        *(lanes *)(of_x + row * s.line + v * LANES) += sum[row][v];
}

/* The gradients of x (unless of_x is NULL), of the filters and of the bias. Returns 0, or 1 where memory ran out. */
int backward(const bf16 *gradient, const uint8_t *which, const bf16 *x, const float *weight, bf16 *of_x,
             float *of_weight, float *of_bias, size images, size height, size width, size in, size out, size padding,
             int threads) {
    const shape s = shape_of(height, width, in, out, padding);
    const size windows = s.down * s.across, vectors = (s.taps + LANES - 1) / LANES;
    float *filters = widened(weight, s);
    memset(of_weight, 0, out * SIDE * s.taps * sizeof(float));
    memset(of_bias, 0, out * sizeof(float));
    int failed = !filters;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *wide = calloc(2 * padded(s), sizeof(float)), *of_wide = wide + padded(s);
        lanes *of_filters = calloc(out * SIDE * vectors + 1, sizeof(lanes));
        float *of_biases = (float *)(of_filters + out * SIDE * vectors);
        failed |= !wide || !of_filters;
#pragma omp for schedule(static)
        for (size image = 0; image < images; image++) {
            if (failed) continue;
            const bf16 *its = gradient + image * windows * out;
            const uint8_t *places = which + image * windows * out;
            pad(x + image * height * width * in, wide, s);
            for (size c = 0; c < out; c++) {
                lanes *of_filter = of_filters + c * SIDE * vectors;
                if (vectors == 1) add_to_filter(of_filter, of_biases + c, its + c, places + c, wide, s, 1);
                else add_to_filter(of_filter, of_biases + c, its + c, places + c, wide, s, 2);
            }
            if (!of_x) continue;
            memset(of_wide, 0, padded(s) * sizeof(float));
            for (size i = 0; i < s.down; i++)
                for (size j = 0; j < s.across; j++, its += out, places += out)
                    add_to_input(of_wide + 2 * (i * s.line + j * in), its, places, filters, s);
            for (size row = 0; row < height; row++) {
                const float *from = of_wide + (row + padding) * s.line + padding * in;
                bf16 *to = of_x + (image * height + row) * width * in;
                for (size i = 0; i < width * in; i++) to[i] = narrow(from[i]);
            }
        }
        for (int turn = 0; turn < omp_get_num_threads(); turn++) { /* in order, so that sums are the same again */
            if (turn == omp_get_thread_num() && !failed)
                for (size c = 0; c < out; c++) {
                    of_bias[c] += of_biases[c];
                    for (size row = 0; row < SIDE; row++)
                        for (size tap = 0; tap < s.taps; tap++)
                            of_weight[(c * SIDE + row) * s.taps + tap] +=
                                ((float *)(of_filters + (c * SIDE + row) * vectors))[tap];
                }
#pragma omp barrier
        }
        free(wide), free(of_filters);
    }
    free(filters);
    return failed;
}
