"""`python -m guests.trials`: one trial, from its order to its figures.  Exit status 0; 1 when it failed."""

import json
import sys
import traceback

from guests.trials import load
from shm.errors import MemcommonsError


def main() -> int:
    """Return the exit status."""
    try:
        order = json.loads(sys.stdin.readline())
        figures = load(order["trial"]).run(order["cluster"], order["options"])
    except MemcommonsError as problem:
        return failed(str(problem))
    except Exception as error:
        traceback.print_exc()
        return failed(f"{type(error).__name__}: {error}")
    say("figures", figures=figures)
    return 0


def failed(error: str) -> int:
    say("failed", error=" ".join(error.split()))
    return 1


def say(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
