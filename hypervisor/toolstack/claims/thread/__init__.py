"""The claims themselves, a module a subject: cmm2.md section 5 has them as they were said."""

from hypervisor.toolstack.claims.thread import growth, settling, slabs, subset, swapping, valve

SUBJECTS = (subset, swapping, growth, settling, slabs, valve)
