"""The rules that marks are tried by: CMM2's for the marks that tmem can imitate, and what each of them costs.

Numbers are those of `docs/conformance.md`.  Not here: potentially volatile pages (R7, R8, R15, R16), which tmem has no
counterpart for; exceptions of the instruction (R12), scribbled states (R21), reset, migration and the release list.
"""

from guests.mappings.steps import Rule

PROMISES = (
    Rule.of("R3", "asking for a state changes nothing", "write p D1; volatile p; state p; state p; keep p -> kept; "
            "read p -> D1"),
    Rule.of("R3a", "nor does it while tmem is frozen", "write p D1; volatile p; freeze; state p; keep p -> kept"),
    Rule.of("R4a", "a store to a volatile page stays, and so does the mark",
            "write p D1; volatile p; write p D2; state p -> Vr; keep p -> kept; read p -> D2"),
    Rule.of("R4b", "a page that has no bytes yet is discarded by the mark", "volatile p; keep p -> discarded"),
    Rule.of("R5", "marks alter no bytes", "write p D1; volatile p; stable p; read p -> D1; volatile p; keep p -> kept; "
            "read p -> D1"),
    Rule.of("R6", "marking a page volatile that is on the swap disk reads nothing back",
            "write p D1; take; volatile p; swap-in -> 0 pages; keep p -> discarded"),
    Rule.of("R9", "a discarded page stays discarded when it is kept, and is zeros when it is made stable",
            "write p D1; volatile p; take; keep p -> discarded; keep p -> discarded; state p -> Vz; stable p; "
            "read p -> zeros"),
    Rule.of("R13", "an unused page costs no I/O", "write p D1; unused p; take; swap-out -> 0 pages; "
            "read p -> addressing exception"),
    Rule.of("R14", "a volatile page costs no I/O",
            "write p D1; volatile p; take; swap-out -> 0 pages; keep p -> discarded"),
    Rule.of("R17", "a stable page is never lost", "write p D1; take; read p -> D1; stable p; read p -> D1"),
    Rule.of("R14a", "a volatile page goes for want of a frame, and for nothing else",
            "write p D1; volatile p; freeze; keep p -> kept; read p -> D1"),
    Rule.of("R14b", "nor because it is marked just then", "write p D1; freeze; volatile p; keep p -> kept"),
    Rule.of("R24", "a touch of an unused page is an addressing exception", "write p D1; unused p; "
            "read p -> addressing exception"),
    Rule.of("R24a", "what an unused page holds afterwards is nobody's promise",
            "write p D1; unused p; stable p; read p -> zeros|D1"),
    Rule.of("R26", "a touch of a discarded page is a discard fault, each time, and changes nothing",
            "write p D1; volatile p; take; read p -> discard fault; state p -> Vz; write p D2 -> discard fault; "
            "state p -> Vz; faults -> 2 discard faults"),
    Rule.of("R27", "a discard that nobody touches is no event", "write p D1; volatile p; calls-from-here; take; "
            "faults -> 0 discard faults; calls-made -> 0 hypercalls"),
    Rule.of("R34", "a failed make-stable is a miss and no fault", "write p D1; volatile p; take; keep p -> discarded; "
            "faults -> 0 discard faults"),
    Rule.of("R42", "a page marked twice is marked", "write p D1; volatile p; volatile p; keep p -> kept; read p -> D1"),
    Rule.of("R44", "volatile pages are never swapped",
            "write p D1; volatile p; read p -> D1; take; swap-out -> 0 pages"),
)

COSTS = (
    Rule.of("E2k", "a volatile page keeps its frame", "write p D1; volatile p; frames"),
    Rule.of("E2l", "a program may touch a volatile page without asking", "write p D1; volatile p; plain p"),
    Rule.of("E2m", "marking a page volatile is a hypercall", "write p D1; calls-from-here; volatile p; calls-made"),
    Rule.of("E2n", "making it stable is a hypercall", "write p D1; volatile p; calls-from-here; keep p; calls-made"),
)

MARK_RULES = {"what the marks promise": PROMISES, "accounts and costs": COSTS}
