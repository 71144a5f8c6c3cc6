/* c11.hpp: what the models under the C11 memory model share: the choice of a mutant, and the run.
 *
 * A model is one program.  Its mutants are chosen when it is run (`reader 100000 M_NO_ACQUIRE_FENCE`; 100,000
 * executions), because such a
 * program takes seconds to compile.  Relacy (Dmitry Vyukov) runs the threads of a model under a scheduler of its own
 * and gives each load any value that C11 allows it to see: at random from a fixed seed, so that a run can be repeated,
 * or
 * (rl::sched_bound) one after the other, all that there are with a limited number of switches that no thread asked for.
 * It cannot let a load see a store that comes later in every order (no out-of-thin-air values, no load buffering).
 */
#ifndef C11_HPP
#define C11_HPP

#include <relacy/relacy_std.hpp>

#include <cstdlib>
#include <cstring>
#include <iostream>

static const char *mutant_name = "";

static bool is_mutant(const char *name)
{
    return std::strcmp(mutant_name, name) == 0;
}

/* ACQUIRE_BUT("M_X"): acquire, and relaxed in the mutant M_X.  `$` is where Relacy wants to know the line. */
#define RELAXED            rl::mo_relaxed, $
#define ACQUIRE            rl::mo_acquire, $
#define RELEASE            rl::mo_release, $
#define SEQ_CST            rl::mo_seq_cst, $
#define ACQUIRE_BUT(name)  (is_mutant(name) ? rl::mo_relaxed : rl::mo_acquire), $
#define RELEASE_BUT(name)  (is_mutant(name) ? rl::mo_relaxed : rl::mo_release), $
#define ACQ_REL_BUT(name)  (is_mutant(name) ? rl::mo_relaxed : rl::mo_acq_rel), $
#define SEQ_CST_BUT(name)  (is_mutant(name) ? rl::mo_acq_rel : rl::mo_seq_cst), $

#define FENCE(order)       std::atomic_thread_fence(std::memory_order_##order)

template<typename Test>
static int run_model(int argc, char **argv, rl::scheduler_type_e scheduler = rl::sched_random)
{
    rl::test_params params;
    const unsigned bound = argc > 1 ? std::atoi(argv[1]) : 3;
    params.search_type = scheduler;
    params.iteration_count = bound;             /* of random executions */
    params.execution_depth_limit = 2000;
    params.context_bound = bound;               /* of rl::sched_bound, which ends when it has seen all */
    mutant_name = argc > 2 ? argv[2] : "";
    bool clean = rl::simulate<Test>(params);
    std::cout << (clean ? "clean " : "found ") << params.stop_iteration << std::endl;
    return clean ? 0 : 1;
}

#endif
