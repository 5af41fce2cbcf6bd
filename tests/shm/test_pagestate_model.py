"""One page's life by the tables, against a model that knows no table."""

from hypothesis import given
from hypothesis import strategies as st

from shm.pagestate import Access, Deed, decode, lookup

DIRTY, HOST_CHANGE, REFERENCED, RELEASED = 0x01, 0x02, 0x10, 0x40
BYTES = {"Sr": 0x00, "Sp": 0x02, "Sz": 0x03, "Ur": 0x04, "Uz": 0x07, "Pr": 0x08, "Vr": 0x0C, "Vz": 0x0F}
ACCESSIBLE = ("Sr", "Vr", "Pr")


class Page:
    """A page by the tables: two stored bytes, a frame, a copy on the swap disk."""

    def __init__(self):
        self.usage, self.content, self.frame, self.copy = 0, 0x03, None, None

    @property
    def stored(self):
        return self.usage | self.content << 8

    def order(self, order):
        byte = int(lookup().essa[self.stored])
        self.usage = int(lookup().hint[order][self.stored])
        return byte

    def store(self, value):
        self.usage |= DIRTY | HOST_CHANGE | REFERENCED
        self.frame = value

    def evict(self):
        deed = lookup().deed[self.stored]
        if deed == Deed.PRESERVE:
            self.copy, self.content = self.frame, 0x02
            self.usage &= 0xFF ^ (0x0C | HOST_CHANGE)
        elif deed != Deed.NOTHING:
            self.content = 0x03
        if deed != Deed.NOTHING:
            self.frame = None

    def settle(self):
        if self.usage & RELEASED:
            self.copy, self.content, self.usage = None, 0x03, self.usage & 0xFF ^ RELEASED

    def grant(self):
        access = lookup().access[self.stored]
        if access in (Access.PAGE_IN, Access.ZERO_FILL):
            self.settle()
            self.frame, self.copy = (self.copy if access == Access.PAGE_IN else 0), None
            self.content = 0x00


class Model:
    """What the guest may rely on, in sentences: its word, whether the data is there, and the data."""

    def __init__(self):
        self.word, self.place, self.data, self.dirty = "S", "z", 0, False

    def order(self, order):
        old = self.word + self.place
        keeps_nothing = order in (2, 3) or (order == 4 and not self.dirty)
        if self.place == "p" and keeps_nothing:
            self.place = "z"
        if order in (1, 5, 7) or (order == 6 and old != "Vz"):
            self.word = "S"
        elif order in (2, 3):
            self.word = "U" if order == 2 else "V"
        elif order == 4 and self.place != "p":
            self.word = "P" if self.place == "r" else "V"
        if self.place == "z":
            self.data = 0
        return old

    def evict(self):
        if self.place == "r":
            lost = self.word in "UV" or (self.word == "P" and not self.dirty)
            self.word = self.word if self.word == "U" else "V" if lost else "S"
            self.place, self.data = ("z", 0) if lost else ("p", self.data)


@given(st.lists(st.one_of(st.tuples(st.just("order"), st.sampled_from(range(8))),
                          st.tuples(st.just("store"), st.integers(1, 9)),
                          st.tuples(st.sampled_from(["evict", "evict", "settle", "grant", "clean"]), st.none())),
                max_size=40))
def test_a_pages_life_agrees_with_a_model_that_knows_no_table(life):
    page, model = Page(), Model()
    for deed, argument in life:
        match deed:
            case "order":
                assert page.order(argument) & 0x0F == BYTES[model.order(argument)]
            case "store" if model.word + model.place in ACCESSIBLE:
                page.store(argument)
                model.data, model.dirty = argument, True
            case "clean":
                page.usage &= 0xFF ^ DIRTY
                model.dirty = False
            case "evict":
                page.evict()
                model.evict()
            case "settle":
                page.settle()
            case "grant":
                page.grant()
                model.place = "r" if model.word + model.place in ("Sp", "Sz") else model.place
        assert decode(page.stored).name == model.word + model.place
        if model.word + model.place in ACCESSIBLE:
            assert page.frame == model.data
        if model.word + model.place == "Sp":
            assert page.copy == model.data


class KvmPage(Page):
    """The same as KVM has it: a released copy goes when the release list is processed, and may come back before."""

    def order(self, order):
        byte = int(lookup(kvm=True).essa[self.stored])
        self.usage = int(lookup(kvm=True).hint[order][self.stored])
        return byte

    def settle(self):
        if decode(self.stored).name[1] == "z" and self.content == 0x02:
            self.copy, self.content, self.usage = None, 0x03, self.usage & 0xFF ^ RELEASED


class KvmModel(Model):
    """What a guest may rely on there; `listed` is what it would get back by making the page stable now (R46)."""

    def __init__(self):
        super().__init__()
        self.listed = None

    def order(self, order):
        old, data = self.word + self.place, self.data
        if order == 6 and self.place != "r":
            return old                               # R10: no frame, no change
        if order in (1, 5, 7) and self.listed is not None:
            self.word, self.place, self.data, self.listed = "S", "p", self.listed, None
            return old
        super().order(order)
        if old == "Sp" and self.place == "z":
            self.listed = data
        return old


@given(st.lists(st.one_of(st.tuples(st.just("order"), st.sampled_from(range(8))),
                          st.tuples(st.just("store"), st.integers(1, 9)),
                          st.tuples(st.sampled_from(["evict", "evict", "process", "grant", "clean"]), st.none())),
                max_size=40))
def test_a_pages_life_as_kvm_has_it(life):
    """R10, R11, R46."""
    page, model = KvmPage(), KvmModel()
    for deed, argument in life:
        match deed:
            case "order":
                assert page.order(argument) & 0x0F == BYTES[model.order(argument)]
            case "store" if model.word + model.place in (*ACCESSIBLE, "Ur"):
                page.store(argument)
                model.data, model.dirty = argument, True
            case "clean":
                page.usage &= 0xFF ^ DIRTY
                model.dirty = False
            case "evict":
                page.evict()
                model.evict()
            case "process":
                page.settle()
                model.listed = None
            case "grant":
                page.grant()
                model.place = "r" if model.word + model.place in ("Sp", "Sz") else model.place
        assert decode(page.stored).name == model.word + model.place
        if model.place == "r":
            assert page.frame == model.data
        if model.word + model.place == "Sp":
            assert page.copy == model.data
