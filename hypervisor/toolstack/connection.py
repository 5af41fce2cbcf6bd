"""Orders to a running hypervisor, through its door."""

import socket
from typing import Any

from shm import door
from shm.errors import HypervisorGone, UsageProblem


def call(cluster: str, message: dict[str, Any], timeout: float = door.DEADLINE_S) -> dict[str, Any]:
    """Give one order and return the answer; UsageProblem with the hypervisor's own line when it refuses.

    `list` comes in parts when there are many guests; they are put together here.
    """
    with door.connect(cluster, timeout) as link:
        answer = _ask(link, message)
        while answer.get("next") is not None:
            more = _ask(link, message | {"from": answer["next"]})
            answer = answer | {"guests": answer["guests"] + more["guests"], "next": more.get("next")}
    return answer


def _ask(link: socket.socket, message: dict[str, Any]) -> dict[str, Any]:
    try:
        door.send(link, message)
        answer, _ = door.receive(link)
    except OSError as error:
        raise HypervisorGone(f"the hypervisor is gone: {error}") from error
    if "error" in answer:
        raise UsageProblem(answer["error"])
    return answer
