"""The tmem store: pages that guests have put, in frames of the heap.

    store        what the rest of the hypervisor sees
    calls        the hypercalls of guests;  control  what the operator may ask

    shelf        all that is stored: room, publish, drop;  pressure  evict, write back, compact;  counts  its counters
    singles      put, get, flush, read, write of one page;  batches  of many
    membership   pools made, joined, left;  pools  their flags, numbers and counters
    clients      what is known of each guest;  shares  whose pages go (pure)

    catalogue    where each stored page is: handle -> page number -> place
    index        compact hash index: fixed-width keys -> small numbers
    ages         age order of stored pages

    storage      the bytes of stored pages, in whatever form (forms)
    slabs        slots for what is smaller than a frame;  dedup  frames that several pages share
    heap         frames of the heap object, and the few free ones it keeps

    targets      how many persistent pages each guest may put, by a policy
    stream       a guest's tmem as bytes;  saving  the source's side;  restoring  the target's
    figures, listing     what there is, as data and as Xen's lines
"""
