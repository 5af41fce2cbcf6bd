"""The operator's orders about tmem, given through the door; `tmem.control` carries them out (T39-T54, T77).

    tmem-list, tmem-freeable                       what there is
    tmem-freeze, tmem-thaw, tmem-set, tmem-destroy, tmem-shared-auth       about one guest, or all
    tmem-flush                                     about the whole host

A guest is named by its name, `{"guest": "bank"}`; `{"all": true}` is everybody.  A guest that is attached has a client
from then on, whether it has used tmem or not: what is ordered holds for its first call.  Who is not known, or what
cannot be, is a UsageProblem of one line, and nothing was changed then.
"""

from collections.abc import Callable
from functools import partial
from reprlib import repr as brief  # of what others sent: neither long nor deep
from typing import TYPE_CHECKING, Any

from hypervisor.tmem import figures, listing
from hypervisor.tmem.clients import MAX_AUTHORISED, Client
from hypervisor.tmem.control import EVERYBODY, REFUSED
from hypervisor.tmem.forms import Form
from hypervisor.tmem.membership import uuid_of
from hypervisor.tmem.pools import NO_UUID, PRIVATE, Uuid
from shm.abi import MAX_GUEST_PAGES, Status
from shm.errors import UsageProblem

if TYPE_CHECKING:
    from hypervisor.machine import Machine

Message = dict[str, Any]
Answer = dict[str, Any]
GUESTS_A_MESSAGE = 8         # with 16 pools each they stay below the door's message limit
NAMES_SHOWN = 20
SECRET_DIGITS = 32
MOST_WEIGHT = 1 << 16
MOST_KIB = 1 << 40
FORMS = {form.name.lower(): form for form in Form}


class Controls:
    """Answers to orders about one machine's tmem."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.table: dict[str, Callable[[Message], Answer]] = {
            "tmem-list": self.describe, "tmem-freeze": self.freeze, "tmem-thaw": self.thaw, "tmem-flush": self.flush,
            "tmem-destroy": self.destroy, "tmem-set": self.change, "tmem-freeable": self.freeable,
            "tmem-shared-auth": self.shared_auth,
        }

    # who is meant

    def _number(self, message: Message) -> int:
        """Return the number of the guest that is named, or EVERYBODY; each has a client then."""
        if message.get("all") is True:
            for number in sorted(self.machine.domains):
                if self.machine.domains[number].moved is None:
                    self.machine.store.clients.get(number)
            return EVERYBODY
        name = message.get("guest")
        domain = next((domain for domain in self.machine.domains.values() if domain.name == name), None)
        if domain is None:
            raise UsageProblem(f"no guest {brief(name)} is attached; {self._who_there_is()}")
        if domain.moved is not None:
            raise UsageProblem(f"the tmem of guest {brief(name)} is in cluster {domain.moved['cluster']!r} now: give "
                               f"the order there")
        return self.machine.store.clients.get(domain.number).number

    def _who_there_is(self) -> str:
        names = sorted(domain.name for domain in self.machine.domains.values())
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"there are: {', '.join(names[:NAMES_SHOWN])}{more}" if names else "there are none"

    def _meant(self, number: int) -> list[Client]:
        clients = self.machine.store.clients
        return clients.all() if number == EVERYBODY else [clients.get(number)]

    def _name(self, number: int) -> str:
        """Return the name of a guest that is attached, or waited for after a migration."""
        known = self.machine.domains.get(number) or self.machine.migration.waiting.get(number)
        return known.name if known else f"#{number}"

    # what there is

    def describe(self, message: Message) -> Answer:
        """Describe the store, and clients from number `from` on; `next` is where to ask on, if anywhere.

        With `xen`, `head` and `guests` are Xen's lines, `long` or short.
        """
        start, store = message.get("from", 0), self.machine.store
        if type(start) is not int:
            raise UsageProblem(f"tmem-list: from {brief(start)} is not a number")
        clients = [client for client in store.clients.all() if client.number >= start]
        shown, rest = clients[:GUESTS_A_MESSAGE], clients[GUESTS_A_MESSAGE:]
        following: Answer = {"next": rest[0].number if rest else None}
        if message.get("xen") is True:
            is_long = message.get("long") is True
            return following | {"head": listing.lines_of_store(store, is_long),
                                "guests": listing.lines_of_clients(store, shown, is_long)}
        return following | {
            "scheme": self.machine.settings.scheme, "store": figures.of_store(store) | self.freeable({}),
            "guests": [self._client(client) for client in shown]}

    def _client(self, client: Client) -> Answer:
        described = figures.of_client(self.machine.store, client)
        for pool in described["pools"]:
            pool["owner"], pool["members"] = self._name(pool["owner"]), [self._name(n) for n in pool["members"]]
        return {"name": self._name(client.number), "number": client.number} | described

    def freeable(self, _: Message) -> Answer:
        """Say how many MiB could be had: free heap frames and ephemeral ones (T48)."""
        return {"freeable_mib": self.machine.control.freeable_mib()}

    # what shall be

    def freeze(self, message: Message) -> Answer:
        """Let a guest, or all, store nothing new (T39, T45)."""
        number = self._number(message)
        self.machine.control.freeze(number)
        return {"frozen": [self._name(client.number) for client in self._meant(number)]}

    def thaw(self, message: Message) -> Answer:
        """Undo `freeze`; `still_frozen` where everybody is, and one was thawed (T44)."""
        number = self._number(message)
        self.machine.control.thaw(number)
        return {"thawed": [self._name(client.number) for client in self._meant(number)],
                "still_frozen": self.machine.store.clients.frozen}

    def flush(self, message: Message) -> Answer:
        """Evict until so many KiB have gone back to the machine (T49)."""
        kib = _whole(message, "kib", 1, MOST_KIB)
        before = self.machine.store.evictions
        given = self.machine.control.flush(EVERYBODY, kib)
        return {"kib": given, "evicted": self.machine.store.evictions - before}

    def destroy(self, message: Message) -> Answer:
        """Drop all pools of a guest; one that only waits to be restored is dropped whole (T51)."""
        dropped = self._drop_waiting(message)
        if dropped is not None:
            return dropped
        number, store = self._number(message), self.machine.store
        meant = self._meant(number)
        busy = [self._name(client.number) for client in meant if client.changed is not None]
        if busy:
            raise UsageProblem(f"guest {busy[0]!r} is being saved or migrated; wait until that is over")
        before, pools = len(store.catalogue), sum(len(store.pools.of(client.number)) for client in meant)
        self.machine.control.destroy(number)
        left = sum(len(store.pools.of(client.number)) for client in meant)
        return {"pools": pools - left, "pages": before - len(store.catalogue)}

    def _drop_waiting(self, message: Message) -> Answer | None:
        """Drop the tmem of a guest that was restored here and did not come; None where there is none of that name."""
        name, store = message.get("guest"), self.machine.store
        attached = {domain.name for domain in self.machine.domains.values()}
        pages, pools = len(store.catalogue), len(store.pools.all())
        if not isinstance(name, str) or name in attached or not self.machine.migration.drop(name):
            return None
        return {"pools": pools - len(store.pools.all()), "pages": pages - len(store.catalogue)}

    def change(self, message: Message) -> Answer:
        """Change weight, cap (pages), compress (0 or 1) or form; all are checked before any is set (T52, T53)."""
        number = self._number(message)
        settings = self._settings(number, message)
        if not settings:
            raise UsageProblem("nothing to set: give weight, cap, compress or form")
        assert REFUSED not in [setting() for setting in settings], "checked before"
        return {"guests": [self._set_now(client) for client in self._meant(number)]}

    def _settings(self, number: int, message: Message) -> list[Callable[[], int]]:
        """Return what is to be done, all of it checked."""
        control, settings = self.machine.control, list[Callable[[], int]]()
        if "weight" in message:
            settings.append(partial(control.set_weight, number, _whole(message, "weight", 0, MOST_WEIGHT)))
        if "cap" in message:
            settings.append(partial(control.set_cap, number, _whole(message, "cap", 0, MAX_GUEST_PAGES)))
        if "form" in message:
            form = message["form"]
            if not isinstance(form, str) or form not in FORMS or "compress" in message:
                raise UsageProblem(f"form {brief(form)}: use one of {', '.join(FORMS)}, and no compress with it")
            settings.append(partial(control.set_form, number, FORMS[form]))
        if "compress" in message:
            self._refuse_compress_of_dedup(number)
            settings.append(partial(control.set_compress, number, _whole(message, "compress", 0, 1)))
        return settings

    def _refuse_compress_of_dedup(self, number: int) -> None:
        for client in self._meant(number):
            if client.form == Form.DEDUP:
                raise UsageProblem(f"the pages of guest {self._name(client.number)!r} are deduplicated: compress does "
                                   f"not go with that; choose another form first")

    def _set_now(self, client: Client) -> Answer:
        return {"name": self._name(client.number), "weight": client.weight, "cap": client.cap,
                "form": Form(client.form).name.lower()}

    def shared_auth(self, message: Message) -> Answer:
        """Let a guest, or each that is attached, join the shared pool of a secret, or not any more (T77)."""
        uuid, allow, number = _secret(message.get("secret")), message.get("allow", True), self._number(message)
        if type(allow) is not bool:
            raise UsageProblem(f"allow {brief(allow)} is not true or false")
        meant = self._meant(number)
        full = [client for client in meant if len(client.authorised - {uuid}) >= MAX_AUTHORISED]
        if allow and full:
            raise UsageProblem(f"guest {self._name(full[0].number)!r} may join {MAX_AUTHORISED} shared pools already; "
                               f"deny one first")
        statuses = [self.machine.control.authorise(client.number, uuid, allow) for client in meant]
        return {"allowed": allow, "changed": statuses.count(Status.OK)}


def _whole(message: Message, what: str, least: int, most: int) -> int:
    value = message.get(what)
    if type(value) is not int or not least <= value <= most:
        raise UsageProblem(f"{what} {brief(value)} is not a number from {least} to {most}")
    return value


def _secret(text: object) -> Uuid:
    """Return the words of a secret of 32 hexadecimal digits."""
    if not isinstance(text, str) or len(text) != SECRET_DIGITS or not set(text) <= set("0123456789abcdefABCDEF"):
        raise UsageProblem(f"a secret is {SECRET_DIGITS} hexadecimal digits")
    uuid = uuid_of(int(text, 16))
    if uuid in (NO_UUID, PRIVATE):
        raise UsageProblem("this secret is all zeros or all ones: a pool of that name is private")
    return uuid
