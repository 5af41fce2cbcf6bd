# Sourced by run_cluster.sh and run_tests.sh: makes .venv on first use and installs the project into it.
#
# Everything it says goes to standard error.  A stamp in .venv says what was installed, from where and since when; the
# work is done again when pyproject.toml is newer, or when the checkout has moved.  A lock on the checkout's folder lets
# several first uses at once wait for one.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

fail() {
    echo "memcommons: $1" >&2
    exit 2
}

# The python to make .venv with: 3.11 or newer, with its venv module.
check_python() {
    local python=$1
    command -v "$python" >/dev/null || fail "$python is not here; install python3 (3.11 or newer) and its venv module"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "$python is $("$python" -V 2>&1), which is too old; 3.11 or newer is needed (set PYTHON to name another)"
    "$python" -c 'import venv, ensurepip' 2>/dev/null \
        || fail "$python has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
}

# is_installed KIND: is the stamp from this place, and younger than pyproject.toml?
is_installed() {
    local stamp=$venv/.installed-$1
    [ "$stamp" -nt "$root/pyproject.toml" ] && [ "$(cat "$stamp")" = "$root" ] && "$venv/bin/python" -c '' 2>/dev/null
}

# install KIND WHAT: KIND names the stamp, WHAT is what pip installs.
install() {
    local kind=$1 what=$2 python=${PYTHON:-python3}
    is_installed "$kind" && return
    exec 9<"$root"
    flock 9
    if ! is_installed "$kind"; then
        check_python "$python"
        echo "memcommons: installing into $venv; this takes a minute, once" >&2
        if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
            "$python" -m venv --clear "$venv" >&2 || fail "$python could not make $venv; see above"
        fi
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$what" >&2 \
            || fail "pip could not install the project into $venv; see above (it needs the network, once)"
        echo "$root" >"$venv/.installed-$kind"
    fi
    exec 9<&-
}
