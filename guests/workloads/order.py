"""What `run` and `check` are told, checked: an order or options in, or one clear line for each thing that is wrong.

The lines name the guest and the option as the person wrote it in the scenario, and what is allowed.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guests.workloads import load
from guests.workloads.base import Options
from shm.errors import UsageProblem

# Error type of pydantic -> what is said of the option; {input} is what was written, the rest is the error's context.
SAYS: dict[str, str] = {
    "int_type": "{input} is not a whole number",
    "int_from_float": "{input} is not a whole number",
    "float_type": "{input} is not a number",
    "string_type": "{input} is not a text; put it in quotes",
    "bool_type": "{input} is neither true nor false",
    "finite_number": "{input} is not a finite number",
    "model_type": "{input} is not a table",
    "dict_type": "{input} is not a table",
    "literal_error": "{input} is not allowed; allowed: {expected}",
    "greater_than": "{input} is too small; it must be above {gt}",
    "greater_than_equal": "{input} is too small; at least {ge}",
    "less_than_equal": "{input} is too large; at most {le}",
    "value_error": "{error}",
}


class DiskOrder(BaseModel):
    """What the guest's disks cost."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    latency: Literal["none", "ssd", "hdd", "network"] = "none"
    time: Literal["virtual", "waited"] = "virtual"
    direct: bool = False                                        # past the machine's page cache
    trim: bool = False                                          # the host's cache is told of dead blocks


class Order(BaseModel):
    """The order to work, one JSON object on a line."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    cluster: str
    name: str
    workload: str
    ram: Annotated[int, Field(gt=0)]                            # bytes
    max_mem: Annotated[int, Field(gt=0)] | None = None
    weight: Annotated[int, Field(ge=0)] = 0
    options: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0)] = 1
    seconds: Annotated[float, Field(gt=0)] | None = None        # neither: until the work is over
    operations: Annotated[int, Field(ge=1)] | None = None
    limit_seconds: Annotated[float, Field(gt=0)] = 3600.0
    selfballoon: bool = False                                   # the guest sizes itself, by what it has promised
    faults: Literal["software", "hardware"] = "software"        # how touches of missing pages are noticed
    disk: DiskOrder = DiskOrder()


def order_of(line: str | None) -> Order:
    """Return the order that a line of standard input holds; UsageProblem for anything else."""
    if line is None:
        raise UsageProblem("guest: no order came on standard input; write one JSON object on a line")
    try:
        return Order.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageProblem(f"guest: the order's {_dotted(first)}: {_said(first)}") from None
    except (ValueError, RecursionError):
        raise UsageProblem(f"guest: the order is not JSON: {line[:60]!r}") from None


def options_of(guest: str, workload: str, raw: Any) -> Options:
    """Return the checked options of a guest's workload; UsageProblem with the first thing that is wrong."""
    try:
        options, problems = load(workload).Options.model_validate(raw), []
    except ValidationError as error:
        problems = [_sentence(guest, workload, one) for one in error.errors()]
    except UsageProblem as error:
        problems = [f"guest {guest!r}: {error}"]
    if problems:
        raise Problems(problems)
    return options


class Problems(UsageProblem):
    """Several lines; as one, it is the first."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[0])
        self.lines = lines


def check_guest(guest: str, workload: str, raw: Any) -> list[str]:
    """Return one line for each thing that is wrong with a guest's workload and options; none when it can work."""
    try:
        load(workload).check(options_of(guest, workload, raw))
    except Problems as problems:
        return problems.lines
    except UsageProblem as problem:
        return [f"guest {guest!r}: {problem}"]
    return []


def _sentence(guest: str, workload: str, error: Mapping[str, Any]) -> str:
    """Say what is wrong with one option."""
    place, options = tuple(map(str, error["loc"])), load(workload).Options
    if error["type"] == "extra_forbidden":
        owner = _owner(options, place)
        return (f"guest {guest!r}: workload {workload!r} has no option {_dotted(error)!r}; allowed: "
                f"{', '.join('.'.join((*place[:-1], name)) for name in owner.model_fields)}")
    if error["type"] == "missing":
        return f"guest {guest!r}: workload {workload!r} needs the option {_dotted(error)!r}"
    where = f"option {_dotted(error)!r}" if place else f"options of workload {workload!r}"
    return f"guest {guest!r}: {where}: {_said(error)}"


def _owner(options: type[BaseModel], place: tuple[str, ...]) -> type[BaseModel]:
    """Return the model that holds the last name of `place`."""
    for name in place[:-1]:
        inner = options.model_fields[name].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            options = inner
    return options


def _dotted(error: Mapping[str, Any]) -> str:
    return ".".join(map(str, error["loc"]))


def _said(error: Mapping[str, Any]) -> str:
    text = repr(error.get("input"))
    words = {"input": text if len(text) <= 60 else text[:57] + "...", **error.get("ctx", {})}
    if "expected" in words:
        words["expected"] = str(words["expected"]).replace("'", "").replace(" or ", ", ")
    pattern = SAYS.get(error["type"])
    return pattern.format(**words) if pattern else str(error["msg"])
