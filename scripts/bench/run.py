"""Speed and memory, as ratios to a peer or a limit measured in the same run.

    .venv/bin/python scripts/bench/run.py [hypercall] [essa] [multicall] [discard] [faults] [tmem] [mappings] [memory]

`tmem.py` takes options of its own: which forms, which pages, figures as JSON; so does `mappings.py`: how many cores.
"""

import os
import platform
import sys


def main(wanted: list[str]) -> None:
    import discard
    import essa
    import faults
    import hypercall
    import mappings
    import memory
    import multicall
    import tmem

    timed = {"hypercall": hypercall, "essa": essa, "multicall": multicall, "discard": discard,
             "faults": faults}
    unknown = [name for name in wanted if name not in (*timed, "tmem", "mappings", "memory")]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}; there are {', '.join((*timed, 'tmem', 'mappings', 'memory'))}")
    print(f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; "
          f"medians of 15 rounds in turn, ratio (smallest to largest)")
    for name, module in timed.items():
        if not wanted or name in wanted:
            for result in module.results():
                print(result.line(), flush=True)
    if not wanted or "tmem" in wanted:
        tmem.report()
    if not wanted or "mappings" in wanted:
        mappings.report()
    if not wanted or "memory" in wanted:
        print(*memory.report(), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
