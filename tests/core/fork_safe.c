/* fork_safe.c: a process with threads may fork under AddressSanitizer; linked into every program of that flavour.
 *
 * Why: fork() copies the sanitizer's allocator with the locks that other threads have taken, and nobody is there to
 *      give them back: the child waits for ever in its next malloc.  (libc's own allocator takes its locks before it
 *      forks; so do the sanitizers of newer compilers.)
 * How: --wrap leads all calls of the allocator through here; one mutex is around them, which fork takes first.
 */
#include <pthread.h>
#include <stddef.h>

static pthread_mutex_t allocating = PTHREAD_MUTEX_INITIALIZER;

static void enter(void) { pthread_mutex_lock(&allocating); }
static void leave(void) { pthread_mutex_unlock(&allocating); }

__attribute__((constructor))
static void prepare_forks(void) { pthread_atfork(enter, leave, leave); }

#define WRAPPED(name, parameters, arguments)  \
    void *__real_##name parameters;           \
    void *__wrap_##name parameters;           \
    void *__wrap_##name parameters            \
    {                                         \
        enter();                              \
        void *made = __real_##name arguments; \
        leave();                              \
        return made;                          \
    }

WRAPPED(malloc, (size_t size), (size))
WRAPPED(calloc, (size_t count, size_t size), (count, size))
WRAPPED(realloc, (void *block, size_t size), (block, size))
WRAPPED(aligned_alloc, (size_t alignment, size_t size), (alignment, size))

void __real_free(void *block);
void __wrap_free(void *block);
void __wrap_free(void *block)
{
    enter();
    __real_free(block);
    leave();
}
