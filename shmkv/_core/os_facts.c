/* os_facts.c: clocks, futexes, and what the kernel says about this process.
 *
 * Concurrency: any thread, no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os_region.h"

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* BOOTTIME, not MONOTONIC: a ttl goes on while the machine sleeps. */
uint64_t skv_os_boot_ms(void)
{
    return clock_ns(CLOCK_BOOTTIME) / 1000000;
}

#define CLOCK_SLACK_NS (UINT64_C(2) * 1000000000)   /* a process may be stopped between two looks  */

/* The library's answer between two of the kernel, which is asked without it. */
bool skv_os_clock_is_true(void)
{
    struct timespec before, after;
    if (syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &before) != 0)
        return true;
    const uint64_t seen = clock_ns(CLOCK_BOOTTIME);
    if (syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &after) != 0)
        return true;
    const uint64_t low = (uint64_t)before.tv_sec * 1000000000 + (uint64_t)before.tv_nsec;
    const uint64_t high = (uint64_t)after.tv_sec * 1000000000 + (uint64_t)after.tv_nsec;
    return seen + CLOCK_SLACK_NS >= low && seen <= high + CLOCK_SLACK_NS;
}

uint64_t skv_os_wall_ms(void)
{
    return clock_ns(CLOCK_REALTIME) / 1000000;
}

uint64_t skv_os_monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t skv_os_now_ms(void *context)
{
    (void)context;
    return skv_os_boot_ms();
}

void skv_os_pause(void *context)
{
    const struct timespec nap = {0, 20000};
    (void)context;
    nanosleep(&nap, NULL);
}

void skv_nap_ms(uint32_t ms)
{
    const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* Not FUTEX_PRIVATE: the waker is another process. */
void skv_os_futex_wait(void *context, _Atomic uint32_t *word, uint32_t expected, uint32_t timeout_ms)
{
    (void)context;
    const struct timespec t = {timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, NULL, 0);
}

void skv_os_futex_wake(void *context, _Atomic uint32_t *word)
{
    (void)context;
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void skv_os_futex_wake_all(void *context, _Atomic uint32_t *word)
{
    (void)context;
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static size_t read_text(const char *path, char *out, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    errno = fd < 0 ? errno : EIO;       /* of a read of nothing                               */
    ssize_t n = fd < 0 ? -1 : read(fd, out, room - 1);
    skv_close_fd(fd);
    out[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* All zeros where there is no /proc.  Where there is one that cannot be read now (no descriptor is left) the answer is
 * not known, and zeros would make every store look as if it were of another boot. */
bool skv_os_boot_id(uint8_t out[16])
{
    char text[64];
    memset(out, 0, 16);
    if (!read_text("/proc/sys/kernel/random/boot_id", text, sizeof text))
        return errno == ENOENT;
    unsigned digits = 0;
    for (const char *c = text; *c && digits < 32; c++) {
        int digit = hex_digit(*c);
        if (digit < 0)
            continue;
        out[digits / 2] = (uint8_t)(out[digits / 2] << 4 | digit);
        digits++;
    }
    return true;
}

static uint64_t namespace_inode(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

uint64_t skv_os_time_namespace(void)
{
    return namespace_inode("/proc/self/ns/time");
}

uint64_t skv_os_pid_namespace(void)
{
    return namespace_inode("/proc/self/ns/pid");
}

/* Field 22, counted from behind the last ')': the name in field 2 may hold spaces and brackets. */
uint64_t skv_os_start_time(void)
{
    char text[1024];
    read_text("/proc/self/stat", text, sizeof text);
    const char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

void skv_os_identify(void *context, uint32_t *pid, uint64_t *start_time, uint64_t *pid_namespace)
{
    (void)context;
    *pid = (uint32_t)getpid();
    *start_time = skv_os_start_time();
    *pid_namespace = skv_os_pid_namespace();
}
