/* stepper.h: a child process that stands still before each of its instructions.
 *
 * What: starts a child that is traced, lets it execute one instruction at a time, tells where it stands, kills it.
 * How:  ptrace.  The child prepares itself at full speed, asks to be traced and stops; from there on its parent steps.
 *       A system call is one step.  An instruction that repeats itself ("rep movsb") stops after each turn, so that
 *       half a copy is a place to die too.
 *       A step takes 2 to 20 microseconds (in virtual machines the most), so whoever has been at a place before goes
 *       there by a breakpoint: it is named by its address and how often the child has stood there earlier.
 *       Parent and child share one processor: the child's stop then wakes a parent whose caches are warm, which is
 *       several times faster than waking another processor.
 *
 * Concurrency: one stepped child at a time; it ends with its parent (PTRACE_O_EXITKILL).
 */
#ifndef SKV_TEST_STEPPER_H
#define SKV_TEST_STEPPER_H

#include <elf.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "util.h"

#if defined(__x86_64__)
#define CAN_STEP_MACHINE 1
typedef struct user_regs_struct machine_registers;
static inline uint64_t *counter_in(machine_registers *r) { return (uint64_t *)&r->rip; }
#define BREAKPOINT       UINT64_C(0xcc)
#define BREAKPOINT_MASK  UINT64_C(0xff)
#define BREAKPOINT_MOVES 1u     /* bytes that the program counter has gone on by when it stops there */
#elif defined(__aarch64__) && defined(__ARM_FEATURE_ATOMICS)
/* Only with atomic instructions of the machine: a pair of load-exclusive and store-exclusive never succeeds when the
 * process is stopped in between. */
#define CAN_STEP_MACHINE 1
typedef struct user_regs_struct machine_registers;
static inline uint64_t *counter_in(machine_registers *r) { return (uint64_t *)&r->pc; }
#define BREAKPOINT       UINT64_C(0xd4200000)   /* brk #0                                     */
#define BREAKPOINT_MASK  UINT64_C(0xffffffff)
#define BREAKPOINT_MOVES 0u
#else
#define CAN_STEP_MACHINE 0
typedef struct { uint64_t none; } machine_registers;
static inline uint64_t *counter_in(machine_registers *r) { return &r->none; }
#define BREAKPOINT       UINT64_C(0)
#define BREAKPOINT_MASK  UINT64_C(0)
#define BREAKPOINT_MOVES 0u
#endif

typedef struct stepper {
    pid_t pid;
    bool  gone;                 /* it ended, or was killed, and is waited for                 */
} stepper;

/* In the child: from here on the parent steps. */
UNUSED static void be_stepped(void)
{
    REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0, "ptrace: %s", strerror(errno));
    raise(SIGSTOP);
}

UNUSED static void share_one_processor(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* The child prepares, and stops in be_stepped.  It never returns from `body`. */
UNUSED static stepper start_stepped(child_body body, void *context, unsigned seconds)
{
    int status;
    stepper s = {.pid = start_child(body, context, seconds)};
    REQUIRE(waitpid(s.pid, &status, 0) == s.pid, "waitpid: %s", strerror(errno));
    REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "the child ended in its preparations: %x",
            (unsigned)status);
    REQUIRE(ptrace(PTRACE_SETOPTIONS, s.pid, NULL, (void *)(uintptr_t)PTRACE_O_EXITKILL) == 0, "ptrace: %s",
            strerror(errno));
    return s;
}

/* Goes on until the child stops for its parent.  False: it has ended. */
static inline bool resume(stepper *s, int request)
{
    int status = 0, signal = 0;
    do {
        REQUIRE(ptrace((enum __ptrace_request)request, s->pid, NULL, (void *)(uintptr_t)signal) == 0, "ptrace: %s",
                strerror(errno));
        REQUIRE(waitpid(s->pid, &status, 0) == s->pid, "waitpid: %s", strerror(errno));
        if (!WIFSTOPPED(status)) {
            REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %x", (unsigned)status);
            s->gone = true;
            return false;
        }
        signal = WSTOPSIG(status);      /* others than the stop are handed on to the child    */
    } while (signal != SIGTRAP);
    return true;
}

/* One instruction. */
static inline bool step(stepper *s)
{
    return resume(s, PTRACE_SINGLESTEP);
}

/* Where the next instruction lies; 0 = the child has ended. */
UNUSED static uint64_t place_of(const stepper *s)
{
    machine_registers registers;
    struct iovec buffer = {&registers, sizeof registers};
    if (s->gone)
        return 0;
    REQUIRE(ptrace(PTRACE_GETREGSET, s->pid, (void *)(uintptr_t)NT_PRSTATUS, &buffer) == 0, "ptrace: %s",
            strerror(errno));
    return *counter_in(&registers);
}

static inline void set_place(const stepper *s, uint64_t place)
{
    machine_registers registers;
    struct iovec buffer = {&registers, sizeof registers};
    REQUIRE(ptrace(PTRACE_GETREGSET, s->pid, (void *)(uintptr_t)NT_PRSTATUS, &buffer) == 0, "ptrace: %s",
            strerror(errno));
    *counter_in(&registers) = place;
    REQUIRE(ptrace(PTRACE_SETREGSET, s->pid, (void *)(uintptr_t)NT_PRSTATUS, &buffer) == 0, "ptrace: %s",
            strerror(errno));
}

static inline uint64_t read_code(const stepper *s, uint64_t place)
{
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, s->pid, (void *)(uintptr_t)place, NULL);
    REQUIRE(errno == 0, "ptrace: %s", strerror(errno));
    return (uint64_t)word;
}

static inline void write_code(const stepper *s, uint64_t place, uint64_t word)
{
    REQUIRE(ptrace(PTRACE_POKETEXT, s->pid, (void *)(uintptr_t)place, (void *)(uintptr_t)word) == 0, "ptrace: %s",
            strerror(errno));
}

/* At full speed, up to the next time that the child comes to `place`, where it is not now. */
static inline bool run_to_next(stepper *s, uint64_t place)
{
    uint64_t code = read_code(s, place);
    write_code(s, place, (code & ~BREAKPOINT_MASK) | BREAKPOINT);
    if (!resume(s, PTRACE_CONT))
        return false;
    write_code(s, place, code);
    if (BREAKPOINT_MOVES)
        set_place(s, place);
    return true;
}

/* Up to where the child stands at `place` after it has stood there `visits` times.  False: it never came there. */
UNUSED static bool run_to(stepper *s, uint64_t place, uint32_t visits)
{
    for (;;) {
        if (place_of(s) != place) {
            if (!run_to_next(s, place))
                return false;
        }
        if (visits-- == 0)
            return true;
        if (!step(s))
            return false;
    }
}

/* A place as addr2line wants it: relative to the program; 0 = in a library. */
UNUSED static uint64_t in_program(uint64_t place)
{
    extern const char __executable_start, etext;
    uint64_t start = (uint64_t)(uintptr_t)&__executable_start;
    return place >= start && place < (uint64_t)(uintptr_t)&etext ? place - start : 0;
}

/* When this returns, the kernel has given back all that the child held. */
UNUSED static void kill_stepped(stepper *s)
{
    if (s->gone)
        return;
    REQUIRE(kill(s->pid, SIGKILL) == 0, "kill: %s", strerror(errno));
    int status = wait_child(s->pid);
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the child ended with status %x", (unsigned)status);
    s->gone = true;
}

static void stop_once(void *unused)
{
    (void)unused;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
        _exit(1);
    raise(SIGSTOP);
    _exit(0);
}

/* NULL, or why no child can be stepped here. */
UNUSED static const char *why_no_steps(void)
{
    static char text[100];
    int status;
    if (!CAN_STEP_MACHINE)
        return "single steps are written for x86-64, and for aarch64 with atomic instructions";
    pid_t pid = start_child(stop_once, NULL, 5);
    bool traced = waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status);
    bool stepped = traced && ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0;
    if (!stepped)
        snprintf(text, sizeof text, "ptrace is not allowed here: %s",
                 traced ? strerror(errno) : "a child may not be traced");
    if (traced)
        kill(pid, SIGKILL);
    for (int tries = 0; traced && WIFSTOPPED(status) && tries < 3; tries++)
        waitpid(pid, &status, 0);
    return stepped ? NULL : text;
}

#endif
