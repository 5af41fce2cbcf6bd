"""The clock: who gives frames, in which order, as cases by hand and as rules that hold for every census."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.policy import POLICIES, policy_of
from hypervisor.policy.census import EPHEMERAL, Census, Hand, Holding, Plan
from hypervisor.policy.clock import biased, hint_after_choice, u_e_v_p_s
from shm.pagestate import State

ALL_STATES = {"Sr": State.Sr, "Sp": State.Sp, "Sz": State.Sz, "Ur": State.Ur, "Uz": State.Uz, "Vr": State.Vr,
              "Vz": State.Vz, "Pr": State.Pr}


def holding(owner, pages):
    """A guest as a line of pages: `Vr*` is referenced, `Sr!` in its grace."""
    names = pages.split()
    return Holding(owner, np.array([ALL_STATES[name[:2]] for name in names], np.uint8),
                   np.array(["*" in name for name in names], bool), np.array(["!" in name for name in names], bool))


def census(guests, hand=(EPHEMERAL, 0), ephemeral=0, aged=0, heap_free=0, can_preserve=True):
    return Census(tuple(holding(owner, pages) for owner, pages in guests.items()), ephemeral, aged, heap_free,
                  can_preserve, Hand(*hand))


def shown(plan: Plan) -> dict:
    """A plan in words that can be written down: only what it does."""
    words = {"trim": plan.trim, "evict": [(owner, pages.tolist()) for owner, pages in plan.evict],
             "ephemeral": plan.ephemeral, "clear": [(owner, pages.tolist()) for owner, pages in plan.unreference],
             "passed": plan.passed_ephemeral, "hand": (plan.hand.owner, plan.hand.page)}
    return {word: value for word, value in words.items() if value or word == "hand"}


E = EPHEMERAL
CASES = {
    # what the census says, frames wanted, what the plan does
    "nothing wanted": (
        census({0: "Vr Sr"}), 0, {"hand": (E, 0)}),
    "free heap frames before all else": (
        census({0: "Ur Vr"}, heap_free=3), 2, {"trim": 2, "hand": (E, 0)}),
    "unused pages before the hand moves": (
        census({0: "Vr Ur", 1: "Ur Ur"}, (0, 0), heap_free=1), 3,
        {"trim": 1, "evict": [(0, [1]), (1, [0])], "hand": (0, 0)}),
    "unused pages even in their grace": (
        census({0: "Ur! Ur*"}), 2, {"evict": [(0, [0, 1])], "hand": (E, 0)}),
    "the hand takes what it finds, blind to the hint": (
        census({0: "Sr Vr Pr Sr"}, (0, 0)), 3, {"evict": [(0, [0, 1, 2])], "hand": (0, 3)}),
    "it goes on where it stood": (
        census({0: "Vr Vr Vr Vr"}, (0, 2)), 1, {"evict": [(0, [2])], "hand": (0, 3)}),
    "round the ring and to the start": (
        census({0: "Vr Vr", 1: "Vr"}, (1, 0)), 3, {"evict": [(1, [0]), (0, [0, 1])], "passed": True, "hand": (0, 2)}),
    "a referenced page has a second chance": (
        census({0: "Vr* Vr Vr*"}, (0, 0)), 1, {"evict": [(0, [1])], "clear": [(0, [0])], "hand": (0, 2)}),
    "and no third": (
        census({0: "Vr* Vr*"}, (0, 0)), 2,
        {"evict": [(0, [0, 1])], "clear": [(0, [0, 1])], "passed": True, "hand": (0, 2)}),
    "the hand clears no further than it went": (
        census({0: "Vr* Vr Vr* Vr"}, (0, 0)), 1, {"evict": [(0, [1])], "clear": [(0, [0])], "hand": (0, 2)}),
    "a page in its grace is no victim": (
        census({0: "Vr! Vr"}, (0, 0)), 2, {"evict": [(0, [1])], "passed": True, "hand": (0, 0)}),
    "what has no frame gives none": (
        census({0: "Sp Sz Uz Vz Sp* Vr"}, (0, 0)), 2, {"evict": [(0, [5])], "passed": True, "hand": (0, 0)}),
    "stable pages only where they can be preserved": (
        census({0: "Sr Vr Pr"}, (0, 0), can_preserve=False), 3,
        {"evict": [(0, [1, 2])], "passed": True, "hand": (0, 0)}),
    "aged ephemeral pages when the hand comes by": (
        census({0: "Vr"}, ephemeral=5, aged=3), 2, {"ephemeral": 2, "hand": (E, 0)}),
    "young ephemeral pages have a second chance": (
        census({0: "Vr"}, ephemeral=2, aged=0), 1, {"evict": [(0, [0])], "passed": True, "hand": (0, 1)}),
    "and are taken when the hand comes again": (
        census({0: "Sz"}, ephemeral=2, aged=0), 1, {"ephemeral": 1, "passed": True, "hand": (E, 0)}),
    "guests and store take their turns": (
        census({0: "Vr Vr"}, (0, 1), ephemeral=1, aged=1), 2,
        {"evict": [(0, [1])], "ephemeral": 1, "hand": (E, 0)}),
    "a guest that left is stepped over": (
        census({1: "Vr", 5: "Vr"}, (3, 7)), 1, {"evict": [(5, [0])], "hand": (5, 1)}),
    "the last guest left": (
        census({1: "Vr"}, (9, 4), ephemeral=1, aged=1), 1, {"ephemeral": 1, "hand": (9, 4)}),
    "a hand beyond the pages of its guest": (
        census({0: "Vr"}, (0, 9)), 1, {"evict": [(0, [0])], "passed": True, "hand": (0, 1)}),
    "nobody there": (
        census({}), 5, {"passed": True, "hand": (E, 0)}),
}


@pytest.mark.parametrize(("told", "wanted", "does"), CASES.values(), ids=list(CASES))
def test_hint_after_choice(told, wanted, does):
    assert shown(hint_after_choice(told, wanted)) == does


KIND_BY_KIND = {
    "unused, then ephemeral, then volatile, P, stable": (
        census({0: "Sr Pr Vr Ur"}, (0, 0), ephemeral=1, aged=1), 5,
        {"evict": [(0, [3]), (0, [0, 1, 2])], "ephemeral": 1}),
    "young ephemeral pages before any volatile one": (
        census({0: "Vr Vr"}, (0, 0), ephemeral=2, aged=0), 2, {"ephemeral": 2}),
    "volatile before stable, wherever the hand stands": (
        census({0: "Sr Sr Vr", 1: "Pr Vr"}, (0, 0)), 2, {"evict": [(0, [2]), (1, [1])]}),
    "a referenced volatile before an unreferenced stable": (
        census({0: "Sr Vr*"}, (0, 0)), 1, {"evict": [(0, [1])], "clear": [(0, [1])]}),
    "P before stable": (
        census({0: "Sr Pr"}, (0, 0)), 1, {"evict": [(0, [1])]}),
    "stable last": (
        census({0: "Sr Pr Vr"}, (0, 0)), 3, {"evict": [(0, [0, 1, 2])]}),
    "stable never without swap": (
        census({0: "Sr Vr"}, (0, 0), can_preserve=False), 2, {"evict": [(0, [1])]}),
}


@pytest.mark.parametrize(("told", "wanted", "does"), KIND_BY_KIND.values(), ids=list(KIND_BY_KIND))
def test_u_e_v_p_s(told, wanted, does):
    plan = shown(u_e_v_p_s(told, wanted))
    assert {word: plan[word] for word in plan if word not in ("hand", "passed")} == does


BIASED = {
    "the worthless share first, rounded up, then the hand where it stood": (
        census({0: "Sr Sr Sr Vr Vr Vr"}, (0, 0)), 4, 0.3, {"evict": [(0, [0, 1, 3, 4])], "hand": (0, 2)}),
    "0.14 of 50 is 7, whatever floats make of it": (
        census({0: "Sr " * 45 + "Vr " * 9}, (0, 0)), 50, 0.14,
        {"evict": [(0, [*range(43), *range(45, 52)])], "hand": (0, 43)}),
    "half": (
        census({0: "Sr Sr Pr Vr"}, (0, 0)), 2, 0.5, {"evict": [(0, [0, 3])], "hand": (0, 1)}),
    "where nothing is worthless the blind choice has it all": (
        census({0: "Sr Sr Sr"}, (0, 0)), 2, 0.5, {"evict": [(0, [0, 1])], "passed": True, "hand": (0, 2)}),
    "unused pages and free heap frames are not of the share": (
        census({0: "Sr Ur Vr"}, (0, 0), heap_free=1), 3, 0.5,
        {"trim": 1, "evict": [(0, [1]), (0, [2])], "hand": (0, 0)}),
    "ephemeral, volatile, P": (
        census({0: "Sr Pr Vr Sr"}, (0, 0), ephemeral=1, aged=1), 4, 0.75,
        {"evict": [(0, [0, 1, 2])], "ephemeral": 1, "hand": (0, 1)}),
}


@pytest.mark.parametrize(("told", "wanted", "bias", "does"), BIASED.values(), ids=list(BIASED))
def test_biased(told, wanted, bias, does):
    plan = shown(biased(told, wanted, bias))
    assert {word: value for word, value in plan.items() if word != "passed" or word in does} == does


# rules for every census

ALL_POLICIES = POLICIES | {f"bias {bias}": policy_of("hint-after-choice", bias) for bias in (0.1, 0.5, 0.9)}


@st.composite
def any_census(draw, states=tuple(ALL_STATES)):
    owners = sorted(draw(st.sets(st.integers(0, 6), max_size=3)))
    page = st.tuples(st.sampled_from(states), st.sampled_from(["", "*", "!"])).map("".join)
    guests = {owner: " ".join(draw(st.lists(page, min_size=1, max_size=12))) for owner in owners}
    ephemeral = draw(st.integers(0, 6))
    return census(guests, (draw(st.integers(-1, 7)), draw(st.integers(0, 13))), ephemeral,
                  draw(st.integers(0, ephemeral)), draw(st.integers(0, 3)), draw(st.booleans()))


def takeable(told: Census) -> int:
    resident = {State.Vr, State.Pr} | ({State.Sr} if told.can_preserve else set())
    pages = sum(int(np.count_nonzero(np.isin(guest.states, list(resident)) & ~guest.grace)) for guest in told.guests)
    unused = sum(int(np.count_nonzero(guest.states == State.Ur)) for guest in told.guests)
    return told.heap_free + unused + pages + told.ephemeral


@pytest.mark.parametrize("policy", ALL_POLICIES.values(), ids=list(ALL_POLICIES))
@given(told=any_census(), wanted=st.integers(0, 40))
def test_a_plan_frees_what_is_wanted_or_all_there_is_and_takes_nothing_it_must_not(policy, told, wanted):
    untouched = [(guest.states.copy(), guest.referenced.copy(), guest.grace.copy()) for guest in told.guests]
    for guest in told.guests:
        for array in (guest.states, guest.referenced, guest.grace):
            array.setflags(write=False)              # pure: a policy reads the census and writes nothing
    plan = policy(told, wanted)
    assert plan.frames == min(wanted, takeable(told))
    assert plan.trim <= told.heap_free and plan.ephemeral <= told.ephemeral
    guests = {guest.owner: guest for guest in told.guests}
    taken = [(owner, page) for owner, pages in plan.evict for page in pages.tolist()]
    assert len(set(taken)) == len(taken), "no page twice"
    for owner, pages in plan.evict:
        assert (np.diff(pages) > 0).all()
        states = guests[owner].states[pages]
        assert np.isin(states, [State.Ur, State.Vr, State.Pr, State.Sr]).all(), "only what has a frame"
        assert (~guests[owner].grace[pages] | (states == State.Ur)).all()
        assert told.can_preserve or (states != State.Sr).all()
    for owner, pages in plan.unreference:
        assert guests[owner].referenced[pages].all()
    assert plan.hand.owner == EPHEMERAL or plan.hand.owner in guests or plan.hand == told.hand
    for guest, (states, referenced, grace) in zip(told.guests, untouched, strict=True):
        assert (guest.states == states).all()
        assert (guest.referenced == referenced).all() and (guest.grace == grace).all()


@pytest.mark.parametrize("policy", ALL_POLICIES.values(), ids=list(ALL_POLICIES))
@given(told=any_census(), wanted=st.integers(0, 40))
def test_a_policy_is_a_function(policy, told, wanted):
    assert shown(policy(told, wanted)) == shown(policy(told, wanted))


@given(told=any_census(), wanted=st.integers(0, 40))
def test_bias_leads_from_one_policy_to_the_other(told, wanted):
    assert shown(biased(told, wanted, 0.0)) == shown(hint_after_choice(told, wanted))
    assert shown(biased(told, wanted, 1.0)) == shown(u_e_v_p_s(told, wanted))


@given(told=any_census(), wanted=st.integers(0, 40), bias=st.floats(0, 1))
def test_the_share_of_a_bias_holds_no_stable_page(told, wanted, bias):
    """At least so many victims need no write, as long as there are so many."""
    plan, free = biased(told, wanted, bias), replace(told, can_preserve=False)
    stable = sum(int(np.count_nonzero(guest.states[pages] == State.Sr)) for guest in told.guests
                 for owner, pages in plan.evict if owner == guest.owner)
    unwanted = plan.trim + sum(int(np.count_nonzero(guest.states[pages] == State.Ur)) for guest in told.guests
                               for owner, pages in plan.evict if owner == guest.owner)
    share = bias * (wanted - unwanted)
    assert plan.frames - unwanted - stable >= min(share, takeable(free) - unwanted) - 1e-6


def victims(told: Census, wanted: list[int], accesses: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Carry plans out one after the other, with accesses between them; return who was taken, plan by plan."""
    taken = []
    states = {guest.owner: guest.states.copy() for guest in told.guests}
    referenced = {guest.owner: guest.referenced.copy() for guest in told.guests}
    for frames, touched in zip(wanted, accesses, strict=True):
        for owner, page in touched:
            if owner in states and page < len(states[owner]):
                referenced[owner][page] = True
        guests = tuple(Holding(owner, states[owner], referenced[owner], np.zeros(len(states[owner]), bool))
                       for owner in states)
        plan = hint_after_choice(replace(told, guests=guests), frames)
        for owner, pages in plan.unreference:
            referenced[owner][pages] = False
        for owner, pages in plan.evict:
            states[owner][pages] = np.where(states[owner][pages] == State.Sr, State.Sp, State.Vz)
        taken.append([(owner, pages.tolist()) for owner, pages in plan.evict] + [plan.ephemeral])
        told = replace(told, hand=plan.hand, ephemeral=told.ephemeral - plan.ephemeral,
                       aged=told.ephemeral - plan.ephemeral if plan.passed_ephemeral else told.aged - plan.ephemeral)
    return taken


@given(told=any_census(("Vr", "Pr", "Sr", "Sz", "Vz")), seed=st.integers(0, 1 << 16),
       rounds=st.lists(st.tuples(st.integers(0, 6), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 11)),
                                                             max_size=6)), max_size=6))
def test_the_order_is_blind_to_what_a_page_holds(told, seed, rounds):
    """R20: with no unused page, the victims are the same whether pages are S, V or P."""
    rng = np.random.default_rng(seed)
    resident = [State.Sr, State.Vr, State.Pr]

    def repaint(guest):
        states = guest.states.copy()
        frames = np.isin(states, resident)
        states[frames] = rng.choice(resident, int(frames.sum()))
        return replace(guest, states=states)

    told = replace(told, can_preserve=True)
    wanted, accesses = [frames for frames, _ in rounds], [touched for _, touched in rounds]
    repainted = replace(told, guests=tuple(repaint(guest) for guest in told.guests))
    assert victims(told, wanted, accesses) == victims(repainted, wanted, accesses)


def test_the_counterfactual_is_not_blind():
    """The test above could not pass for a policy that looks at the hint first."""
    stable, mixed = census({0: "Sr Sr"}, (0, 0)), census({0: "Sr Vr"}, (0, 0))
    assert shown(hint_after_choice(stable, 1))["evict"] == shown(hint_after_choice(mixed, 1))["evict"]
    assert shown(u_e_v_p_s(stable, 1))["evict"] != shown(u_e_v_p_s(mixed, 1))["evict"]


def test_policies_are_known_by_the_names_that_people_write():
    assert list(POLICIES.items()) == [("hint-after-choice", hint_after_choice), ("u-e-v-p-s", u_e_v_p_s)]
