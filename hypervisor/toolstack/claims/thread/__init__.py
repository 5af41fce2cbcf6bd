"""The claims themselves, a module a subject: cmm2.md section 5 has them as they were said."""

from hypervisor.toolstack.claims.thread import (
    ballooning,
    bias,
    copies,
    growth,
    hints,
    hostcache,
    hostpolicy,
    ledger,
    overcommit,
    pagein,
    pools,
    settling,
    slabs,
    stalling,
    subset,
    swapping,
    valve,
)

SUBJECTS = (subset, swapping, copies, hostcache, pools, ledger, hints, hostpolicy, bias, pagein, ballooning,
            overcommit, growth, settling, stalling, slabs, valve)
