"""The claims themselves, a module a subject: cmm2.md section 5 has them as they were said."""

from hypervisor.toolstack.claims.thread import bias, hints, hostpolicy, ledger, pagein, subset, swapping

SUBJECTS = (subset, swapping, ledger, hints, hostpolicy, bias, pagein)
