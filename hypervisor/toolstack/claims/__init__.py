"""The claims of the 2009 threads as experiments: what was said, what would show it, what is run, what came of it.

    claim       what a claim is: words, the jobs that it needs, the judge of their results
    jobs        what can be run, as data: a scenario under a scheme, or a trial (a guest program, step by step)
    bench       runs jobs, each once, however many claims need it; keeps what is finished
    trial       one trial: a hypervisor, the guest program, and what it asks of the toolstack
    thread      the claims themselves, E1 to E34, a module a subject
    verdicts    all claims judged: the document that tables and pages are made of

Decide, then do, then judge: the jobs are known before anything runs, and a judge is a pure function of their results.
"""
