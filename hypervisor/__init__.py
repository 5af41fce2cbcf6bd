"""The hypervisor: it owns the frames, the tmem store, the host side of CMM2, the swap disk and the policies.

It never imports guests; guests are separate processes that attach at the door.

    machine      composition root: builds the parts, runs the event loop, stops them
    dispatch     hypercall -> what carries it out
    gate         attaching guests at the door
    orders       what people ask and order through the door
    states       of these: page states shown, moved to another host, reset; frames taken for a test
    processor    trapped ESSA, diag 10, reset, the release list; `usage` writes the guest's word down
    domains      what is known of each guest
    ledger       frames: who holds how many, and the budget
    cmm2         host half of CMM2 that takes frames: evict, discard, preserve
    giving       ... and the half that gives them: zero-fill, page in, discard faults
    granting     room for what is given, within the budget and max_mem
    faults       hardware faults; `onepage` serves the usual one, `handover` checks what a guest hands over
    mapping      a guest's registered memory, from outside; `references` are its access bits
    swap         the hypervisor's swap disk; `swapcost` what it costs by a stated model, and who waits
    tmem/        pools, store, heap
    census       usage by content, as the CMM2 patches showed it (pure)
    policy/      census in, plan out
    reclaim      takes the census, carries the plan out
    audit        the kernel's count against the ledger
    allowance    how many persistent tmem pages a guest may still put
    ballooning   tells guests how many pages to have
    schemes      how a cluster overcommits, as a table
    toolstack/   run, serve, ctl, clean: what Xen's xl is to Xen
"""
