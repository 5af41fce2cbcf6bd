"""The rules that a pool is tried by: tmem's for an ephemeral private one, the operator's, and what E2 asks beyond them.

Numbers are those of `docs/conformance.md`.  Not here, because they are not about what such a pool answers: pool flags
and bad handles (T1-T5, T7-T9, T28), counters (T98-T101), persistent and shared pools, migration, Xen's quirks.  A put
that finds no frame at all (T33, T34, T65) needs a host without any: `tests/guests/mappings` has it.
"""

from guests.mappings.pool_bed import RAM
from guests.mappings.steps import Rule

BEHAVIOUR = (
    Rule.of("T10", "a pool that was destroyed is none", "put a D1 -> stored; destroy; get a -> no such pool"),
    Rule.of("T11", "in a pool made anew all old handles miss", "put a D1 -> stored; renew; get a -> miss"),
    Rule.of("T12", "what comes is what was put, bit for bit, or nothing", "put a D1 -> stored; get a -> D1|miss"),
    Rule.of("T13", "with ample memory it comes", "put a D1 -> stored; put c D2 -> stored; get a -> D1; get c -> D2"),
    Rule.of("T14", "a get takes the page out", "put a D1 -> stored; get a -> D1; get a -> miss"),
    Rule.of("T17", "what was never put is a miss", "put a D1 -> stored; get b -> miss; get c -> miss"),
    Rule.of("T19", "a put copies: the source may change", "alter-after-put a D1 -> stored; get a -> D1"),
    Rule.of("T21", "after a flush it is a miss", "put a D1 -> stored; flush a -> done; get a -> miss"),
    Rule.of("T22", "a flush of nothing is done", "flush a -> done; flush-object a -> done"),
    Rule.of("T23", "flushing an object drops its indexes, and nothing else",
            "put a D1; put b D2; put c D3; put a@2 D4; flush-object a -> done; get a -> miss; get b -> miss; "
            "get c -> D3; get a@2 -> D4"),
    Rule.of("T24", "each word of an object id counts, and indexes 0 and 2^32 - 1",
            "put word0 D1; put word1 D2; put word2 D3; put first D4; put last D5; get word0 -> D1; get word1 -> D2; "
            "get word2 -> D3; get first -> D4; get last -> D5"),
    Rule.of("T25", "two pools know nothing of each other",
            "put a D1; put a@2 D2; get a -> D1; get a -> miss; get a@2 -> D2"),
    Rule.of("T26", "a miss stays a miss until a put",
            "put a D1; take; get a -> miss; get a -> miss; get a -> miss; put a D2 -> stored; get a -> D2"),
    Rule.of("T27", "a flush may come twice, and after the page is gone",
            "put a D1; take; flush a -> done; flush a -> done; get a -> miss"),
    Rule.of("T29", "a new page is zeros", "new a -> stored; get a -> zeros"),
    Rule.of("T30", "a read gives its window, and takes the page out",
            "put a D1; read a -> part of D1; read a -> miss; get a -> miss"),
    Rule.of("T31", "a write keeps what is around its window: zeros, or what was there",
            "write a -> stored; get a -> zeros+D9; put b D1; write b -> stored; get b -> D1+D9"),
    Rule.of("T32", "a put over a known handle replaces", "put a D1; put a D2 -> stored; get a -> D2; get a -> miss"),
    Rule.of("T36", "a put over a known handle makes it no younger",
            "put a D1; put b D2; put c D3; put a D4; put d D5 -> stored; get a -> miss; get b -> D2; get c -> D3; "
            "get d -> D5", region=3, bounded=True),
    Rule.of("T55", "a page may vanish: a miss, and no wrong bytes",
            "put a D1; new b; take; get a -> miss; get b -> miss"),
    Rule.of("T56", "a put that needs room drops the oldest",
            "put a D1; put b D2; put c D3; put d D4 -> stored; put e D5 -> stored; get a -> miss; get b -> miss; "
            "get c -> D3; get d -> D4; get e -> D5", region=3, bounded=True),
    Rule.of("T56b", "so does a batch, of its own pages too",
            "put a D1; fill 4 -> 4 stored; get a -> miss; get n0 -> miss; hits 4 -> 3 hits", region=3, bounded=True),
    Rule.of("T83", "with its guest a pool is gone", "put a D1; leave; get a -> miss"),
)

OPERATOR = (
    Rule.of("T6", "a guest has 16 pools and no more", "pools 16 -> 15 more"),
    Rule.of("T39", "a frozen guest stores nothing new", "freeze; put a D1 -> refused; get a -> miss"),
    Rule.of("T40", "nor does a freeze keep a known handle from being put over",
            "put a D1; freeze; put a D2 -> stored; get a -> D2"),
    Rule.of("T42", "a flush is done while frozen", "put a D1; freeze; flush a; thaw; get a -> miss"),
    Rule.of("T44", "thawed, it stores again", "freeze; thaw; put a D1 -> stored; get a -> D1"),
    Rule.of("T47", "while frozen the frames in use do not grow", "freeze; fill 8; cost -> 0 frames"),
    Rule.of("T51", "the operator may drop all pools of a guest", "put a D1; drop-pools; get a -> no such pool"),
    Rule.of("T56a", "the host takes the oldest put first, too",
            "fill 96; get n0; put n0 D1; squeeze 16; get n0 -> D1"),
    Rule.of("T52", "a cap bounds what a guest has stored", "cap 4; put a D1; put b D1; put c D1; put d D1; put e D1; "
            "get a -> miss; get e -> D1"),
    Rule.of("T93", "a page of zeros costs no frame", "new a -> stored; cost -> 0 frames; get a -> zeros"),
    Rule.of("T94", "equal pages cost one frame, where that is asked for", "form dedup; fill-equal 8; cost -> 1 frames"),
)

CAPACITY = (
    Rule.of("E2a", "a pool may hold more than the guest's own memory", "fill 192; hits 192", region=RAM),
    Rule.of("E2b", "what a pool holds is memory of the guest", "fill 8; frames"),
    Rule.of("E2c", "what a pool holds counts against max_mem", "fill 8; allowance"),
    Rule.of("E2d", "a program can store to a page that was put", "put a D1; scribble; get a"),
    Rule.of("E2e", "a page that the host took can be a fault", "put a D1; take; touch"),
    Rule.of("E2f", "what the host takes costs the guest no call, and is told by a miss",
            "put a D1; calls-from-here; take; calls-made -> 0 hypercalls; get a -> miss"),
    Rule.of("E2g", "a put is a hypercall", "put a D1; flush a; calls-from-here; put a D2; calls-made"),
    Rule.of("E2i", "a get is a hypercall", "put a D1; calls-from-here; get a; calls-made"),
    Rule.of("E2h", "a stored page costs one frame in all", "fill 8; cost"),
)

POOL_RULES = {"what a guest sees of a pool": BEHAVIOUR, "what the operator has of it": OPERATOR,
              "capacity, accounts and costs": CAPACITY}
