"""The claims themselves, a module a subject: cmm2.md section 5 has them as they were said."""

from hypervisor.toolstack.claims.thread import (
    bias,
    copies,
    hints,
    hostcache,
    hostpolicy,
    ledger,
    pagein,
    pools,
    subset,
    swapping,
)

SUBJECTS = (subset, swapping, copies, hostcache, pools, ledger, hints, hostpolicy, bias, pagein)
