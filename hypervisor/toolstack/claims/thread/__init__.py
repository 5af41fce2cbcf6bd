"""The claims themselves, a module a subject: cmm2.md section 5 has them as they were said."""

from hypervisor.toolstack.claims.thread import ballooning, growth, settling, slabs, subset, swapping, valve

SUBJECTS = (subset, swapping, ballooning, growth, settling, slabs, valve)
