/* The element-wise work of a Llama's training step on a CPU, in bfloat16 with float32 arithmetic; matrix products
 * are PyTorch's. A row is always summed in one order by one thread, so the thread count changes no bit.
 *
 * Tokens of all stories lie one after another (token, width), without padding. Attention alone works on padded
 * stories, (story, key head or "group", position, query heads that share it, head width): the query heads of a group are
 * rows of one product, and the positions before a given one are a slice.
 */
#include <malloc.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef uint16_t bf16;
typedef int64_t len;

static inline float up(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline bf16 down(float x) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* e^x for x <= 0 to 3e-7: x = n ln 2 + r, |r| <= ln 2 / 2, Taylor's series in r. A call of expf would not vectorise. */
static inline float exp_(float x) {
    x = x < -87.0f ? -87.0f : x; /* so that NaN stays NaN */
    float n = rintf(x * 1.44269504f);
    float r = fmaf(n, -0.693145752f, x);
    r = fmaf(n, -1.42860677e-6f, r);
    float p = 1.0f / 720;
    p = fmaf(p, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

static inline float sigmoid(float x) {
    float e = exp_(-fabsf(x));
    return (x >= 0 ? 1.0f : e) / (1.0f + e);
}

static inline float inverse_rms(const bf16 *x, len width, float eps) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (len i = 0; i < width; i++) squares += up(x[i]) * up(x[i]);
    return 1.0f / sqrtf(squares / width + eps);
}

/* sum = x + delta (delta and sum may be null), y = RMSNorm(sum) * weight. Zhang and Sennrich 2019, eq. 4. */
void add_norm(const bf16 *x, const bf16 *delta, const float *weight, bf16 *sum, bf16 *y, len rows, len width, float eps) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) {
        const bf16 *in = x + row * width;
        bf16 *out = y + row * width;
        if (delta) {
            const bf16 *more = delta + row * width;
            bf16 *both = sum + row * width;
#pragma omp simd
            for (len i = 0; i < width; i++) both[i] = down(up(in[i]) + up(more[i]));
            in = both;
        }
        float scale = inverse_rms(in, width, eps);
#pragma omp simd
        for (len i = 0; i < width; i++) out[i] = down(up(in[i]) * scale * weight[i]);
    }
}

/* dx += the gradient of RMSNorm(x) * weight, given dy. */
void norm_backward(const bf16 *dy, const bf16 *x, const float *weight, bf16 *dx, len rows, len width, float eps) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) {
        const bf16 *in = x + row * width, *slope = dy + row * width;
        bf16 *out = dx + row * width;
        float scale = inverse_rms(in, width, eps), along = 0;
#pragma omp simd reduction(+ : along)
        for (len i = 0; i < width; i++) along += up(slope[i]) * weight[i] * up(in[i]);
        along *= scale * scale / width;
#pragma omp simd
        for (len i = 0; i < width; i++)
            out[i] = down(up(out[i]) + scale * (up(slope[i]) * weight[i] - up(in[i]) * along));
    }
}

/* One head turned by its position's angles: Su et al. 2021, in the half-split layout of Llama's checkpoints. */
static inline void turn(const bf16 *x, bf16 *y, const float *cosine, const float *sine, float way, len half) {
#pragma omp simd
    for (len i = 0; i < half; i++) {
        float a = up(x[i]), b = up(x[i + half]);
        y[i] = down(a * cosine[i] - way * b * sine[i]);
        y[i + half] = down(b * cosine[i] + way * a * sine[i]);
    }
}

/* (token, q heads | k heads | v heads) -> padded and turned q, k and padded v; padding is zero. */
void split_heads(const bf16 *qkv, const float *cosine, const float *sine, const len *starts, len stories, len padded,
                 len groups, len shared, len head, bf16 *q, bf16 *k, bf16 *v) {
    len all = (shared + 2) * groups * head, wide = shared * head;
#pragma omp parallel for collapse(2)
    for (len story = 0; story < stories; story++)
        for (len at = 0; at < padded; at++) {
            len token = starts[story] + at, there = token < starts[story + 1];
            const bf16 *row = qkv + token * all;
            const float *c = cosine + at * head / 2, *s = sine + at * head / 2;
            for (len group = 0; group < groups; group++) {
                len slot = (story * groups + group) * padded + at;
                if (!there) {
                    memset(q + slot * wide, 0, wide * sizeof(bf16));
                    memset(k + slot * head, 0, head * sizeof(bf16));
                    memset(v + slot * head, 0, head * sizeof(bf16));
                    continue;
                }
                for (len one = 0; one < shared; one++)
                    turn(row + group * wide + one * head, q + slot * wide + one * head, c, s, 1, head / 2);
                turn(row + groups * wide + group * head, k + slot * head, c, s, 1, head / 2);
                memcpy(v + slot * head, row + groups * (wide + head) + group * head, head * sizeof(bf16));
            }
        }
}

/* The gradients of q, k, v -> that of qkv: split_heads backwards. */
void split_heads_backward(const bf16 *dq, const bf16 *dk, const bf16 *dv, const float *cosine, const float *sine,
                          const len *starts, len stories, len padded, len groups, len shared, len head, bf16 *dqkv) {
    len all = (shared + 2) * groups * head, wide = shared * head;
#pragma omp parallel for collapse(2)
    for (len story = 0; story < stories; story++)
        for (len at = 0; at < padded; at++) {
            len token = starts[story] + at;
            if (token >= starts[story + 1]) continue;
            bf16 *row = dqkv + token * all;
            const float *c = cosine + at * head / 2, *s = sine + at * head / 2;
            for (len group = 0; group < groups; group++) {
                len slot = (story * groups + group) * padded + at;
                for (len one = 0; one < shared; one++)
                    turn(dq + slot * wide + one * head, row + group * wide + one * head, c, s, -1, head / 2);
                turn(dk + slot * head, row + groups * wide + group * head, c, s, -1, head / 2);
                memcpy(row + groups * (wide + head) + group * head, dv + slot * head, head * sizeof(bf16));
            }
        }
}

/* (story, group, position, wide) <-> (token, group, wide); in the padded form, padding becomes zero. */
void move_heads(bf16 *padded_form, bf16 *flat, const len *starts, len stories, len padded, len groups, len wide,
                len to_flat) {
#pragma omp parallel for collapse(2)
    for (len story = 0; story < stories; story++)
        for (len at = 0; at < padded; at++) {
            len token = starts[story] + at, there = token < starts[story + 1];
            for (len group = 0; group < groups; group++) {
                bf16 *slot = padded_form + ((story * groups + group) * padded + at) * wide;
                bf16 *row = flat + (token * groups + group) * wide;
                if (there) memcpy(to_flat ? row : slot, to_flat ? slot : row, wide * sizeof(bf16));
                else if (!to_flat) memset(slot, 0, wide * sizeof(bf16));
            }
        }
}

/* Scores of the positions from `first` to `last` (story, group, position, head, last) -> what each attends to:
 * itself and those before, in place. `last` is a multiple of BLOCK: loops run over whole vectors, and what is not
 * seen weighs nothing. */
#define BLOCK 32
void causal_softmax(bf16 *scores, const len *starts, len stories, len groups, len shared, len first, len last,
                    float scale) {
#pragma omp parallel
    {
        float *e = malloc(last * sizeof(float));
#pragma omp for collapse(2) schedule(static, BLOCK)
        for (len block = 0; block < stories * groups; block++)
            for (len row = 0; row < (last - first) * shared; row++) {
                len story = block / groups, at = first + row / shared;
                int seen = starts[story] + at < starts[story + 1] ? at + 1 : 0;
                int whole = (seen + BLOCK - 1) / BLOCK * BLOCK;
                bf16 *x = scores + (block * (last - first) * shared + row) * last;
                float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
                for (int i = 0; i < whole; i++) {
                    float score = i < seen ? up(x[i]) * scale : -INFINITY;
                    e[i] = score;
                    most = most < score ? score : most;
                }
#pragma omp simd reduction(+ : sum)
                for (int i = 0; i < whole; i++) {
                    float share = exp_(e[i] - most);
                    e[i] = share;
                    sum += share;
                }
                float part = 1.0f / sum;
#pragma omp simd
                for (int i = 0; i < whole; i++) x[i] = down(e[i] * part);
                memset(x + seen, 0, (last - seen) * sizeof(bf16));
            }
        free(e);
    }
}

/* Given what causal_softmax made and the gradient for it, the gradient for the raw scores, in place of the latter. */
void causal_softmax_backward(const bf16 *attention, bf16 *slope, const len *starts, len stories, len groups, len shared,
                             len first, len last, float scale) {
#pragma omp parallel for collapse(2) schedule(static, BLOCK)
    for (len block = 0; block < stories * groups; block++)
        for (len row = 0; row < (last - first) * shared; row++) {
            len story = block / groups, at = first + row / shared;
            len seen = starts[story] + at < starts[story + 1] ? at + 1 : 0;
            len whole = (seen + BLOCK - 1) / BLOCK * BLOCK;
            const bf16 *a = attention + (block * (last - first) * shared + row) * last;
            bf16 *d = slope + (block * (last - first) * shared + row) * last;
            float mean = 0;
#pragma omp simd reduction(+ : mean)
            for (len i = 0; i < whole; i++) mean += up(a[i]) * up(d[i]);
#pragma omp simd
            for (len i = 0; i < whole; i++) d[i] = down(up(a[i]) * (up(d[i]) - mean) * scale);
            memset(d + whole, 0, (last - whole) * sizeof(bf16));
        }
}

/* (token, gate | up) -> silu(gate) * up. Shazeer 2020. */
void swiglu(const bf16 *gate_up, bf16 *y, len rows, len width) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) {
        const bf16 *g = gate_up + row * 2 * width, *u = g + width;
        bf16 *out = y + row * width;
#pragma omp simd
        for (len i = 0; i < width; i++) out[i] = down(up(g[i]) * sigmoid(up(g[i])) * up(u[i]));
    }
}

/* In place: gate_up -> its gradient; dy -> y, which the gradient of the next projection's adapter needs. */
void swiglu_backward(bf16 *gate_up, bf16 *dy, len rows, len width) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) {
        bf16 *g = gate_up + row * 2 * width, *u = g + width, *d = dy + row * width;
#pragma omp simd
        for (len i = 0; i < width; i++) {
            float gate = up(g[i]), upper = up(u[i]), slope = up(d[i]), s = sigmoid(gate), silu = gate * s;
            d[i] = down(silu * upper);
            g[i] = down(slope * upper * s * (1 + gate * (1 - s)));
            u[i] = down(slope * silu);
        }
    }
}

/* NLL of each row's target, in nats; logits become scale * (softmax - one-hot), the gradient, in place. */
void cross_entropy(bf16 *logits, const len *targets, float *nll, len rows, len width, float scale) {
#pragma omp parallel
    {
        float *e = malloc(width * sizeof(float));
#pragma omp for
        for (len row = 0; row < rows; row++) {
            bf16 *x = logits + row * width;
            float most = -INFINITY, sum = 0, picked = up(x[targets[row]]);
#pragma omp simd reduction(max : most)
            for (len i = 0; i < width; i++) most = most < up(x[i]) ? up(x[i]) : most;
#pragma omp simd reduction(+ : sum)
            for (len i = 0; i < width; i++) sum += e[i] = exp_(up(x[i]) - most);
            nll[row] = logf(sum) + most - picked;
            float part = scale / sum;
#pragma omp simd
            for (len i = 0; i < width; i++) x[i] = down(e[i] * part);
            x[targets[row]] = down(e[targets[row]] * part - scale);
        }
        free(e);
    }
}

/* LoRA's thin products, in float32: PyTorch's are made for wide ones. Ranks are padded to whole vectors. */
#define LANES 16
#define ROWS 8
#define TILE 256
typedef float vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef uint16_t half_vec __attribute__((vector_size(LANES * 2), aligned(2)));
typedef uint32_t bits_vec __attribute__((vector_size(LANES * 4)));

static inline vec up_vec(const bf16 *x) {
    bits_vec bits = __builtin_convertvector(*(const half_vec *)x, bits_vec) << 16;
    return (vec)bits;
}

static inline void down_vec(vec x, bf16 *y) {
    bits_vec bits = (bits_vec)x;
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(half_vec *)y = __builtin_convertvector(bits, half_vec);
}

/* low = factor * x m: (rows, width), (width, rank) -> (rows, rank). x has rows of `stride`. */
void project(const bf16 *x, len stride, const float *m, float *low, len rows, len width, len rank, float factor) {
#pragma omp parallel for
    for (len row = 0; row < rows; row += ROWS) {
        len there = rows - row < ROWS ? rows - row : ROWS;
        float tile[ROWS][TILE];
        for (len r = 0; r < rank; r += LANES) {
            vec sum[ROWS] = {0};
            for (len start = 0; start < width; start += TILE) {
                len end = width - start < TILE ? width - start : TILE;
                for (len j = 0; j < ROWS; j++) {
                    const bf16 *from = x + (row + (j < there ? j : 0)) * stride + start;
#pragma omp simd
                    for (len i = 0; i < end; i++) tile[j][i] = up(from[i]);
                }
                const float *part = m + start * rank + r;
                for (len i = 0; i < end; i++) {
                    vec column = *(const vec *)(part + i * rank);
                    for (len j = 0; j < ROWS; j++) sum[j] += tile[j][i] * column;
                }
            }
            for (len j = 0; j < there; j++) *(vec *)(low + (row + j) * rank + r) = factor * sum[j];
        }
    }
}

/* y += low m: (rows, rank), (rank, width) -> (rows, width), in rows of `stride`; width is a multiple of LANES. */
void expand(const float *low, const float *m, bf16 *y, len stride, len rows, len width, len rank) {
#pragma omp parallel for
    for (len row = 0; row < rows; row += 4 * ROWS) {
        len last = rows - row < 4 * ROWS ? rows : row + 4 * ROWS;
        for (len r = 0; r < rank; r += LANES)
            for (len i = 0; i < width; i += LANES) {
                vec weights[LANES];
                for (len l = 0; l < LANES; l++) weights[l] = *(const vec *)(m + (r + l) * width + i);
                for (len at = row; at < last; at++) {
                    vec even = up_vec(y + at * stride + i), odd = {0};
                    const float *factors = low + at * rank + r;
                    for (len l = 0; l < LANES; l += 2) {
                        even += factors[l] * weights[l];
                        odd += factors[l + 1] * weights[l + 1];
                    }
                    down_vec(even + odd, y + at * stride + i);
                }
            }
    }
}

/* gradient += low' x: (rows, rank), (rows, width) -> (kept of rank, width), or its transpose; a column of the
 * gradient belongs to one thread, which adds the rows in their order. */
void outer(const float *low, const bf16 *x, len stride, float *gradient, len rows, len width, len rank, len kept,
           len transpose) {
#pragma omp parallel for collapse(2)
    for (len r = 0; r < rank; r += LANES)
        for (len i = 0; i < width; i += LANES) {
            vec sum[LANES] = {0};
            for (len row = 0; row < rows; row++) {
                vec column = up_vec(x + row * stride + i);
                const float *factors = low + row * rank + r;
                for (len l = 0; l < LANES; l++) sum[l] += factors[l] * column;
            }
            for (len l = 0; l < LANES && r + l < kept; l++) {
                if (transpose) for (len c = 0; c < LANES; c++) gradient[(i + c) * kept + r + l] += sum[l][c];
                else *(vec *)(gradient + (r + l) * width + i) += sum[l];
            }
        }
}

/* Memory for a step's tensors that is asked for once: glibc would give freed megabytes back to the system and get
 * them again as empty pages at every step, and small pages cost a tenth of the time in address look-ups. */
void keep_memory(len bytes) {
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
    char *heap = malloc(bytes);
    if (!heap) return;
    uintptr_t huge = 2 << 20, first = ((uintptr_t)heap + huge - 1) / huge * huge;
    madvise((void *)first, bytes - huge, MADV_HUGEPAGE);
    free(heap);
}
