/* What lies between the large products of a training step on a CPU: norms, attention, activations, the loss, and
 * LoRA's thin products. Values are bfloat16, sums float32. Tokens of all stories lie one after another (token, width),
 * without padding. A sum has one order and one thread, so the number of threads changes no bit.
 */
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
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

/* A vector is as wide as a register, and SUMS of them are summed at once: more would not fit beside what is multiplied,
 * fewer would wait for each other. Widths are whole numbers of 16. */
#ifdef __AVX512F__
#define LANES 16
#define SUMS 16
#else
#ifdef __AVX2__
#define LANES 8
#else
#define LANES 4
#endif
#define SUMS 8
#endif
/* bfloat16 comes in pairs, as processors multiply it: two neighbours of the summed dimension in a 32-bit lane. */
typedef float vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef uint16_t half_vec __attribute__((vector_size(LANES * 2), aligned(2)));
typedef uint32_t bits_vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef uint32_t pair __attribute__((aligned(2), may_alias));

static inline bits_vec widen(const bf16 *x) { return __builtin_convertvector(*(const half_vec *)x, bits_vec); }

static inline bits_vec interleaved(const bf16 *one, const bf16 *next) { return widen(one) | widen(next) << 16; }

static inline bits_vec all(const void *two) { return *(const pair *)two - (bits_vec){0}; }

/* sum + the products of both halves, lane by lane. */
static inline vec dot(vec sum, bits_vec x, bits_vec y) {
#ifdef __AVX512BF16__
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
#else
    return sum + (vec)(x << 16) * (vec)(y << 16) + (vec)(x & 0xffff0000) * (vec)(y & 0xffff0000);
#endif
}

static inline void down_vec(vec x, bf16 *y) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i *)y, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
    bits_vec bits = (bits_vec)x;
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(half_vec *)y = __builtin_convertvector(bits, half_vec);
#endif
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

/* RMSNorm(x) * weight. Zhang and Sennrich 2019, eq. 4. */
static inline void norm(const bf16 *x, const float *weight, bf16 *y, len width, float eps) {
    float scale = inverse_rms(x, width, eps);
#pragma omp simd
    for (len i = 0; i < width; i++) y[i] = down(up(x[i]) * scale * weight[i]);
}

/* sum = x + delta (delta and sum may be null), y = RMSNorm(sum) * weight. */
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
        norm(in, weight, out, width, eps);
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

/* x (token, q heads | k heads | v heads) -> y, RMSNorm over each of the first `normed` heads, those of q and k, by a weight
 * of its own; v as it is. Dehghani et al. 2023, as Qwen3 has it. */
void norm_heads(const bf16 *x, const float *weight, bf16 *y, len rows, len heads, len normed, len head, float eps) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) {
        const bf16 *in = x + row * heads * head;
        bf16 *out = y + row * heads * head;
        for (len i = 0; i < normed * head; i += head) norm(in + i, weight + i, out + i, head, eps);
        memcpy(out + normed * head, in + normed * head, (heads - normed) * head * sizeof(bf16));
    }
}

/* In place: dy, the gradient for y -> that for x. */
void norm_heads_backward(bf16 *dy, const bf16 *x, const float *weight, len rows, len heads, len normed, len head,
                         float eps) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) {
        const bf16 *in = x + row * heads * head;
        bf16 *slope = dy + row * heads * head;
        for (len first = 0; first < normed * head; first += head) {
            float scale = inverse_rms(in + first, head, eps), along = 0;
#pragma omp simd reduction(+ : along)
            for (len i = first; i < first + head; i++) along += up(slope[i]) * weight[i] * up(in[i]);
            along *= scale * scale / head;
#pragma omp simd
            for (len i = first; i < first + head; i++)
                slope[i] = down(scale * (up(slope[i]) * weight[i] - up(in[i]) * along));
        }
    }
}

/* One head turned by its position's angles: Su et al. 2021, in the half-split layout of Llama's checkpoints. */
static inline void turn(const bf16 *x, bf16 *y, const float *cosine, const float *sine, len half) {
#pragma omp simd
    for (len i = 0; i < half; i++) {
        float a = up(x[i]), b = up(x[i + half]);
        y[i] = down(a * cosine[i] - b * sine[i]);
        y[i + half] = down(b * cosine[i] + a * sine[i]);
    }
}

static inline void turn_back(const float *x, bf16 *y, const float *cosine, const float *sine, len half) {
#pragma omp simd
    for (len i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        y[i] = down(a * cosine[i] + b * sine[i]);
        y[i + half] = down(b * cosine[i] - a * sine[i]);
    }
}

static inline __attribute__((always_inline)) void tile(const char *a, len a_row, len a_step, const uint32_t *b, len b_step,
                                                       len steps, float *c, len c_row, int vectors, int add) {
    vec sum[4][SUMS / 4];
    for (int r = 0; r < 4; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = add ? *(vec *)(c + r * c_row + v * LANES) : (vec){0};
    for (len k = 0; k < steps; k++)
        for (int r = 0; r < 4; r++)
            for (int v = 0; v < vectors; v++)
                sum[r][v] = dot(sum[r][v], all(a + r * a_row + k * a_step), *(const bits_vec *)(b + k * b_step + v * LANES));
    for (int r = 0; r < 4; r++)
        for (int v = 0; v < vectors; v++) *(vec *)(c + r * c_row + v * LANES) = sum[r][v];
}

/* c = a b, or c += a b: (rows, 2 steps), (2 steps, columns) -> (rows, columns). A pair of `a` is found by its strides in
 * bytes, so that its rows may run either way; `b` is (steps, columns) pairs. Rows come in fours, columns in vectors. */
static void multiply(const void *a, len a_row, len a_step, const uint32_t *b, len b_step, len steps, float *c, len rows,
                     len columns, int add) {
    for (len j = 0, vectors; j < columns; j += vectors * LANES) {
        vectors = columns - j >= SUMS / 4 * LANES ? SUMS / 4 : columns - j >= 2 * LANES ? 2 : 1;
        for (len i = 0; i < rows; i += 4) {
            const char *from = (const char *)a + i * a_row;
            float *to = c + i * columns + j;
            if (vectors == SUMS / 4) tile(from, a_row, a_step, b + j, b_step, steps, to, columns, SUMS / 4, add);
            else if (vectors == 2) tile(from, a_row, a_step, b + j, b_step, steps, to, columns, 2, add);
            else tile(from, a_row, a_step, b + j, b_step, steps, to, columns, 1, add);
        }
    }
}

/* (rows, columns) -> (rows / 2, columns) pairs; rows are even. */
static void by_rows(const bf16 *x, uint32_t *pairs, len rows, len columns) {
    for (len row = 0; row < rows; row += 2)
        for (len i = 0; i < columns; i += LANES)
            *(bits_vec *)(pairs + row / 2 * columns + i) = interleaved(x + row * columns + i, x + (row + 1) * columns + i);
}

/* (rows, columns) -> (columns / 2, rows) pairs, of which each row of pairs begins `step` after the one before. */
static void transposed(const bf16 *x, uint32_t *pairs, len step, len rows, len columns) {
    for (len row = 0; row < rows; row++)
        for (len i = 0; i < columns; i += 2) pairs[i / 2 * step + row] = *(const pair *)(x + row * columns + i);
}

/* Causal attention of stories one after another. A story's query heads that share a key head, its "group", are rows of
 * one product, (position, head); a block of positions attends to the positions up to its end. */
#define BLOCK 16
typedef struct {
    len groups, shared, head, token; /* the story's first token */
    len length, whole;               /* of the story, and in whole blocks */
    const float *cosine, *sine;      /* (position, half a head) */
} story;

static inline len block_rows(const story *s, len first) {
    return (s->length - first < BLOCK ? s->length - first : BLOCK) * s->shared;
}

static inline len fours(len rows) { return (rows + 3) / 4 * 4; }

/* Probabilities of a group: for each block (its positions x heads, positions up to its end). */
static inline len before(const story *s, len first) { return s->shared * first * (first + BLOCK) / 2; }

static void gather(const story *s, const bf16 *qkv, len group, bf16 *k, bf16 *v) {
    len row = (s->shared + 2) * s->groups * s->head, at = s->groups * s->shared * s->head + group * s->head;
    for (len i = 0; i < s->length; i++) {
        const bf16 *from = qkv + (s->token + i) * row + at;
        turn(from, k + i * s->head, s->cosine + i * s->head / 2, s->sine + i * s->head / 2, s->head / 2);
        memcpy(v + i * s->head, from + s->groups * s->head, s->head * sizeof(bf16));
    }
    len rest = (s->whole - s->length) * s->head;
    memset(k + s->length * s->head, 0, rest * sizeof(bf16));
    memset(v + s->length * s->head, 0, rest * sizeof(bf16));
}

static void gather_queries(const story *s, const bf16 *qkv, len group, len first, bf16 *q) {
    len rows = block_rows(s, first), row = (s->shared + 2) * s->groups * s->head;
    for (len i = 0; i < rows; i++) {
        len at = first + i / s->shared;
        turn(qkv + (s->token + at) * row + (group * s->shared + i % s->shared) * s->head, q + i * s->head,
             s->cosine + at * s->head / 2, s->sine + at * s->head / 2, s->head / 2);
    }
    memset(q + rows * s->head, 0, (fours(rows) - rows) * s->head * sizeof(bf16));
}

/* Scores of a row -> what its position attends to: itself and those before. */
static void softmax(float *score, bf16 *share, len seen, len columns, float scale) {
    len whole = (seen + LANES - 1) / LANES * LANES;
    float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
    for (int i = 0; i < whole; i++) {
        score[i] = i < seen ? score[i] * scale : -INFINITY;
        most = most < score[i] ? score[i] : most;
    }
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < whole; i++) sum += score[i] = exp_(score[i] - most);
    float part = 1.0f / sum;
#pragma omp simd
    for (int i = 0; i < whole; i++) share[i] = down(score[i] * part);
    memset(share + seen, 0, (columns - seen) * sizeof(bf16));
}

/* What a row attends to, and the gradient for that -> the gradient for its raw scores. */
static void softmax_backward(const bf16 *share, const float *slope, bf16 *out, len columns, float scale) {
    float mean = 0;
#pragma omp simd reduction(+ : mean)
    for (len i = 0; i < columns; i++) mean += up(share[i]) * slope[i];
#pragma omp simd
    for (len i = 0; i < columns; i++) out[i] = down(up(share[i]) * (slope[i] - mean) * scale);
}

static story the_story(const len *starts, len one, len groups, len shared, len head, const float *cosine,
                       const float *sine) {
    len length = starts[one + 1] - starts[one];
    return (story){groups, shared, head, starts[one], length, (length + BLOCK - 1) / BLOCK * BLOCK, cosine, sine};
}

/* qkv (token, q heads | k heads | v heads) -> mixed (token, q heads). What was attended to stays in `shares`, from
 * offsets[story], for the way back. `longest` is that of the stories, in whole blocks. A story's group is
 * computed in `parts`, each with every parts-th block, since late blocks attend to more. */
void attend(const bf16 *qkv, const float *cosine, const float *sine, const len *starts, const len *offsets, len stories,
            len longest, len groups, len shared, len head, bf16 *shares, bf16 *mixed, len parts, float scale) {
#pragma omp parallel
    {
        len rows = fours(BLOCK * shared);
        bf16 *k = malloc(longest * head * sizeof(bf16)), *v = malloc(longest * head * sizeof(bf16));
        bf16 *q = malloc(rows * head * sizeof(bf16));
        uint32_t *keys = malloc(longest * head / 2 * 4), *values = malloc(longest * head / 2 * 4);
        float *scores = malloc(rows * longest * sizeof(float)), *out = malloc(rows * head * sizeof(float));
#pragma omp for collapse(2) schedule(dynamic)
        for (len one = 0; one < stories; one++)
            for (len each = 0; each < groups * parts; each++) {
                len group = each / parts, part = each % parts;
                if (part * BLOCK >= starts[one + 1] - starts[one]) continue;
                story s = the_story(starts, one, groups, shared, head, cosine, sine);
                gather(&s, qkv, group, k, v);
                transposed(k, keys, s.whole, s.whole, head);
                by_rows(v, values, s.whole, head);
                for (len first = part * BLOCK; first < s.length; first += parts * BLOCK) {
                    len there = block_rows(&s, first), padded = fours(there), columns = first + BLOCK;
                    bf16 *share = shares + offsets[one] + group * before(&s, s.whole) + before(&s, first);
                    gather_queries(&s, qkv, group, first, q);
                    multiply(q, head * 2, 4, keys, s.whole, head / 2, scores, padded, columns, 0);
                    for (len i = 0; i < there; i++)
                        softmax(scores + i * columns, share + i * columns, first + i / shared + 1, columns, scale);
                    memset(share + there * columns, 0, (BLOCK * shared - there) * columns * sizeof(bf16));
                    multiply(share, columns * 2, 4, values, head, columns / 2, out, padded, head, 0);
                    for (len i = 0; i < there; i += shared) {
                        bf16 *to = mixed + ((s.token + first + i / shared) * groups + group) * shared * head;
                        for (len j = 0; j < shared * head; j += LANES) down_vec(*(vec *)(out + i * head + j), to + j);
                    }
                }
            }
        free(k), free(v), free(q), free(keys), free(values), free(scores), free(out);
    }
}

/* The gradient for qkv, given that for mixed, and the shares that attend left. */
void attend_backward(const bf16 *dmixed, const bf16 *qkv, const float *cosine, const float *sine, const len *starts,
                     const len *offsets, len stories, len longest, len groups, len shared, len head, const bf16 *shares,
                     bf16 *dqkv, float scale) {
#pragma omp parallel
    {
        len rows = fours(BLOCK * shared), half = head / 2;
        bf16 *k = malloc(longest * head * sizeof(bf16)), *v = malloc(longest * head * sizeof(bf16));
        bf16 *q = malloc(rows * head * sizeof(bf16)), *dout = malloc(rows * head * sizeof(bf16));
        bf16 *dscores = malloc(rows * longest * sizeof(bf16));
        uint32_t *keys = malloc(longest * half * 4), *values = malloc(longest * half * 4);
        uint32_t *left = malloc(rows / 2 * longest * 4), *right = malloc(rows / 2 * head * 4);
        float *slope = malloc(rows * longest * sizeof(float)), *dq = malloc(rows * head * sizeof(float));
        float *dk = malloc(longest * head * sizeof(float)), *dv = malloc(longest * head * sizeof(float));
#pragma omp for collapse(2) schedule(dynamic)
        for (len one = 0; one < stories; one++)
            for (len group = 0; group < groups; group++) {
                story s = the_story(starts, one, groups, shared, head, cosine, sine);
                len wide = shared * head, row = (shared + 2) * groups * head;
                gather(&s, qkv, group, k, v);
                by_rows(k, keys, s.whole, head);
                transposed(v, values, s.whole, s.whole, head);
                memset(dk, 0, s.whole * head * sizeof(float));
                memset(dv, 0, s.whole * head * sizeof(float));
                for (len first = 0; first < s.length; first += BLOCK) {
                    len there = block_rows(&s, first), padded = fours(there), columns = first + BLOCK;
                    const bf16 *share = shares + offsets[one] + group * before(&s, s.whole) + before(&s, first);
                    gather_queries(&s, qkv, group, first, q);
                    for (len i = 0; i < there; i += shared)
                        memcpy(dout + i * head, dmixed + ((s.token + first + i / shared) * groups + group) * wide, wide * 2);
                    memset(dout + there * head, 0, (padded - there) * head * sizeof(bf16));
                    multiply(dout, head * 2, 4, values, s.whole, half, slope, padded, columns, 0);
                    for (len i = 0; i < padded; i++)
                        softmax_backward(share + i * columns, slope + i * columns, dscores + i * columns, columns, scale);
                    multiply(dscores, columns * 2, 4, keys, head, columns / 2, dq, padded, head, 0);
                    by_rows(share, left, padded, columns);
                    by_rows(dout, right, padded, head);
                    multiply(left, 4, columns * 4, right, head, padded / 2, dv, columns, head, 1);
                    by_rows(dscores, left, padded, columns);
                    by_rows(q, right, padded, head);
                    multiply(left, 4, columns * 4, right, head, padded / 2, dk, columns, head, 1);
                    for (len i = 0; i < there; i++) {
                        len at = first + i / shared;
                        turn_back(dq + i * head, dqkv + (s.token + at) * row + group * wide + i % shared * head,
                                  cosine + at * half, sine + at * half, half);
                    }
                }
                for (len at = 0; at < s.length; at++) {
                    bf16 *to = dqkv + (s.token + at) * row + groups * wide + group * head;
                    turn_back(dk + at * head, to, cosine + at * half, sine + at * half, half);
                    for (len j = 0; j < head; j += LANES) down_vec(*(vec *)(dv + at * head + j), to + groups * head + j);
                }
            }
        free(k), free(v), free(q), free(dout), free(dscores), free(keys), free(values), free(left), free(right);
        free(slope), free(dq), free(dk), free(dv);
    }
}

/* Writing one token at a time: what has been read is kept as attend makes it, for each row and group the keys,
 * (head / 2, space) pairs, and the values, (space / 2, head) pairs; space is in whole blocks, and what is empty is 0. */

/* The keys and values of the prompts: qkv (token, q heads | k heads | v heads). */
void remember(const bf16 *qkv, const float *cosine, const float *sine, const len *starts, len rows, len longest,
              len groups, len shared, len head, len space, uint32_t *keys, uint32_t *values) {
#pragma omp parallel
    {
        bf16 *k = malloc(longest * head * sizeof(bf16)), *v = malloc(longest * head * sizeof(bf16));
#pragma omp for collapse(2)
        for (len row = 0; row < rows; row++)
            for (len group = 0; group < groups; group++) {
                story s = the_story(starts, row, groups, shared, head, cosine, sine);
                len at = (row * groups + group) * head / 2 * space;
                gather(&s, qkv, group, k, v);
                transposed(k, keys + at, space, s.whole, head);
                by_rows(v, values + at, s.whole, head);
            }
        free(k), free(v);
    }
}

/* What has been read of one layer, and the shape of its attention. */
typedef struct {
    len groups, shared, head, space;
    uint32_t *keys, *values;
    const float *cosine, *sine;
    float scale;
} past;

/* Where a thread computes a group of a row. */
typedef struct {
    bf16 *q, *k, *share;
    float *scores, *out;
} bench;

/* A row's new token, `in` (q heads | k heads | v heads), at position `at` -> mixed (q heads), as attend would give it for
 * the whole text, for one group. The token's key and value are added to the past of the row, `slot`. */
static void look_back(const past *p, bench b, const bf16 *in, len slot, len at, len group, bf16 *mixed) {
    len head = p->head, half = head / 2, shared = p->shared, padded = fours(shared);
    const bf16 *key = in + (p->groups * shared + group) * head, *value = key + p->groups * head;
    const float *c = p->cosine + at * half, *s = p->sine + at * half;
    uint32_t *keys = p->keys + (slot * p->groups + group) * half * p->space;
    uint32_t *values = p->values + (slot * p->groups + group) * half * p->space;
    turn(key, b.k, c, s, half);
    for (len i = 0; i < half; i++) keys[i * p->space + at] = *(const pair *)(b.k + 2 * i);
    for (len i = 0; i < head; i++) values[at / 2 * head + i] |= (uint32_t)value[i] << (at % 2 ? 16 : 0);
    for (len i = 0; i < shared; i++) turn(in + (group * shared + i) * head, b.q + i * head, c, s, half);
    len columns = at / LANES * LANES + LANES;
    multiply(b.q, head * 2, 4, keys, p->space, half, b.scores, padded, columns, 0);
    for (len i = 0; i < shared; i++)
        softmax(b.scores + i * columns, b.share + i * columns, at + 1, columns, p->scale);
    multiply(b.share, columns * 2, 4, values, head, columns / 2, b.out, padded, head, 0);
    bf16 *to = mixed + group * shared * head;
    for (len j = 0; j < shared * head; j += LANES) down_vec(*(vec *)(b.out + j), to + j);
}

/* (gate | up) -> silu(gate) * up. Shazeer 2020. */
static inline void gated(const bf16 *gate_up, bf16 *y, len width) {
    const bf16 *g = gate_up, *u = g + width;
#pragma omp simd
    for (len i = 0; i < width; i++) y[i] = down(up(g[i]) * sigmoid(up(g[i])) * up(u[i]));
}

void swiglu(const bf16 *gate_up, bf16 *y, len rows, len width) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) gated(gate_up + row * 2 * width, y + row * width, width);
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

/* Products with frozen weights, where the processor has no bfloat16 of its own and oneDNN none for it. */

/* How many of the rows that are left are multiplied together: SUMS, or a smaller one that STRIPS knows below. */
static inline len together(len left) {
    return left >= SUMS ? SUMS : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* x, (width, rows), by SUMS / rows panels, one after another in w; `left`: columns that there are. */
static inline __attribute__((always_inline)) void strip(const float *x, const uint32_t *w, const bf16 *bias, bf16 *y,
                                                        len width, len columns, len left, const int rows) {
    const int panels = SUMS / rows;
    const len panel = width / 2 * LANES;
    vec sum[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = (vec){0};
    for (const float *end = x + rows * width; x < end; x += 2 * rows, w += LANES)
        for (int p = 0; p < panels; p++) {
            bits_vec both = *(const bits_vec *)(w + p * panel);
            vec even = (vec)(both << 16), odd = (vec)(both & 0xffff0000);
            for (int r = 0; r < rows; r++) sum[r * panels + p] += x[r] * even;
            for (int r = 0; r < rows; r++) sum[r * panels + p] += x[rows + r] * odd;
        }
    for (int r = 0; r < rows; r++) {
        bf16 done[SUMS * LANES];
        for (int p = 0; p < panels; p++) {
            vec more = {0};
            for (len i = 0; bias && i < LANES && p * LANES + i < left; i++) more[i] = up(bias[p * LANES + i]);
            down_vec(sum[r * panels + p] + more, done + p * LANES);
        }
        memcpy(y + r * columns, done, (left < panels * LANES ? left : panels * LANES) * sizeof(bf16));
    }
}

/* y = x w + bias (may be null): (rows, width), panels of columns, (columns,) -> (rows, columns). A panel is
 * (half the width, lanes) pairs; the last ones are filled up with 0 to SUMS of them. An element is summed in one
 * order, whatever rows are computed with it. */
void product(const bf16 *x, const uint32_t *w, const bf16 *bias, bf16 *y, len rows, len width, len columns) {
    len even = width + width % 2; /* numbers of a row, in pairs */
    float *wide = malloc(rows * even * sizeof(float));
#pragma omp parallel
    {
#pragma omp for
        for (len first = 0; first < rows; first += SUMS)
            for (len row = first, some; row < rows && row < first + SUMS; row += some) {
                some = together(rows - row);
                float *to = wide + row * even;
                for (len r = 0; r < some; r++)
                    for (len i = 0; i < width; i++) to[i * some + r] = up(x[(row + r) * width + i]);
                for (len r = width * some; r < even * some; r++) to[r] = 0;
            }
#pragma omp for collapse(2) schedule(dynamic)
        for (len first = 0; first < columns; first += SUMS * LANES)
            for (len top = 0; top < rows; top += 16 * SUMS)
                for (len row = top, some; row < rows && row < top + 16 * SUMS; row += some) {
                    some = together(rows - row);
#define STRIPS(count)                                                                                  \
    case count:                                                                                        \
        for (len j = first; j < columns && j < first + SUMS * LANES; j += SUMS / count * LANES)         \
            strip(wide + row * even, w + j * even / 2, bias ? bias + j : 0, y + row * columns + j, even, \
                  columns, columns - j, count);                                                        \
        break;
                    switch (some) {
                        STRIPS(1) STRIPS(2) STRIPS(4) STRIPS(8)
#if SUMS > 8
                        STRIPS(SUMS)
#endif
                    }
#undef STRIPS
                }
    }
    free(wide);
}

/* How wide a panel is, and to how many of them they are filled up. */
len lanes(void) { return LANES; }
len sums(void) { return SUMS; }

/* LoRA's thin products: PyTorch's are made for wide ones. Ranks are padded to whole blocks: what they add is rounded once
 * a block. */
#define RANKS 16

/* low = factor * x m: (rows, width), (width / 2, rank) pairs -> (rows, rank). x and low have rows of their strides. */
void project(const bf16 *x, len x_stride, const uint32_t *m, bf16 *low, len low_stride, len rows, len width, len rank,
             float factor) {
#pragma omp parallel for
    for (len row = 0; row < rows; row += SUMS) {
        const bf16 *from[SUMS];
        for (len j = 0; j < SUMS; j++) from[j] = x + (row + j < rows ? row + j : row) * x_stride;
        for (len r = 0; r < rank; r += LANES) {
            vec sum[SUMS] = {0};
            for (len i = 0; i < width; i += 2) {
                bits_vec column = *(const bits_vec *)(m + i / 2 * rank + r);
                for (len j = 0; j < SUMS; j++) sum[j] = dot(sum[j], all(from[j] + i), column);
            }
            for (len j = 0; j < SUMS && row + j < rows; j++) down_vec(factor * sum[j], low + (row + j) * low_stride + r);
        }
    }
}

/* y += low m: (rows, rank), (rank / 2, width) pairs -> (rows, width). y and low have rows of their strides. */
void expand(const bf16 *low, len low_stride, const uint32_t *m, bf16 *y, len y_stride, len rows, len width, len rank) {
#pragma omp parallel for
    for (len row = 0; row < rows; row += 32) {
        len last = rows - row < 32 ? rows : row + 32;
        for (len i = 0; i < width; i += LANES)
            for (len r = 0; r < rank; r += RANKS) {
                bits_vec weights[RANKS / 2];
                for (len l = 0; l < RANKS / 2; l++) weights[l] = *(const bits_vec *)(m + (r / 2 + l) * width + i);
                for (len at = row; at < last; at++) {
                    vec even = (vec)(widen(y + at * y_stride + i) << 16), odd = {0};
                    const bf16 *factors = low + at * low_stride + r;
                    for (len l = 0; l < RANKS; l += 4) {
                        even = dot(even, all(factors + l), weights[l / 2]);
                        odd = dot(odd, all(factors + l + 2), weights[l / 2 + 1]);
                    }
                    down_vec(even + odd, y + at * y_stride + i);
                }
            }
    }
}

/* gradient += low' x: (rows, rank), (rows, width) -> (kept of rank, width), or its transpose; a column of the
 * gradient belongs to one thread, which adds the rows in their order. x and low have rows of their strides. */
#define HALF (LANES / 2)
void outer(const bf16 *low, len low_stride, const bf16 *x, len x_stride, float *gradient, len rows, len width, len rank,
           len kept, len transpose) {
    static const bf16 nothing[2 * LANES];
    uint32_t *pairs = malloc((rows + 1) / 2 * rank * sizeof(uint32_t));
#pragma omp parallel
    {
#pragma omp for
        for (len row = 0; row < rows; row += 2)
            for (len r = 0; r < rank; r += LANES) {
                const bf16 *next = row + 1 < rows ? low + (row + 1) * low_stride + r : nothing;
                *(bits_vec *)(pairs + row / 2 * rank + r) = interleaved(low + row * low_stride + r, next);
            }
#pragma omp for
        for (len i = 0; i < width; i += 2 * LANES)
            for (len r = 0; r < rank; r += HALF) {
                len second = i + LANES < width ? LANES : 0;
                vec sum[2][HALF] = {0};
                for (len row = 0; row < rows; row += 2) {
                    const bf16 *one = x + row * x_stride + i, *next = row + 1 < rows ? one + x_stride : nothing;
                    bits_vec left = interleaved(one, next), right = interleaved(one + second, next + second);
                    const uint32_t *factors = pairs + row / 2 * rank + r;
                    for (len l = 0; l < HALF; l++) {
                        sum[0][l] = dot(sum[0][l], all(factors + l), left);
                        sum[1][l] = dot(sum[1][l], all(factors + l), right);
                    }
                }
                for (len side = 0; side <= second / LANES; side++)
                    for (len l = 0; l < HALF && r + l < kept; l++) {
                        len at = i + side * LANES;
                        if (transpose)
                            for (len c = 0; c < LANES; c++) gradient[(at + c) * kept + r + l] += sum[side][l][c];
                        else *(vec *)(gradient + (r + l) * width + at) += sum[side][l];
                    }
            }
    }
    free(pairs);
}

/* Writing one token a row. Between two products with frozen weights all is one kernel, the adapters' thin products
 * included, since a step of few rows would otherwise be calls and little else. `low` holds the rows' thin products, of
 * `rank` in all; a part is one adapter of the layers that lie side by side. A kernel ends with the next thin products,
 * low = x m, where m has the rank `next`, or none if that is 0. */
typedef struct {
    const uint32_t *m; /* (ranks / 2, columns) pairs */
    len column, columns, first, ranks;
} part;

/* As expand, for one row and all parts. */
static void add_low(bf16 *y, const bf16 *low, const part *parts, len count) {
    for (const part *p = parts; p < parts + count; p++)
        for (len i = 0; i < p->columns; i += LANES) {
            bf16 *to = y + p->column + i;
            for (len r = 0; r < p->ranks; r += RANKS) {
                vec even = (vec)(widen(to) << 16), odd = {0};
                for (len l = r; l < r + RANKS; l += 4) {
                    even = dot(even, all(low + p->first + l), *(const bits_vec *)(p->m + l / 2 * p->columns + i));
                    odd = dot(odd, all(low + p->first + l + 2), *(const bits_vec *)(p->m + (l / 2 + 1) * p->columns + i));
                }
                down_vec(even + odd, to);
            }
        }
}

/* As project, for one row; up to four vectors of ranks at a time, so that their sums need not wait for each other. */
static void to_low(const bf16 *x, const uint32_t *m, bf16 *low, len width, len rank) {
    for (len r = 0, vectors; r < rank; r += vectors * LANES) {
        vectors = rank - r < 4 * LANES ? (rank - r) / LANES : 4;
        vec sum[4] = {0};
        for (len i = 0; i < width; i += 2)
            for (len v = 0; v < vectors; v++)
                sum[v] = dot(sum[v], all(x + i), *(const bits_vec *)(m + i / 2 * rank + r + v * LANES));
        for (len v = 0; v < vectors; v++) down_vec(sum[v], low + r + v * LANES);
    }
}

/* qkv (row, q heads | k heads | v heads), the product, -> mixed (row, q heads); `weight`, if there is one, as norm_heads
 * has it. */
void next_attend(bf16 *qkv, const bf16 *low, const part *parts, len count, len rank, const float *weight, float eps,
                 const float *cosine, const float *sine, const len *slots, const len *at, uint32_t *keys,
                 uint32_t *values, bf16 *mixed, const uint32_t *m, bf16 *next_low, len next, len rows, len groups,
                 len shared, len head, len space, float scale) {
    past p = {groups, shared, head, space, keys, values, cosine, sine, scale};
    len width = (shared + 2) * groups * head, wide = groups * shared * head, padded = fours(shared);
#pragma omp parallel
    {
        bench b = {calloc(padded * head, 2), malloc(head * 2), calloc(padded * space, 2), malloc(padded * space * 4),
                   malloc(padded * head * 4)};
#pragma omp for
        for (len row = 0; row < rows; row++) {
            bf16 *in = qkv + row * width;
            add_low(in, low + row * rank, parts, count);
            for (len i = 0; weight && i < wide + groups * head; i += head) norm(in + i, weight + i, in + i, head, eps);
        }
#pragma omp for collapse(2)
        for (len row = 0; row < rows; row++)
            for (len group = 0; group < groups; group++)
                look_back(&p, b, qkv + row * width, slots[row], at[row], group, mixed + row * wide);
#pragma omp for
        for (len row = 0; row < rows; row++) to_low(mixed + row * wide, m, next_low + row * next, wide, next);
        free(b.q), free(b.k), free(b.share), free(b.scores), free(b.out);
    }
}

/* h += y, the product (may be null); x = RMSNorm(h) * weight. */
void next_norm(bf16 *y, const bf16 *low, const part *parts, len count, len rank, bf16 *h, const float *weight, bf16 *x,
               const uint32_t *m, bf16 *next_low, len next, len rows, len width, float eps) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) {
        bf16 *in = h + row * width, *out = x + row * width;
        if (y) {
            bf16 *more = y + row * width;
            add_low(more, low + row * rank, parts, count);
#pragma omp simd
            for (len i = 0; i < width; i++) in[i] = down(up(in[i]) + up(more[i]));
        }
        norm(in, weight, out, width, eps);
        to_low(out, m, next_low + row * next, width, next);
    }
}

/* (row, gate | up), the product, -> silu(gate) * up. */
void next_swiglu(bf16 *gate_up, const bf16 *low, const part *parts, len count, len rank, bf16 *y, const uint32_t *m,
                 bf16 *next_low, len next, len rows, len width) {
#pragma omp parallel for
    for (len row = 0; row < rows; row++) {
        bf16 *in = gate_up + row * 2 * width, *out = y + row * width;
        add_low(in, low + row * rank, parts, count);
        gated(in, out, width);
        to_low(out, m, next_low + row * next, width, next);
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
