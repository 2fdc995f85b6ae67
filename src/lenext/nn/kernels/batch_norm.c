/* Batch normalisation with what follows it, ReLU or an addition and ReLU, in two passes over memory each way.

   Arrays are bfloat16 [rows, channels], a row being one pixel of one image (channels-last); statistics and parameters
   are float32 [channels]. Few channels are no good to long vectors: then several rows are taken for one. Sums run in
   float32 over a few rows, in float64 beyond, and are added up in the threads' order, so that they are the same to the
   last bit. NaN passes through ReLU: a run that breaks is to be seen to break. */

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "bf16.h"

enum following { NOTHING, RELU, ADDITION_AND_RELU };

#define WIDE 512  /* numbers in a row from which on rows are taken one by one */
#define BLOCK 128 /* rows, before sums go from float32 to float64 */

static inline float relu(float x) { return x < 0 ? 0 : x; }
static inline float gate(float gradient, float output) { return output <= 0 ? 0 : gradient; }

/* How many rows are taken for one. */
static size together(size rows, size channels) {
    size n = 1;
    while (2 * n * channels <= WIDE && rows % (2 * n) == 0) n *= 2;
    return n;
}

/* Repeats the numbers [channels] until there are `times` as many, in place. */
static void repeat(float *numbers, size channels, size times) {
    for (size i = channels; i < channels * times; i++) numbers[i] = numbers[i - channels];
}

static void share_of_thread(size rows, size *first, size *last) {
    size thread = omp_get_thread_num(), threads = omp_get_num_threads();
    *first = rows * thread / threads;
    *last = rows * (thread + 1) / threads;
}

/* Adds what this thread has summed, float64 [2, wide], to sums float64 [2, channels]; the threads take turns. */
static void collect(double *sums, const double *own, size channels, size wide) {
    for (int turn = 0; turn < omp_get_num_threads(); turn++) {
        if (turn == omp_get_thread_num())
            for (size i = 0; i < wide; i++) {
                sums[i % channels] += own[i];
                sums[channels + i % channels] += own[wide + i];
            }
#pragma omp barrier
    }
}

static void flush(double *to, float *from, size n) {
    for (size i = 0; i < n; i++) {
        to[i] += from[i];
        from[i] = 0;
    }
}

/* y = following(normalised x). Returns 0, or 1 where memory ran out.

   mean and inverse (1 / standard deviation) are set to those of the batch, the running ones are moved towards them. */
int forward(const bf16 *x, const bf16 *residual, bf16 *y, size rows, size channels, const float *weight,
            const float *bias, float *running_mean, float *running_var, float momentum, float eps, size following,
            float *mean, float *inverse, int threads) {
    const size pixels = rows, n = together(rows, channels), wide = n * channels;
    rows /= n;
    float *scale = malloc(3 * wide * sizeof(float)), *offset = scale + wide, *shift = offset + wide;
    double *sums = calloc(2 * channels, sizeof(double));
    int failed = !scale || !sums;
    if (failed) goto end;

    /* Squares of differences from about the mean do not cancel */
    for (size c = 0; c < channels; c++) shift[c] = running_mean[c];
    repeat(shift, channels, n);
#pragma omp parallel num_threads(threads) reduction(|| : failed)
    {
        size first, last;
        share_of_thread(rows, &first, &last);
        float *sum = calloc(2 * wide, sizeof(float)), *square = sum + wide;
        double *own = calloc(2 * wide, sizeof(double));
        failed = !sum || !own;
        if (!failed)
            for (size row = first; row < last;) {
                size end = row + BLOCK < last ? row + BLOCK : last;
                for (; row + 4 <= end; row += 4) {
                    const bf16 *a = x + row * wide, *b = a + wide, *c = b + wide, *d = c + wide;
#pragma omp simd
                    for (size i = 0; i < wide; i++) {
                        float p = widen(a[i]) - shift[i], q = widen(b[i]) - shift[i];
                        float r = widen(c[i]) - shift[i], s = widen(d[i]) - shift[i];
                        sum[i] += (p + q) + (r + s);
                        square[i] += (p * p + q * q) + (r * r + s * s);
                    }
                }
                for (; row < end; row++) {
                    const bf16 *a = x + row * wide;
#pragma omp simd
                    for (size i = 0; i < wide; i++) {
                        float p = widen(a[i]) - shift[i];
                        sum[i] += p;
                        square[i] += p * p;
                    }
                }
                flush(own, sum, 2 * wide);
            }
        collect(sums, own, channels, failed ? 0 : wide);
        free(sum);
        free(own);
    }
    if (failed) goto end;

    for (size c = 0; c < channels; c++) {
        double moved = sums[c] / pixels, variance = fmax(0.0, sums[channels + c] / pixels - moved * moved);
        if (isnan(sums[channels + c])) variance = NAN; /* which fmax drops */
        double average = moved + shift[c];
        mean[c] = average;
        inverse[c] = 1 / sqrt(variance + eps);
        scale[c] = weight[c] * inverse[c];
        offset[c] = bias[c] - mean[c] * scale[c];
        running_mean[c] += momentum * (average - running_mean[c]);
        running_var[c] += momentum * (variance * pixels / (pixels - 1) - running_var[c]);
    }
    repeat(scale, channels, n);
    repeat(offset, channels, n);
#pragma omp parallel num_threads(threads)
    {
        size first, last;
        share_of_thread(rows, &first, &last);
        for (size row = first; row < last; row++) {
            const bf16 *in = x + row * wide;
            bf16 *out = y + row * wide;
            if (following == ADDITION_AND_RELU) {
                const bf16 *other = residual + row * wide;
#pragma omp simd
                for (size i = 0; i < wide; i++)
                    out[i] = narrow(relu(widen(in[i]) * scale[i] + offset[i] + widen(other[i])));
            } else if (following == RELU) {
#pragma omp simd
                for (size i = 0; i < wide; i++) out[i] = narrow(relu(widen(in[i]) * scale[i] + offset[i]));
            } else {
#pragma omp simd
                for (size i = 0; i < wide; i++) out[i] = narrow(widen(in[i]) * scale[i] + offset[i]);
            }
        }
    }
end:
    free(scale);
    free(sums);
    return failed;
}

/* The gradients of `forward`: of x, weight and bias, and of the residual. Returns 0, or 1 where memory ran out.

   y is read where a residual was added; elsewhere where ReLU was open is computed from x again. */
int backward(const bf16 *gradient, const bf16 *x, const bf16 *y, bf16 *of_x, bf16 *of_residual, size rows,
             size channels, const float *weight, const float *bias, const float *mean, const float *inverse,
             size following, float *of_weight, float *of_bias, int threads) {
    const size pixels = rows, n = together(rows, channels), wide = n * channels;
    rows /= n;
    float *scale = malloc(5 * wide * sizeof(float)), *offset = scale + wide, *centre = offset + wide;
    float *slope = centre + wide, *level = slope + wide;
    double *sums = calloc(2 * channels, sizeof(double));
    int failed = !scale || !sums;
    if (failed) goto end;

    for (size c = 0; c < channels; c++) {
        scale[c] = weight[c] * inverse[c];
        offset[c] = bias[c] - mean[c] * scale[c];
        centre[c] = mean[c];
    }
    repeat(scale, channels, n);
    repeat(offset, channels, n);
    repeat(centre, channels, n);
#pragma omp parallel num_threads(threads) reduction(|| : failed)
    {
        size first, last;
        share_of_thread(rows, &first, &last);
        float *sum = calloc(2 * wide, sizeof(float)), *product = sum + wide;
        double *own = calloc(2 * wide, sizeof(double));
        failed = !sum || !own;
        if (!failed)
            for (size row = first; row < last; row++) {
                const bf16 *g = gradient + row * wide, *in = x + row * wide;
                if (following == ADDITION_AND_RELU) {
                    const bf16 *out = y + row * wide;
                    bf16 *passed = of_residual + row * wide;
#pragma omp simd
                    for (size i = 0; i < wide; i++) {
                        float open = gate(widen(g[i]), widen(out[i]));
                        passed[i] = narrow(open);
                        sum[i] += open;
                        product[i] += open * (widen(in[i]) - centre[i]);
                    }
                } else if (following == RELU) {
#pragma omp simd
                    for (size i = 0; i < wide; i++) {
                        float value = widen(in[i]), open = gate(widen(g[i]), value * scale[i] + offset[i]);
                        sum[i] += open;
                        product[i] += open * (value - centre[i]);
                    }
                } else {
#pragma omp simd
                    for (size i = 0; i < wide; i++) {
                        float open = widen(g[i]);
                        sum[i] += open;
                        product[i] += open * (widen(in[i]) - centre[i]);
                    }
                }
                if ((row + 1 - first) % BLOCK == 0 || row + 1 == last) flush(own, sum, 2 * wide);
            }
        collect(sums, own, channels, failed ? 0 : wide);
        free(sum);
        free(own);
    }
    if (failed) goto end;

    /* of_x = scale (g - mean(g) - (x - mean) / variance * mean(g (x - mean))), a straight line in g and x */
    for (size c = 0; c < channels; c++) {
        of_bias[c] = sums[c];
        of_weight[c] = sums[channels + c] * inverse[c];
        slope[c] = -scale[c] * inverse[c] * inverse[c] * sums[channels + c] / pixels;
        level[c] = -scale[c] * sums[c] / pixels - slope[c] * mean[c];
    }
    repeat(slope, channels, n);
    repeat(level, channels, n);
    const bf16 *let_through = following == ADDITION_AND_RELU ? of_residual : gradient;
#pragma omp parallel num_threads(threads)
    {
        size first, last;
        share_of_thread(rows, &first, &last);
        for (size row = first; row < last; row++) {
            const bf16 *g = let_through + row * wide, *in = x + row * wide;
            bf16 *out = of_x + row * wide;
            if (following == RELU) {
#pragma omp simd
                for (size i = 0; i < wide; i++) {
                    float value = widen(in[i]), open = gate(widen(g[i]), value * scale[i] + offset[i]);
                    out[i] = narrow(open * scale[i] + (value * slope[i] + level[i]));
                }
            } else {
#pragma omp simd
                for (size i = 0; i < wide; i++)
                    out[i] = narrow(widen(g[i]) * scale[i] + (widen(in[i]) * slope[i] + level[i]));
            }
        }
    }
end:
    free(scale);
    free(sums);
    return failed;
}
