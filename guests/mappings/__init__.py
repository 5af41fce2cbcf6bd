"""The two mappings of July 2009, as code: tmem on volatile pages, and CMM2's marks on tmem.

    volatile_pool   tmem's ephemeral pool on volatile pages of the caller's own (Liguori's claim, E1)
    marks           CMM2's marks as CMM2 has them: the face that both sides of the converse wear
    marks_on_tmem   the converse: the same marks by put, get and the balloon
    operator        what the host's side is asked for meanwhile, through the door
    steps           rules as data: steps and the answers that they must get
    pool_bed        performs the steps on a pool of either kind, with a guest of its own
    mark_bed        performs the steps on marks of either kind; `bed` has what both have
    rules           the rules T of an ephemeral private pool, and what E2 is about: capacity and accounts
    mark_rules      the rules R that marks are about
    differences     both sides of each rule, and the shortest steps that show where they part

`python -m guests.mappings CLUSTER` prints the differences.  Sources: Liguori <4A55243B>, <4A566414>; Magenheimer
<ac5dec0d>, <d693761e> (July 2009).
"""
