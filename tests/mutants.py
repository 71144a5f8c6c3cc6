"""Faults that are put into the engine, one at a time: each has to make a test fail.

A fault is a piece of the source's text and what stands there instead, so that the engine that is shipped carries
no trace of it.  The text occurs once in its file; where the engine changes, the table says so by failing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Killer:
    """A run of a program of tests/core that is expected to fail."""

    program: str
    flavour: str
    arguments: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [f"{self.program} ({self.flavour})", self.arguments]))


ORDERS = Killer("test_orders", "traced")
STORE = Killer("test_store", "plain", "1")
CHECK = Killer("test_check", "plain", "1")
CRASH = Killer("test_crash", "points", "1 1")
RACES = Killer("test_races", "points")
THREADS = Killer("test_threads", "plain", "1 2")
PROCESSES = Killer("test_processes", "plain", "1 2")
HOSTILE = Killer("test_hostile", "asan", "1 20")
END = Killer("test_bounds", "plain")
HASH = Killer("test_hash", "plain")
FRAME = Killer("test_frame", "plain", "1")
WAL = Killer("test_wal", "points", "1 12")
HANDLES = Killer("test_handles", "plain")
FILES = Killer("test_files", "plain", "")
DURABLE = Killer("test_durable", "points", "1 4")
DURABLE_EVICT = Killer("test_durable_evict", "points", "1")
# Tried in this order after the one that is expected.
ALL = (
    ORDERS, STORE, RACES, CHECK, CRASH, THREADS, PROCESSES, END, HOSTILE, HASH, FRAME, FILES, HANDLES, WAL, DURABLE,
    DURABLE_EVICT,
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    name: str
    fault: str  # what is wrong with it, for the table
    file: str  # below shmkv/_core
    old: str
    new: str
    killer: Killer = ORDERS  # expected; tried first


def mutant(name: str, fault: str, file: str, old: str, new: str, killer: Killer = ORDERS) -> Mutant:
    return Mutant(name, fault, file, old, new, killer)


FENCE = "    skv_fence_release();\n"
# ---- Orders and fences ---------------------------------------------------------------------------

MEMORY = (
    mutant(
        "record-fence",
        "no fence before a block is written",
        "store.c",
        f"{FENCE}    _Atomic uint64_t *words",
        "    _Atomic uint64_t *words",
    ),
    mutant(
        "table-fence",
        "no fence before a table is written",
        "store.c",
        "    skv_fence_release();        /* as in skv_write_record                                     */\n"
        "    skv_meta *meta",
        "    skv_meta *meta",
    ),
    mutant(
        "copy-fence",
        "no fence before a block is moved",
        "evacuate.c",
        "    skv_fence_release();        /* as in skv_write_record                                     */\n",
        "",
    ),
    mutant(
        "intent-fence",
        "no fence before an intent is written",
        "intent.c",
        "    skv_fence_release();        /* as in skv_write_record                                     */\n",
        "",
    ),
    mutant(
        "validate-fence",
        "no fence between copy and validation",
        "read.h",
        "    skv_fence_acquire();        /* pairs with the release fence before a block is written anew */\n",
        "",
    ),
    mutant(
        "bump-relaxed",
        "the bump does not release",
        "write.h",
        "skv_store_release(&bucket->seq",
        "skv_store(&bucket->seq",
    ),
    mutant(
        "overwrite-relaxed",
        "an overwrite does not release",
        "store.c",
        "skv_store_release(&hit->slot->a, a);",
        "skv_store(&hit->slot->a, a);",
    ),
    mutant(
        "insert-relaxed",
        "a new item is published without a release",
        "store.c",
        "skv_store_release(&slots[at].a, a);",
        "skv_store(&slots[at].a, a);",
    ),
    mutant(
        "table-relaxed",
        "a table is published without a release",
        "table.h",
        "skv_store_release(&bucket->table, word);",
        "skv_store(&bucket->table, word);",
    ),
    mutant(
        "status-relaxed",
        "the commit of a batch does not release",
        "intent.h",
        "skv_store_release(&store->proc->status",
        "skv_store(&store->proc->status",
    ),
    mutant(
        "find-relaxed",
        "the counter is read without an acquire",
        "read.h",
        "view->seq = skv_load_acquire(",
        "view->seq = skv_load(",
    ),
    mutant(
        "probe-relaxed",
        "a slot is read without an acquire",
        "table.h",
        "uint64_t a = skv_load_acquire(&slots[i].a);     /* pairs",
        "uint64_t a = skv_load(&slots[i].a);     /* pairs",
    ),
    mutant(
        "unlock-relaxed",
        "a lock is given up without a release",
        "lock.h",
        "atomic_exchange_explicit(lock, 0, memory_order_release)",
        "atomic_exchange_explicit(lock, 0, memory_order_relaxed)",
    ),
    mutant(
        "free-relaxed",
        "a block is freed without a release",
        "free.c",
        "~bit, memory_order_release) & ~bit;",
        "~bit, memory_order_relaxed) & ~bit;",
    ),
    mutant(
        "take-relaxed",
        "a block is taken without an acquire",
        "lease.c",
        "atomic_fetch_or_explicit(bits, taken, memory_order_acquire);",
        "atomic_fetch_or_explicit(bits, taken, memory_order_relaxed);",
    ),
    mutant(
        "grow-relaxed",
        "the region's growth is published without a release",
        "grow.c",
        "skv_store_release(&store->header->committed_pages, from + step);",
        "skv_store(&store->header->committed_pages, from + step);",
    ),
    mutant(
        "busy-relaxed",
        "an operation is announced without the order that audits rely on",
        "procs.h",
        "atomic_fetch_add_explicit(&proc->busy[entered & 1], 1, memory_order_seq_cst);",
        "atomic_fetch_add_explicit(&proc->busy[entered & 1], 1, memory_order_acquire);",
    ),
    mutant(
        "epoch-once",
        "the epoch is not read again after the announcement",
        "procs.h",
        "if (skv_likely(atomic_load_explicit(&store->header->epoch, memory_order_seq_cst) == epoch))",
        "if (skv_likely(epoch == epoch + 0 * entered))",
    ),
)

# ---- Steps that are swapped or left out -----------------------------------------------------------

STEPS = (
    mutant(
        "no-bump",
        "an overwrite is not bumped",
        "store.c",
        '    finish_locked(write);\n    SKV_CRASH("put.bumped");',
        '    SKV_CRASH("put.bumped");',
    ),
    mutant(
        "free-before-bump",
        "the old record is freed before the bump",
        "store.c",
        "        write->replaced = skv_slot_offset(hit->a);",
        '        skv_free(write->store, skv_slot_offset(hit->a));\n        SKV_CRASH("put.published");',
    ),
    mutant(
        "b-after-a",
        "a new item's B comes after its A",
        "store.c",
        '    skv_store(&slots[at].b, b);\n    SKV_CRASH("put.hinted");\n'
        "    skv_store_release(&slots[at].a, a);         /* the commit; pairs with skv_probe           */\n",
        '    skv_store_release(&slots[at].a, a);\n    skv_store(&slots[at].b, b);\n    SKV_CRASH("put.hinted");\n',
    ),
    mutant(
        "delete-no-bump",
        "a delete is not bumped",
        "store.c",
        "    skv_bump_locked(write->bucket);\n    drop_later(write",
        "    drop_later(write",
    ),
    mutant(
        "bump-before-txn",
        "a batch bumps before it names its intent",
        "batch.c",
        "        skv_store_release(&b->groups[i].bucket->txn, b->intent);\n"
        '        SKV_CRASH("batch.txn_set");\n        skv_bump_locked(b->groups[i].bucket);\n',
        "        skv_bump_locked(b->groups[i].bucket);\n"
        '        SKV_CRASH("batch.txn_set");\n'
        "        skv_store_release(&b->groups[i].bucket->txn, b->intent);\n",
    ),
    mutant(
        "txn-after-bump",
        "a batch clears its intent's name after the last bump",
        "batch.c",
        '    skv_store_release(&bucket->txn, 0);\n    SKV_CRASH("batch.txn_cleared");\n    skv_bump_locked(bucket);\n',
        '    skv_bump_locked(bucket);\n    skv_store_release(&bucket->txn, 0);\n    SKV_CRASH("batch.txn_cleared");\n',
    ),
    mutant(
        "never-pending",
        "a batch is committed before its intent is named",
        "intent.c",
        'skv_intent_status(generation, SKV_BATCH_PENDING));\n    SKV_CRASH("batch.pending");',
        'skv_intent_status(generation, SKV_BATCH_COMMITTED));\n    SKV_CRASH("batch.pending");',
    ),
    mutant(
        "unlock-early",
        "a batch's buckets are unlocked before it is applied",
        "batch.c",
        "    for (uint32_t i = 0; status == SKV_OK && i < b->group_count; i++) {\n        apply_group_locked",
        "    unlock_groups(b, b->group_count);\n"
        "    for (uint32_t i = 0; status == SKV_OK && i < b->group_count; i++) {\n        apply_group_locked",
    ),
    mutant(
        "lock-order",
        "a batch locks its buckets in no order",
        "batch.c",
        "        skv_status status = skv_lock_bucket(b->store, b->groups[i].bucket, b->wait);",
        "        skv_status status = skv_lock_bucket(b->store, b->groups[b->group_count - 1 - i].bucket, b->wait);",
    ),
    mutant(
        "no-lock",
        "a write does not lock its bucket",
        "store.c",
        "        skv_status status = skv_lock_bucket(store, write->bucket, write->wait);",
        "        skv_status status = SKV_OK;",
    ),
    mutant(
        "same-generation",
        "two batches of a process share a generation",
        "intent.c",
        "(skv_load(&store->proc->status) >> 2) + 1;",
        "(skv_load(&store->proc->status) >> 2);",
    ),
    mutant(
        "no-rebuild-count",
        "a table's replacement is not counted",
        "table.h",
        "    skv_store_release(&bucket->rebuilds, skv_load(&bucket->rebuilds) + 1);\n",
        "",
    ),
    mutant(
        "descriptors-last",
        "the region's end moves before its pages are allocated",
        "grow.c",
        '    SKV_CRASH("grow.descriptors");\n',
        '    skv_store_release(&store->header->committed_pages, from + step);\n    SKV_CRASH("grow.descriptors");\n',
    ),
    mutant(
        "table-under-lock",
        "the region is not re-read for a record beyond its old end",
        "table.h",
        "             || skv_read_head(store, skv_slot_offset(a), &hit->head))",
        "             || false)",
        RACES,
    ),
)

# ---- Reading ---------------------------------------------------------------------------------------

READING = (
    mutant(
        "no-validation",
        "a read is not validated",
        "read.h",
        "    return skv_load_acquire(&view->bucket->seq) == view->seq\n",
        "    return view->seq == view->seq\n",
    ),
    mutant(
        "no-status-check",
        "a read through an intent does not look at its status again",
        "read.h",
        "           && (skv_likely(!view->status_word) || skv_load_acquire(view->status_word) == view->status);",
        "           && (skv_likely(!view->status_word) || true);",
    ),
    mutant(
        "no-overlay",
        "a reader does not look into a committed intent",
        "read.h",
        "    if (skv_unlikely(txn != 0) && skv_overlay_find(store, txn, key, view))\n        return;\n",
        "",
    ),
    mutant(
        "doomed-seen",
        "a reader sees what a committed delete_many removed",
        "intent.c",
        "    view->doom_counts = it.action == SKV_INTENT_REMOVE;\n",
        "",
        CRASH,
    ),
    mutant(
        "collect-once",
        "a batch of reads is not collected twice",
        "read.c",
        "        if (!is_same(store, &keys[i], &views[i]))\n            return false;\n",
        "        if (skv_unlikely(!keys[i].data))\n            return is_same(store, &keys[i], &views[i]);\n",
        RACES,
    ),
    mutant(
        "expiry-not-compared",
        "the second collect does not look at the expiry",
        "read.c",
        "            && skv_load(skv_expiry_word(store, skv_slot_offset(view->a))) != view->expires_ms)",
        "            && view->expires_ms == 1)",
        RACES,
    ),
    mutant(
        "expired-alive",
        "what has expired is still found",
        "read.h",
        "skv_now_ms(store) >= expires_ms;",
        "skv_now_ms(store) > expires_ms + 10;",
        STORE,
    ),
    mutant(
        "probe-stops",
        "a probe stops at a tombstone",
        "table.h",
        "        if (a == SKV_EMPTY)\n            return;\n        if (skv_slot_tag(a) != tag ||",
        "        if (a == SKV_EMPTY || a == SKV_TOMBSTONE)\n            return;\n        if (skv_slot_tag(a) != tag ||",
        STORE,
    ),
    mutant(
        "tag-is-key",
        "two keys with one tag are taken for one",
        "table.h",
        "            && skv_head_has_key(&hit->head, key)) {",
        "            && hit->head.key_len == key->len) {",
        STORE,
    ),
    mutant(
        "warm-anything",
        "a late reader sets a clock bit in whatever lies there now",
        "evict.c",
        "    if (b == 0 || clock == 3 || (clock > 0 && ++reads % WARM_PART) || skv_load(slot_b) != b)\n        return;",
        "    if (clock == 3 || (clock > 0 && ++reads % WARM_PART))\n        return;\n    b = skv_load(slot_b);",
        RACES,
    ),
)

# ---- Repair and death --------------------------------------------------------------------------------

REPAIR = (
    mutant(
        "no-recount",
        "a repair does not count anew",
        "repair.c",
        '    skv_recount_locked(store, bucket);\n    SKV_CRASH("repair.counted");',
        '    SKV_CRASH("repair.counted");',
        CRASH,
    ),
    mutant(
        "repair-no-bump",
        "a repair does not bump",
        "repair.c",
        '    SKV_CRASH("repair.counted");\n    skv_bump_locked(bucket);',
        '    SKV_CRASH("repair.counted");',
        RACES,
    ),
    mutant(
        "repair-drops",
        "a repair drops a committed intent",
        "intent.c",
        "    if (open_intent(store, txn, &it) && decide_locked(",
        "    if (open_intent(store, txn, &it) && it.count == UINT32_MAX && decide_locked(",
        CRASH,
    ),
    mutant(
        "repair-applies",
        "a repair applies an intent that was not committed",
        "intent.c",
        "    if (open_intent(store, txn, &it) && decide_locked(",
        "    if (open_intent(store, txn, &it) || decide_locked(",
        CRASH,
    ),
    mutant(
        "b-not-mended",
        "a repair does not mend B",
        "repair.c",
        "    if (b != mended)\n        skv_store(&slot->b, mended);",
        "    if (b == mended + 1)\n        skv_store(&slot->b, mended);",
        RACES,
    ),
    mutant(
        "no-takeover",
        "nobody takes a dead process's lock",
        "lock.c",
        "    if (!store->os.claim_dead(store->os.context, owner))\n        return false;\n"
        "    bool taken = skv_lock_take_from(store, lock, owner, repair, guarded);",
        "    if (owner < SKV_PROCS || !store->os.claim_dead(store->os.context, owner))\n        return false;\n"
        "    bool taken = skv_lock_take_from(store, lock, owner, repair, guarded);",
        RACES,
    ),
    mutant(
        "takeover-no-repair",
        "a dead process's lock is taken and nothing repaired",
        "lock.c",
        "    if (repair)\n        repair(store, guarded);\n",
        "    if (repair && dead_slot == SKV_PROCS)\n        repair(store, guarded);\n",
        CRASH,
    ),
    mutant(
        "takeover-gives-up",
        "a takeover gives up when others begin to wait",
        "lock.c",
        "    } while (!atomic_compare_exchange_weak_explicit(lock, &word, mine, memory_order_acquire, ",
        "        if (skv_load(lock) != word)\n            return false;\n"
        "    } while (!atomic_compare_exchange_weak_explicit(lock, &word, mine, memory_order_acquire, ",
        RACES,
    ),
    mutant(
        "row-freed-early",
        "a dead process's row is freed while its intent is in use",
        "procs.c",
        "    if (!clean)\n        return false;\n",
        "",
        RACES,
    ),
    mutant(
        "pages-not-disowned",
        "a dead process keeps its pages",
        "procs.c",
        "    skv_pages_disown(store, slot);\n",
        "",
        CRASH,
    ),
    mutant(
        "tails-not-repaired",
        "a takeover of the allocator leaves the tails of a run",
        "pages.c",
        "                skv_page_set_word(store, page + i, skv_pw_make(SKV_PAGE_TAIL, 0, 0, 0, i));\n"
        "                skv_store(&store->kinds[page + i], SKV_KIND_RUN);\n            }\n        } else",
        "                skv_store(&store->kinds[page + i], SKV_KIND_RUN);\n            }\n        } else",
        CRASH,
    ),
    mutant(
        "one-grace-period",
        "an audit waits for one parity only",
        "procs.c",
        "    return wait_for_parity(store, deadline) && wait_for_parity(store, deadline);",
        "    return wait_for_parity(store, deadline);",
        RACES,
    ),
    mutant(
        "audit-at-once",
        "an audit does not wait for operations in flight",
        "compact.c",
        "    if (skv_grace_period(store, GRACE_MS)) {",
        "    if (store) {",
        RACES,
    ),
    mutant(
        "wake-nobody",
        "who unlocks wakes nobody",
        "lock.h",
        "    if (skv_unlikely(old & SKV_LOCK_WAITERS))",
        "    if (skv_unlikely(old == SKV_LOCK_WAITERS))",
    ),
)

# ---- Bounds and counts ----------------------------------------------------------------------------------

BOUNDS = (
    mutant(
        "record-unbounded",
        "a record's length is not bounded",
        "table.h",
        "    return skv_likely(skv_record_size(record.key_len, record.value_len, has_expiry) <= end - offset);",
        "    return skv_likely(record.key_len <= end - offset);",
        END,
    ),
    mutant(
        "table-unbounded",
        "a table word is not bounded",
        "table.h",
        "offset < store->pages_offset || offset + skv_table_bytes(capacity) > end))\n        return;",
        "offset < store->pages_offset || offset > end))\n        return;",
        END,
    ),
    mutant(
        "intent-unbounded",
        "an intent's length is not bounded",
        "intent.c",
        "           && (in_row ? head.count <= 1 : skv_in_pages(store, txn, skv_intent_size(head.count)));",
        "           && (in_row ? head.count <= 1 : skv_in_pages(store, txn, sizeof head));",
        END,
    ),
    mutant(
        "entry-unbounded",
        "an intent's slot index is not bounded",
        "intent.c",
        "    if (!slots || entry->index >= skv_table_capacity(table))",
        "    if (!slots)",
        END,
    ),
    mutant(
        "count-not-kept",
        "an insert does not count",
        "store.c",
        "    skv_store(&bucket->count, skv_load(&bucket->count) + 1);\n",
        "",
        STORE,
    ),
    mutant(
        "load-limit",
        "a table is filled to the last slot",
        "table.h",
        "    return capacity * (179 + spread) >> 8;",
        "    return capacity + 0 * spread;",
        CHECK,
    ),
    mutant(
        "units-overlap",
        "a block of units is one unit too short",
        "lease.c",
        "    uint32_t at = find_units(skv_load(&desc->bitmap[0]), n);",
        "    n -= n > 1;\n    uint32_t at = find_units(skv_load(&desc->bitmap[0]), n);",
        STORE,
    ),
    mutant(
        "punched-by-kind",
        "a page is taken for one that was given back because its kind says so",
        "grow.c",
        "        if (skv_pw_state(skv_load(&store->pages[page].word)) == SKV_PAGE_PUNCHED)\n            return page;",
        "        if (page < end)\n            return page;",
        STORE,
    ),
    mutant(
        "grown-is-room",
        "a growth that others used up counts as room",
        "alloc.c",
        "    if (status)\n        *reason = status;\n    return status;",
        "    *reason = status;\n    return status;",
        RACES,
    ),
    mutant(
        "spare-any-class",
        "a spare block is reused for another size",
        "spare.h",
        "store->spare_class == skv_class_of(SKV_RECORDS, size) && !skv_load",
        "store->spare_class <= SKV_CLASSES && skv_class_of(SKV_RECORDS, size) < SKV_CLASSES && !skv_load",
        CRASH,
    ),
    mutant(
        "the-dead-keep-theirs",
        "what dead processes kept for their next call stays until somebody compacts",
        "kept.c",
        "            some |= return_of(store, slot);\n",
        "            some |= slot == SKV_PROCS && return_of(store, slot);\n",
        PROCESSES,
    ),
    mutant(
        "spare-of-the-living",
        "growth takes what living processes keep as well",
        "kept.c",
        "|| !store->os.claim_dead(store->os.context, slot))",
        "|| (!store->os.claim_dead(store->os.context, slot) && slot == SKV_PROCS))",
        PROCESSES,
    ),
    mutant(
        "spares-at-once",
        "a batch puts tables in place while others of its buckets still lack one",
        "batch.c",
        "        note_need_locked(b, g);\n        ready",
        "        note_need_locked(b, g);\n"
        "        if (g->needed && !g->wanted) {\n"
        "            use_spare_locked(b, g);\n"
        "            note_need_locked(b, g);\n"
        "            if (b->freed_count)\n"
        "                skv_free(b->store, b->freed[--b->freed_count]);\n"
        "        }\n"
        "        ready",
        STORE,
    ),
    mutant(
        "spare-kept-twice",
        "a spare block is kept in the place of another one",
        "spare.h",
        "!wait->shared && !store->spare && !skv_load",
        "!wait->shared && !skv_load",
        STORE,
    ),
    mutant(
        "spare-not-asked",
        "a spare block is used although another process took it",
        "spare.h",
        "memory_order_acq_rel) != spare))\n        return 0;",
        "memory_order_acq_rel) == 1))\n        return 0;",
        RACES,
    ),
    mutant(
        "later-loses",
        "of two equal keys in a batch the earlier wins",
        "batch.c",
        "        if (!later)\n            items[kept++] = items[i];",
        "        later = false;\n        for (uint32_t j = 0; j < kept && !later; j++)\n"
        "            later = same_key(items[i], items[j]);\n        if (!later)\n            items[kept++] = items[i];",
        STORE,
    ),
)

# ---- The log ---------------------------------------------------------------------------------------

LOG = (
    mutant(
        "head-not-synced",
        "the head of a segment is not synced before its frames",
        "wal.c",
        "    if (status == 0)\n        status = wal->files.sync(wal->files.context, handle);\n    SKV_CRASH",
        "    SKV_CRASH",
        WAL,
    ),
    mutant(
        "rotated-unsynced",
        "a segment is not synced before the next one begins",
        "wal.c",
        '    SKV_CRASH("wal.shortened");\n    if (status == 0)\n',
        '    SKV_CRASH("wal.shortened");\n    if (false)\n',
        WAL,
    ),
    mutant(
        "end-too-late",
        "who syncs asks for the end after the sync",
        "wal.c",
        '    SKV_CRASH("wal.synced");\n',
        "    end = skv_load_acquire(&wal->state->end);\n",
        WAL,
    ),
    mutant(
        "memory-first",
        "a durable change is committed in memory before it is in the log",
        "logged.c",
        "    announce_locked(write, slot, entry);\n    skv_status",
        "    announce_locked(write, slot, entry);\n"
        "    skv_intent_commit(write->store, write->generation);\n    skv_status",
        DURABLE,
    ),
    mutant(
        "eviction-not-logged",
        "what a durable store evicts stays on the disk",
        "evict.c",
        "        v->status = log_chosen_locked(v);\n",
        "        v->status = v->store ? SKV_OK : log_chosen_locked(v);\n",
        DURABLE_EVICT,
    ),
    mutant(
        "evicted-before-it-is-logged",
        "an item goes from memory before the deletion is in the log",
        "evict.c",
        """    if (v->chosen_count)
        v->status = log_chosen_locked(v);
    for (uint32_t i = 0; i < v->chosen_count && v->status == SKV_OK; i++)
        remove_chosen_locked(v, bucket, &v->chosen[i]);
""",
        """    for (uint32_t i = 0; i < v->chosen_count; i++)
        remove_chosen_locked(v, bucket, &v->chosen[i]);
    if (v->chosen_count)
        v->status = log_chosen_locked(v);
""",
        DURABLE_EVICT,
    ),
    mutant(
        "evicted-twice",
        "an item of a bucket that a visit meets twice is removed twice",
        "evict.c",
        "    if (is_chosen(v, slot))\n",
        "    if (is_chosen(v, slot) && v->chosen_count > VISIT_MOST)\n",
        ORDERS,
    ),
    mutant(
        "eviction-despite-its-log",
        "what the log could not take is evicted all the same",
        "evict.c",
        "i < v->chosen_count && v->status == SKV_OK; i++",
        "i < v->chosen_count; i++",
        DURABLE_EVICT,
    ),
    mutant(
        "whole-frame-cut",
        "the whole frame of a dead writer is cut off",
        "journal.c",
        "skv_wal_repair_locked(&store->journal->wal, commit_dead_writer, store);",
        "skv_wal_repair_locked(&store->journal->wal, NULL, store);\n    (void)commit_dead_writer;",
        DURABLE,
    ),
    mutant(
        "empty-frame-cut",
        "the frame that a dead process vouched with is cut off, though it was counted",
        "journal.c",
        "    if (skv_load(&log_of(store)->writer) == 0) ",
        "    if (false) ",
        DURABLE,
    ),
    mutant(
        "sync-without-row",
        "a forked child whose first call is a sync takes the lock of the log without a name",
        "journal.c",
        "status = skv_register(store);\n    if (status)\n        return status;\n    status = SKV_BUSY;",
        "status = SKV_BUSY;",
        DURABLE,
    ),
    mutant(
        "frame-without-commit",
        "the whole frame of a dead writer counts, and its change does not",
        "journal.c",
        "    return done || seen == committed;",
        "    skv_store_release(&store->procs[slot].status, pending);\n    return done || seen == committed;",
        DURABLE,
    ),
    mutant(
        "batch-not-withdrawn",
        "a batch that the log did not take stays announced",
        "batch.c",
        "        withdraw_locked(b, *generation);\n",
        "        (void)withdraw_locked;\n",
        DURABLE,
    ),
    mutant(
        "touch-not-logged",
        "a new ttl of a durable store is not in the log",
        "store.c",
        "    if (!write->frame && (hit->head.flags & SKV_REC_EXPIRY)) {",
        "    if (hit->head.flags & SKV_REC_EXPIRY) {",
        DURABLE,
    ),
    mutant(
        "boot-time-on-disk",
        "a ttl is on disk as time since the boot",
        "journal.c",
        "    uint64_t moved = wall_now_ms(store) + boot_ms - skv_now_ms(store);",
        "    uint64_t moved = wall_now_ms(store) * 0 + boot_ms;",
        DURABLE,
    ),
    mutant(
        "snapshot-not-synced",
        "a snapshot is renamed before it is on stable storage",
        "checkpoint.c",
        "        status = w->files.sync(w->files.context, w->handle);\n",
        "",
        DURABLE,
    ),
    mutant(
        "log-dropped-first",
        "the log before a snapshot goes before the snapshot is there",
        "checkpoint.c",
        "    status = publish_file(w);\n",
        "    remove_older(w);\n    status = publish_file(w);\n",
        DURABLE,
    ),
    mutant(
        "name-not-synced",
        "the log before a snapshot goes before the snapshot's name is on stable storage",
        "checkpoint.c",
        "    return status ? status : w->files.sync_folder(w->files.context);",
        "    return status;",
        DURABLE,
    ),
    mutant(
        "half-kept",
        "what a failed write has written stays",
        "wal.c",
        "        int cut = is_own(wal, wal->handle, wal->identity) ? wal->files.truncate(",
        "        int cut = true ? 0 : false ? wal->files.truncate(",
        WAL,
    ),
    mutant(
        "half-not-cut",
        "what a dead writer has written stays",
        "wal.c",
        '    SKV_CRASH("wal.voided");\n    status = wal->files.truncate(wal->files.context, wal->handle, '
        "place_of(wal, skv_load(&state->end)));\n",
        '    SKV_CRASH("wal.voided");\n',
        WAL,
    ),
    mutant(
        "not-shortened",
        "a segment that is not the last one ends with what was laid out ahead",
        "wal.c",
        "    if (wal->ahead)\n        status = wal->files.truncate(",
        "    if (wal->ahead == 1)\n        status = wal->files.truncate(",
        DURABLE,
    ),
    mutant(
        "tail-not-cut",
        "what is behind the last whole frame stays when the log is opened",
        "wal.c",
        "    status = wal->files.truncate(wal->files.context, handle, SKV_SEGMENT_HEAD + end - segment->base);\n",
        "",
        WAL,
    ),
    mutant(
        "sync-tried-again",
        "after a sync that failed the next one counts",
        "wal.c",
        "        return fail(wal, status);\n    return lost ? -EBADF : 0;\n",
        "        return status;\n    return lost ? -EBADF : 0;\n",
        WAL,
    ),
    mutant(
        "read-is-believed",
        "what is read from a log counts as being on the disk",
        "wal.c",
        "    int status = skv_write_again(wal->files, segment->number, synced, end);\n",
        "    int status = 0;\n    (void)synced;\n",
        WAL,
    ),
    mutant(
        "again-from-cache",
        "frames that are written again are not those that were read",
        "again.c",
        "    w->at = reader->at;\n",
        "    w->at = reader->at + 8;\n",
        WAL,
    ),
    mutant(
        "dead-leader-believed",
        "after a dead leader, who may have been told that its sync failed, the next one counts",
        "wal.c",
        "    int status = write_again(wal, skv_load_acquire(&wal->state->end));\n",
        "    int status = 0;\n",
        WAL,
    ),
    mutant(
        "dead-leader-not-repaired",
        "a dead leader's lock is taken from it, and nothing is written again",
        "journal.c",
        "skv_lock_repair_if_dead(context, lock, repair_lead, NULL)",
        "skv_lock_repair_if_dead(context, lock, NULL, NULL)",
        DURABLE,
    ),
    mutant(
        "stopped-leader-believed",
        "beside a stopped leader, who may have been told that its sync failed, a sync counts",
        "wal.c",
        "    int status = write_again(wal, end);\n",
        "    int status = 0;\n",
        WAL,
    ),
    mutant(
        "success-beside-failure",
        "a sync counts although another one beside it failed",
        "wal.c",
        "    if (skv_load_acquire(&wal->state->failed))\n        return -EROFS;\n    raise_synced",
        "    raise_synced",
        WAL,
    ),
    mutant(
        "lock-names-a-free-row",
        "a row is given back although a lock of the log names it",
        "journal.c",
        "!names(&log->lock, dead_slot) && !names(&log->sync_lock, dead_slot) && "
        "!names(&store->header->checkpoint_lock, dead_slot)\n           && ",
        "names(&log->lock, dead_slot) * 0 == 0 && ",
        DURABLE,
    ),
    mutant(
        "writer-is-a-free-row",
        "a dead writer's row is given back before its frame is decided",
        "journal.c",
        "(skv_load(&log->lock) == 0 || skv_load(&log->writer) != dead_slot + 1)",
        "skv_load(&log->writer) < UINT32_MAX",
        DURABLE,
    ),
    mutant(
        "snapshot-ahead-of-log",
        "a snapshot does not wait for the writer whose change it shows",
        "journal.c",
        "    skv_status status = skv_journal_lock_within(store, timeout_ns);\n    if (status)\n        return status;\n"
        '    SKV_CRASH("journal.looked");\n    uint64_t end = skv_load(&log_of(store)->end);\n'
        "    int there = skv_wal_look_locked(&store->journal->wal);\n    skv_journal_unlock(store);\n",
        "    uint64_t end = skv_load(&log_of(store)->end);\n    int there = 0;\n",
        DURABLE,
    ),
    mutant(
        "rot-is-a-cut",
        "damage in what was acknowledged is cut off",
        "segment.c",
        "        if (fault == SKV_FRAME_OK && view.sequence > reader->sequence && view.synced > position)\n"
        "            return SKV_READ_ROTTEN;\n",
        "",
        WAL,
    ),
    mutant(
        "sequence-not-compared",
        "a frame is taken whatever its number",
        "segment.c",
        "fault == SKV_FRAME_OK && view->sequence == reader->sequence + 1)",
        "fault == SKV_FRAME_OK)",
        WAL,
    ),
    mutant(
        "in-vain-goes-on",
        "a segment that was begun in vain is gone on with",
        "recover.c",
        "out->end == hollow->base && out->cut == 0 ? read_segment",
        "out->cut == 0 ? read_segment",
        WAL,
    ),
    mutant(
        "length-not-bounded",
        "the lengths inside a frame are not bounded",
        "frame.c",
        " || key_len > left || value_len > left - key_len)",
        ")",
        FRAME,
    ),
    mutant(
        "padding-not-read",
        "what fills a frame up may be anything",
        "frame.c",
        "\n        || !all_zero(at + SKV_FRAME_HEAD + length, padded(length) - SKV_FRAME_HEAD - length))",
        ")",
        FRAME,
    ),
    mutant(
        "lost-handle-fails",
        "a write to a descriptor that user code has closed is taken for a failure of the disk",
        "wal.c",
        "status && i < LOSSES && !is_own(wal, wal->handle, wal->identity)",
        "status && i < LOSSES && false",
        HANDLES,
    ),
    mutant(
        "lost-handle-forever",
        "a descriptor that was ours once is ours for ever",
        "wal.c",
        "wal->handle >= 0 && wal->asked == now && ",
        "wal->handle >= 0 && wal->asked && ",
        HANDLES,
    ),
    mutant(
        "segment-asked-lately",
        "whoever has just written goes on in a segment that others have left",
        "wal.c",
        "wal->asked == now && wal->number == skv_load(&wal->state->segment)))\n",
        "wal->asked == now))\n",
        HANDLES,
    ),
    mutant(
        "lost-sync-fails",
        "a sync of a descriptor that user code has closed is taken for a failure of the disk",
        "wal.c",
        "(lost && (status == -EBADF || status == -EINVAL))",
        "(lost && false)",
        HANDLES,
    ),
    mutant(
        "sync-failure-lost",
        "an error of the disk is forgotten where its descriptor was closed at the same moment",
        "wal.c",
        "(lost && (status == -EBADF || status == -EINVAL))",
        "lost",
        HANDLES,
    ),
    mutant(
        "lost-sync-counts",
        "a sync counts though its descriptor may have been another file's",
        "wal.c",
        "    return lost ? -EBADF : 0;\n",
        "    return 0;\n",
        HANDLES,
    ),
    mutant(
        "lost-repair-fails",
        "a repair whose descriptor user code has closed is taken for a failure of the disk",
        "wal.c",
        "status == -EBADF && i < LOSSES; i++)\n        status = repair_once_locked",
        "status == -EBADF && i < 1; i++)\n        status = repair_once_locked",
        HANDLES,
    ),
    mutant(
        "repaired-from-another",
        "what a repair has read counts though its descriptor may have been another file's",
        "wal.c",
        "(!is_own(wal, wal->handle, wal->identity))\n        return -EBADF;\n    if (status)",
        "(false)\n        return -EBADF;\n    if (status)",
        HANDLES,
    ),
    mutant(
        "cut-of-another",
        "what a repair has cut off counts though its descriptor may have been another file's",
        "wal.c",
        "return is_own(wal, wal->handle, wal->identity) ? status : -EBADF;",
        "return status;",
        HANDLES,
    ),
    mutant(
        "lost-lead-fails",
        "frames that are written again for a dead leader are not, where user code closes the descriptor",
        "wal.c",
        "(status == -EBADF && ++losses < LOSSES)",
        "(status == -EBADF && ++losses < 1)",
        HANDLES,
    ),
    mutant(
        "again-to-another",
        "frames count as written again though their descriptor may have been another file's",
        "again.c",
        "    if (!is_own(w))\n",
        "    if (false)\n",
        HANDLES,
    ),
    mutant(
        "read-of-another",
        "the end of another file counts as the end of the log",
        "segment.c",
        "return is_own(reader) ? got : -EBADF;",
        "return got;",
        HANDLES,
    ),
    mutant(
        "opened-unnamed",
        "what was opened is not compared with what its name says",
        "os_files.c",
        "if (high_is_ours)\n",
        "if (high_is_ours || high >= 0)\n",
        FILES,
    ),
    mutant(
        "list-of-another",
        "the names in another folder are taken for those of the log",
        "os_files.c",
        "low < 0 ? -1 : moved_up(low, f->dev, f->ino);",
        "low;",
        FILES,
    ),
    mutant(
        "closes-another",
        "a low number is closed whatever it stands for by now",
        "os_files.c",
        "    if (low_is_ours)\n        close(fd);\n",
        "    if (low_is_ours || fd >= 0)\n        close(fd);\n",
        FILES,
    ),
)

MUTANTS = MEMORY + STEPS + READING + REPAIR + BOUNDS + LOG

# Those that let an operation be seen half done, twice or in the past by whoever comes at the right moment: recorded
# histories have to show it.  Left out: what needs a processor that orders less than x86 (MEMORY), and free-before-bump,
# bump-before-txn and txn-after-bump, whose windows are a few instructions long: test_orders finds them.
BREAK_ATOMICITY = (
    "no-bump",
    "delete-no-bump",
    "never-pending",
    "unlock-early",
    "no-lock",
    "no-validation",
    "no-status-check",
    "no-overlay",
    "doomed-seen",
    "collect-once",
    "repair-no-bump",
    "repair-drops",
    "repair-applies",
    "no-takeover",
    "takeover-no-repair",
)
