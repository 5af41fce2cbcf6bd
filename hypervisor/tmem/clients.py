"""Clients: what the store knows of each guest that has used tmem (Xen: `struct client`).

A client comes into being with its guest's first call (T9): weight 0, no cap, not frozen, unless its guest was attached
with a weight.  One writer, the store and its control.
"""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from hypervisor.tmem.forms import Form
from hypervisor.tmem.pools import Uuid
from shm.abi import Refusal

NO_CAP = 0
MAX_AUTHORISED = 16          # uuids a client (Xen 4.2, T77)
Handle = tuple[int, int, int, int, int]                      # pool number, object id x 3, index


class ClientCount(IntEnum):
    """Counters of a client, under the letters of Xen's list format."""

    TC = 0                   # time spent in its calls: nanoseconds here, cycles in Xen
    GE = 1                   # ephemeral gets that hit
    PP = 2                   # persistent puts stored
    GP = 3                   # persistent gets that hit
    EM = 4                   # the most ephemeral pages it ever had


@dataclass(eq=False)
class Client:
    """One guest's standing with the store."""

    number: int
    weight: int = 0
    cap: int = NO_CAP        # the most pages it may hold, ephemeral and persistent (NO_CAP: any number)
    form: Form = Form.RAW    # of what it puts from now on
    frozen: bool = False
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(ClientCount), np.int64))
    refusals: np.ndarray = field(default_factory=lambda: np.zeros(len(Refusal), np.int64))
    authorised: set[Uuid] = field(default_factory=set)
    authorised_all: bool = False
    changed: dict[Handle, None] | None = None                # persistent handles changed since a save began; None: none
    replacing_flushes: bool = False                          # Xen's live save: a replacing put flushes (T87)


class Clients:
    """All clients.  `form`: that of a new one; its weight is what its guest was attached with, if any (`expect`)."""

    def __init__(self, form: Form = Form.RAW) -> None:
        self.form = form
        self.frozen = False                                  # everybody, those that come later too (T46)
        self._clients: dict[int, Client] = {}
        self._weights: dict[int, int] = {}                   # given at attach
        self.lost_weight = 0                                 # Xen 4.2 kept the weight of the dead in its sum

    def get(self, number: int) -> Client:
        """Return a guest's client, new if this is its first call."""
        client = self._clients.get(number)
        if client is None:
            client = self._clients[number] = Client(number, self._weights.get(number, 0), form=self.form)
        return client

    def known(self, number: int) -> Client | None:
        return self._clients.get(number)

    def all(self) -> list[Client]:
        return [self._clients[number] for number in sorted(self._clients)]

    def expect(self, number: int, weight: int) -> None:
        """Note the weight with which a guest was attached."""
        self._weights[number] = weight

    def forget(self, number: int, quirks: bool = False) -> None:
        client = self._clients.pop(number, None)
        self._weights.pop(number, None)
        if quirks and client is not None:
            self.lost_weight += client.weight

    @property
    def total_weight(self) -> int:
        return self.lost_weight + sum(client.weight for client in self._clients.values())

    def is_frozen(self, client: Client) -> bool:
        return self.frozen or client.frozen
