/* atomics.h: the few orders that the engine uses, by name.
 *
 * Concurrency: each acquire names its release where it is used.  Under ThreadSanitizer a
 * stand-alone fence is invisible, so copying goes word by word through relaxed atomics there.
 */
#ifndef SKV_ATOMICS_H
#define SKV_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define skv_load(p)            atomic_load_explicit((p), memory_order_relaxed)
#define skv_load_acquire(p)    atomic_load_explicit((p), memory_order_acquire)
#define skv_store(p, v)        atomic_store_explicit((p), (v), memory_order_relaxed)
#define skv_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)

#define skv_likely(x)   __builtin_expect(!!(x), 1)
#define skv_unlikely(x) __builtin_expect(!!(x), 0)

/* For the path of a single get, where a call costs as much as a probe. */
#define SKV_HOT static inline __attribute__((always_inline))

#if defined(__SANITIZE_THREAD__)
#define SKV_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SKV_TSAN 1
#endif
#endif

/* ThreadSanitizer does not model fences: there, an acquire load of a word that the other side
 * stores with release stands in (callers pair them with `seq`), and gcc refuses the fence. */
static inline void skv_fence_acquire(void)
{
#ifndef SKV_TSAN
    atomic_thread_fence(memory_order_acquire);
#endif
}

static inline void skv_fence_release(void)
{
#ifndef SKV_TSAN
    atomic_thread_fence(memory_order_release);
#endif
}

static inline void skv_fence_full(void)
{
#ifndef SKV_TSAN
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Copies bytes that a writer may be changing; what arrives is used only after validation. */
static inline void skv_copy_racy(void *to, const void *from, size_t len)
{
#ifdef SKV_TSAN
    uint8_t *out = to;
    const _Atomic uint8_t *in = from;
    for (size_t i = 0; i < len; i++)
        out[i] = atomic_load_explicit(&in[i], memory_order_relaxed);
#else
    memcpy(to, from, len);
#endif
}

/* Writes bytes that a reader of the block's former life may still be copying.  `from` may lie in the region too, where
 * such a reader may have set a clock bit long ago, unordered with everything.  In a damaged region the two may
 * overlap: what is written then is as wrong as what was there, but nothing is undefined. */
static inline void skv_write_racy(void *to, const void *from, size_t len)
{
#ifdef SKV_TSAN
    _Atomic uint8_t *out = to;
    const _Atomic uint8_t *in = from;
    for (size_t i = 0; i < len; i++)
        atomic_store_explicit(&out[i], atomic_load_explicit(&in[i], memory_order_relaxed), memory_order_relaxed);
#else
    if (len)
        memmove(to, from, len);
#endif
}

/* Zeroes words that such a reader may be loading: each of them is seen whole, old or zero, as memset stores whole
 * words at aligned places. */
static inline void skv_clear_racy(_Atomic uint64_t *words, size_t count)
{
#ifdef SKV_TSAN
    for (size_t i = 0; i < count; i++)
        skv_store(&words[i], 0);
#else
    memset((void *)words, 0, count * sizeof *words);
#endif
}

static inline void skv_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
