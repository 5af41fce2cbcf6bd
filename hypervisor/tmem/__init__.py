"""The tmem store: pages that guests have put, in frames of the heap.

    store       put, get, flush for single pages and in bulk; eviction; what the hypervisor calls
    pools       pools and their flags (Xen 4.2)
    catalogue   where each stored page is: handle -> page number -> frame
    index       compact hash index: fixed-width keys -> small numbers
    ages        global age order of ephemeral pages
    heap        frames of the heap object, and the few free ones it keeps
"""
