"""The operator's side of tmem: Xen's `xl tmem-*` for a running cluster, from Python and for people.

    Tmem("demo").freeze("bank")      orders from Python; what comes back is the hypervisor's answer, a plain map
    freeze(tmem, "bank")             the same as a command: it prints, and returns an exit status

A guest goes by its name, EVERYBODY is all of them.
"""

import json
import secrets
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

from rich.table import Table

from hypervisor.toolstack.table import console_for, form_words, number, plain_table, refusal_words
from shm.errors import UsageProblem
from shm.units import format_size, parse_size

OK = 0
KIB, MIB = 1 << 10, 1 << 20
EVERYBODY = None
Answer = dict[str, Any]
Call = Callable[[Answer], Answer]


class Tmem:
    """Orders about the tmem of one cluster: its name, or whatever carries a question there."""

    def __init__(self, cluster: str | Call) -> None:
        from hypervisor.toolstack.connection import call

        self._call: Call = cluster if callable(cluster) else lambda question: call(cluster, question)

    def _order(self, what: str, **more: Any) -> Answer:
        return self._call({"call": what} | more)

    def _about(self, what: str, guest: str | None, **more: Any) -> Answer:
        return self._order(what, **({"all": True} if guest is EVERYBODY else {"guest": guest}), **more)

    def list(self) -> Answer:
        """Return what there is: the store, and each guest's part."""
        return self._order("tmem-list")

    def xen_lines(self, is_long: bool = False, limit: int | None = None) -> str:
        """Return the same as Xen's lines; `limit`: in so many bytes, whole lines only."""
        from hypervisor.tmem.listing import cut

        answer = self._order("tmem-list", xen=True, long=is_long)
        lines = [*answer["head"], *answer["guests"]]
        return cut(lines, sum(len(line) + 1 for line in lines) if limit is None else limit)

    def freeze(self, guest: str | None) -> Answer:
        """Let a guest store nothing new."""
        return self._about("tmem-freeze", guest)

    def thaw(self, guest: str | None) -> Answer:
        return self._about("tmem-thaw", guest)

    def flush(self, size: int) -> Answer:
        """Give `size` bytes of ephemeral pages back to the machine, or as many as there are; `kib` went."""
        return self._order("tmem-flush", kib=-(-size // KIB))

    def destroy(self, guest: str | None) -> Answer:
        """Drop all pools of a guest."""
        return self._about("tmem-destroy", guest)

    def set(self, guest: str | None, weight: int | None = None, cap: int | None = None, compress: int | None = None,
            form: str | None = None) -> Answer:
        """Change what is given; `cap` in pages, `compress` is Xen's 0 or 1, `form` raw, lz4, dedup or tze."""
        settings = {"weight": weight, "cap": cap, "compress": compress, "form": form}
        return self._about("tmem-set", guest, **{key: value for key, value in settings.items() if value is not None})

    def freeable(self) -> int:
        """Return how many MiB could be had at once."""
        return int(self._order("tmem-freeable")["freeable_mib"])

    def shared_auth(self, guest: str | None, secret: str | UUID, allow: bool = True) -> Answer:
        """Let a guest join the shared pool of a secret (a UUID, or 32 hexadecimal digits), or not any more."""
        return self._about("tmem-shared-auth", guest, secret=str(secret).replace("-", ""), allow=allow)


# commands for people

def show_list(tmem: Tmem, is_long: bool, as_json: bool, as_xen: bool) -> int:
    """Print the list: a table, JSON, or Xen's lines."""
    if as_xen:
        print(tmem.xen_lines(is_long), end="")
        return OK
    listed = tmem.list()
    if as_json:
        print(json.dumps(listed))
        return OK
    console, store = console_for(sys.stdout), listed["store"]
    for line in _store_lines(store):
        console.print(line)
    if not listed["guests"]:
        console.print("no guest has used tmem")
        return OK
    console.print(_guests_table(listed["guests"]))
    if is_long:
        console.print(_pools_table(listed["guests"]))
    return OK


def _store_lines(store: Answer) -> list[str]:
    counters = store["counters"]
    lines = [
        f"{number(store['pages'])} pages ({number(store['ephemeral'])} ephemeral, {number(store['persistent'])} "
        f"persistent) in {number(store['frames'])} frames; {store['freeable_mib']} MiB freeable"
        + ("; all guests are frozen" if store["frozen"] else ""),
        f"{number(counters['Tt'])} operations, {number(counters['Te'])} of them refused or failed; "
        f"{number(counters['Et'])} pages evicted"]
    stored = [form_words(kind, figures) for kind, figures in store["forms"].items()]
    return lines + [f"stored: {'; '.join(stored)}"] * bool(stored) + _refused(store["refusals"])


def _refused(refusals: dict[str, int]) -> list[str]:
    return [f"refused: {refusal_words(refusals)}"] if refusals else []


def _guests_table(guests: list[Answer]) -> Table:
    table = plain_table("guest", "weight", "cap", "form", "pools", "ephemeral", "persistent", "puts", "gets", "hits",
                        "refused", title="guests (cap in pages)")
    for guest in guests:
        sums = {key: sum(pool["counters"][key] for pool in guest["pools"]) for key in ("pt", "gt", "gs")}
        table.add_row(
            guest["name"] + " (frozen)" * guest["frozen"], str(guest["weight"]),
            number(guest["cap"]) if guest["cap"] else "none", guest["form"], str(len(guest["pools"])),
            number(guest["ephemeral"]), number(guest["persistent"]), number(sums["pt"]), number(sums["gt"]),
            number(sums["gs"]), refusal_words(guest["refusals"]) or "0")
    return table


def _pools_table(guests: list[Answer]) -> Table:
    table = plain_table("guest", "pool", "type", "pages", "most", "objects", "puts", "stored", "gets", "hits",
                        "flushed", "evicted", title="pools (*: shared)")
    for guest in guests:
        for pool in guest["pools"]:
            counters, kind = pool["counters"], pool["type"] + "*" * pool["shared"]
            table.add_row(guest["name"], str(pool["number"]), kind, *map(number, (
                pool["pages"], pool["most_pages"], pool["objects"], counters["pt"], counters["ps"], counters["gt"],
                counters["gs"], counters["fs"] + pool["flushed"], pool["evicted"])))
    return table


def freeze(tmem: Tmem, guest: str | None) -> int:
    tmem.freeze(guest)
    print(f"{_who(guest)} frozen: new pages are refused, gets and flushes go on"
          + (", and so it will be with guests that come" if guest is EVERYBODY else ""))
    return OK


def thaw(tmem: Tmem, guest: str | None) -> int:
    """Thaw; one who stays frozen because all are is told so."""
    still = tmem.thaw(guest)["still_frozen"]
    print(f"{_who(guest)} thawed" + ("; but everybody is frozen: use tmem-thaw --all" if still else ""))
    return OK


def flush(tmem: Tmem, size: str) -> int:
    try:
        wanted = parse_size(size)
    except ValueError as error:
        raise UsageProblem(f"tmem-flush: {error}") from None
    answer = tmem.flush(wanted)
    short = "" if answer["kib"] * KIB >= wanted else ", all there was"
    print(f"{format_size(answer['kib'] * KIB)} went back to the machine{short}; {number(answer['evicted'])} pages "
          f"evicted")
    return OK


def destroy(tmem: Tmem, guest: str | None) -> int:
    answer = tmem.destroy(guest)
    print(f"{number(answer['pools'])} pools with {number(answer['pages'])} pages dropped")
    return OK


def set_(tmem: Tmem, guest: str | None, **settings: Any) -> int:
    """Change settings, and print what each guest has now."""
    for now in tmem.set(guest, **settings)["guests"]:
        print(f"{now['name']}: weight {now['weight']}, cap {_cap(now['cap'])}, form {now['form']}")
    return OK


def _cap(pages: int) -> str:
    return f"{number(pages)} pages" if pages else "none"


def freeable(tmem: Tmem) -> int:
    print(f"{tmem.freeable()} MiB")
    return OK


def shared_auth(tmem: Tmem, guest: str | None, secret: str | None, allow: bool, is_new: bool) -> int:
    """Allow or deny; a new secret is printed, alone on its line, once it is allowed."""
    if is_new != (secret is None) or (is_new and not allow):
        raise UsageProblem("tmem-shared-auth: give a secret, or --new for one that nobody knows")
    secret = checked_secret(secret) if secret is not None else str(UUID(int=secrets.randbits(128)))
    changed = tmem.shared_auth(guest, secret, allow)["changed"]
    if is_new:
        print(secret)
    elif allow:
        print(f"{_who(guest)} allowed to join that pool")
    else:
        print(f"{_who(guest)} not allowed to join that pool" + (" any more" if changed else ", and had not been"))
    return OK


def checked_secret(text: str) -> str:
    """Return a secret's 32 hexadecimal digits; UsageProblem, which does not repeat it, for what is none."""
    digits = text.replace("-", "") if len(text) == 36 else text
    if len(digits) != 32 or not set(digits.lower()) <= set("0123456789abcdef"):
        raise UsageProblem("tmem-shared-auth: a secret is 32 hexadecimal digits or a UUID")
    return digits


def _who(guest: str | None) -> str:
    return "all guests are" if guest is EVERYBODY else f"guest {guest!r} is"
