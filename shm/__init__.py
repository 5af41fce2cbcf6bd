"""The ground that guests and the hypervisor both stand on; it imports neither of them.

    abi         every number that crosses the process border, once
    pagestate   the CMM2 state machine as tables
    statemap    a guest's two state arrays and the lock over both
    facilities  what a guest's processor makes of ESSA, and which exception it answers with
    releaselist KVM's release list: pages whose copies may go
    arena       shared memory objects: sparse, given back by punching holes, counted by the kernel
    channel     hypercalls over POSIX message queues, adaptive halt polling
    transfer    the buffer through which every page crosses between guest and hypervisor
    counters    a shared page of counters, one writer to each half
    names       what our objects are called, and what a killed cluster left behind
    door        the socket at which guests attach and people give orders
    diskcost    what a disk costs: models, and the queue before each
    directio    files past the page cache of the machine
    latency     how long operations took: a histogram
    errors      sorted by whose fault it is
    units       sizes as people write them
"""
