/* traced.h: included before everything else (-include), so that a hook is told of each atomic operation and each copy.
 *
 * What: the macros of <stdatomic.h> that the engine uses, memcpy, memmove and memset, each of which also calls skv_trace_hook
 *       with the place, the memory order, and the word before and after.
 * Why:  on x86 a store that lost its order, or a fence that is gone, changes nothing that a test could see: the
 *       machine orders more than was asked for.  What was asked for can be seen here.
 *
 * Concurrency: one thread.
 */
#ifndef SKV_TRACED_H
#define SKV_TRACED_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum skv_trace_kind { TRACE_LOAD, TRACE_STORE, TRACE_CHANGE, TRACE_FENCE, TRACE_READ, TRACE_WRITE };

typedef struct skv_event {
    enum skv_trace_kind kind;   /* CHANGE: a read-modify-write; READ, WRITE: plain copies     */
    memory_order order;
    const volatile void *at;
    size_t size;
    uint64_t before, after;     /* of words                                                   */
} skv_event;

extern void (*skv_trace_hook)(const skv_event *event);

static inline void skv_trace(enum skv_trace_kind kind, const volatile void *at, size_t size, memory_order order, uint64_t before,
                             uint64_t after)
{
    if (skv_trace_hook)
        skv_trace_hook(&(skv_event){kind, order, at, size, before, after});
}

static inline void *skv_traced_memmove(void *to, const void *from, size_t len)
{
    skv_trace(TRACE_READ, from, len, memory_order_relaxed, 0, 0);
    skv_trace(TRACE_WRITE, to, len, memory_order_relaxed, 0, 0);
    return __builtin_memmove(to, from, len);
}

static inline void *skv_traced_memset(void *to, int byte, size_t len)
{
    skv_trace(TRACE_WRITE, to, len, memory_order_relaxed, 0, 0);
    return __builtin_memset(to, byte, len);
}

#define memcpy(to, from, len) skv_traced_memmove((to), (from), (len))
#define memmove(to, from, len) skv_traced_memmove((to), (from), (len))
#define memset(to, byte, len) skv_traced_memset((to), (byte), (len))

#define TRACED_TYPE(pointer) __typeof__((void)0, *(pointer))

#undef atomic_load_explicit
#define atomic_load_explicit(pointer, order) __extension__ ({                                    \
    __auto_type load_at_ = (pointer);                                                            \
    TRACED_TYPE(load_at_) loaded_;                                                               \
    __atomic_load(load_at_, &loaded_, (order));                                                  \
    skv_trace(TRACE_LOAD, load_at_, sizeof loaded_, (order), (uint64_t)loaded_, (uint64_t)loaded_); \
    loaded_; })

#undef atomic_store_explicit
#define atomic_store_explicit(pointer, value, order) __extension__ ({                            \
    __auto_type store_at_ = (pointer);                                                           \
    TRACED_TYPE(store_at_) stored_ = (value), was_;                                              \
    __atomic_load(store_at_, &was_, __ATOMIC_RELAXED);                                           \
    __atomic_store(store_at_, &stored_, (order));                                                \
    skv_trace(TRACE_STORE, store_at_, sizeof stored_, (order), (uint64_t)was_, (uint64_t)stored_); })

#define TRACED_CHANGE(pointer, value, order, builtin, after) __extension__ ({                    \
    __auto_type change_at_ = (pointer);                                                          \
    TRACED_TYPE(change_at_) with_ = (TRACED_TYPE(change_at_))(value);                            \
    TRACED_TYPE(change_at_) old_ = builtin(change_at_, with_, (order));                          \
    skv_trace(TRACE_CHANGE, change_at_, sizeof old_, (order), (uint64_t)old_, (uint64_t)(after)); \
    old_; })

#undef atomic_exchange_explicit
#define atomic_exchange_explicit(p, v, o) TRACED_CHANGE(p, v, o, __atomic_exchange_n, with_)
#undef atomic_fetch_add_explicit
#define atomic_fetch_add_explicit(p, v, o) TRACED_CHANGE(p, v, o, __atomic_fetch_add, old_ + with_)
#undef atomic_fetch_sub_explicit
#define atomic_fetch_sub_explicit(p, v, o) TRACED_CHANGE(p, v, o, __atomic_fetch_sub, old_ - with_)
#undef atomic_fetch_or_explicit
#define atomic_fetch_or_explicit(p, v, o) TRACED_CHANGE(p, v, o, __atomic_fetch_or, old_ | with_)
#undef atomic_fetch_and_explicit
#define atomic_fetch_and_explicit(p, v, o) TRACED_CHANGE(p, v, o, __atomic_fetch_and, old_ & with_)

#define TRACED_CAS(pointer, expected, value, order, failed, weak) __extension__ ({               \
    __auto_type cas_at_ = (pointer);                                                             \
    TRACED_TYPE(cas_at_) new_ = (TRACED_TYPE(cas_at_))(value), seen_ = *(expected);              \
    _Bool done_ = __atomic_compare_exchange_n(cas_at_, (expected), new_, (weak), (order), (failed)); \
    if (done_)                                                                                   \
        skv_trace(TRACE_CHANGE, cas_at_, sizeof new_, (order), (uint64_t)seen_, (uint64_t)new_); \
    done_; })

#undef atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_strong_explicit(p, e, v, o, f) TRACED_CAS(p, e, v, o, f, 0)
#undef atomic_compare_exchange_weak_explicit
#define atomic_compare_exchange_weak_explicit(p, e, v, o, f) TRACED_CAS(p, e, v, o, f, 1)

#undef atomic_thread_fence
#define atomic_thread_fence(fence_order) do {                                                    \
    __atomic_thread_fence(fence_order);                                                          \
    skv_trace(TRACE_FENCE, NULL, 0, (fence_order), 0, 0);                                        \
} while (0)

#endif
