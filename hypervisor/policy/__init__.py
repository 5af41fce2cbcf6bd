"""Reclaim policies: pure functions from a census to a plan.

    census   what a policy is told, and the plan it returns
    clock    one hand over guest pages and ephemeral pages alike: `hint-after-choice`, the faithful one,
             `u-e-v-p-s`, the counterfactual that looks at the hint before it chooses, and what lies between
    balloon  how many pages each guest is told to have
    targets  how many persistent tmem pages each guest may put

A policy touches nothing.  The census may be stale when its plan is carried out, so a plan is a wish.
"""

from collections.abc import Callable
from functools import partial

from hypervisor.policy.census import Census, Plan
from hypervisor.policy.clock import biased, hint_after_choice, u_e_v_p_s

Policy = Callable[[Census, int], Plan]

POLICIES: dict[str, Policy] = {"hint-after-choice": hint_after_choice, "u-e-v-p-s": u_e_v_p_s}


def policy_of(reclaim: str, bias: float = 0.0) -> Policy:
    """Return a policy by its name; `bias` (0 to 1) leads from hint-after-choice to u-e-v-p-s."""
    return partial(biased, bias=bias) if bias else POLICIES[reclaim]
