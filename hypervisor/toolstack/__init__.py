"""The toolstack: start a cluster, sample it, compare, report.  It starts guests as separate processes only.

    what is wanted    scenario (the tables a person may write), reading (file and options -> scenario), complaints (one
                      line for a refused key), plan (scenario -> the orders of a phase), preflight (room, guests'
                      check), faultmode (hardware faults or software ones)
    how it is done    run (baseline, then each scheme), phase (one cluster from start to stop), crew (its processes),
                      guestrun (what one guest may say, and when), means (programs and deadlines a phase works with)
    processes         child (lines to and from one process), watch (wait for all), interruption (Ctrl-C as a flag)
    what came of it   sampler (psutil, and the kernel's count), holdings (who has which frames), results (plain
                      values), summary (version 1, pure), table and comparison (for people), report (where they go),
                      journal (--out), origin (what it came from), progress (bars); reporting/ makes pages to read
    other commands    cli (arguments in, exit status out), serve, control and connection (ctl), tmem_cli and
                      tmem_control (ctl tmem-*), sweep (clean)
"""
