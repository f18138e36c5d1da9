#!/bin/sh
# Makes .venv ready for this clone; every make target begins here.  In turn: keep the .venv that is there if it works,
# else find a Python, probe what a bare system lacks, create .venv; then install requirements.txt if it has changed.
# PYTHON=/path/to/python3.12 chooses the interpreter.  pip's own settings (PIP_INDEX_URL, pip.conf) are left alone.
set -eu
trap 'exit 130' INT
cd "$(dirname "$0")/.."

supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
range='Python 3.10 to 3.13'
installed=.venv/requirements.installed # the requirements.txt that .venv fulfils
unfinished=.venv/unfinished            # there while .venv is being changed

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s\n' "$@" >&2
    exit 1
}
three_times() { # COMMAND...: downloads fail now and then
    "$@" || { say "Once more in 5 s: $1 failed."; sleep 5; "$@"; } || { say "A last time in 15 s."; sleep 15; "$@"; }
}
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || say 'unknown version'; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON: no such command; $range is needed."
        "$PYTHON" -c "$supported" 2>/dev/null || fail "PYTHON=$PYTHON is Python $(version_of "$PYTHON"); $range is needed."
        python=$PYTHON
        return
    fi
    for python in python3 python3.13 python3.12 python3.11 python3.10; do
        if command -v $python >/dev/null && $python -c "$supported" 2>/dev/null; then return; fi
    done
    command -v python3 >/dev/null || fail "There is no python3 here; $range is needed."
    fail "python3 is Python $(version_of python3); $range is needed. PYTHON=/path/to/python3.12 chooses another one."
}

unquoted() { tr -d "\"'"; }

# A .venv works if nothing interrupted its making, the clone has not moved since, and its Python still runs.
venv_works() {
    [ ! -e $unfinished ] && [ -x .venv/bin/python ] || return 1
    made_at=$(sed -n 's/^ *\(export \)\{0,1\}VIRTUAL_ENV=//p' .venv/bin/activate 2>/dev/null | unquoted | grep '^/' | head -n 1)
    case $made_at in "" | "$(say "$PWD/.venv" | unquoted)" | "$(say "$(pwd -P)/.venv" | unquoted)") ;; *) return 1 ;; esac
    .venv/bin/python -c "import pip; $supported" 2>/dev/null || return 1
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of .venv/bin/python)" ]
}

# Debian's names of what is missing, each found missing by trying it: the libraries that opencv-python links but does
# not bring along, and, while .venv is still to be made, the module that puts pip into it.
missing_packages() { # PYTHON [ensurepip]
    "$1" - "${2:-}" <<'END'
import ctypes
import importlib.util
import sys

missing = []
if sys.argv[1] and importlib.util.find_spec(sys.argv[1]) is None:
    missing.append("python%d.%d-venv" % sys.version_info[:2])
libraries = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0", "libxcb.so.1": "libxcb1"}
for library, package in libraries.items() if sys.platform == "linux" else ():
    try:
        ctypes.CDLL(library)
    except OSError:
        missing.append(package)
print(*missing)
END
}

apt_install() { # PACKAGE...
    export DEBIAN_FRONTEND=noninteractive
    apt-get update </dev/null && apt-get install -y --no-install-recommends "$@" </dev/null
}

provide_packages() { # PYTHON [ensurepip]
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing with apt-get: $missing"
        # shellcheck disable=SC2086  # one word a package
        three_times apt_install $missing || fail "apt-get could not install: $missing"
        missing=$(missing_packages "$@")
        [ -z "$missing" ] || fail "Still missing after apt-get installed it: $missing"
    else
        fail "This system lacks: $missing (Debian's names). As root, or with sudo in front of each command:" \
            "  apt-get update && apt-get install -y --no-install-recommends $missing" \
            "Then run make again."
    fi
}

main() {
    if venv_works; then
        provide_packages .venv/bin/python
        if cmp -s requirements.txt $installed; then return; fi
    else
        find_python
        provide_packages "$python" ensurepip
        if [ -e .venv ]; then say "Making .venv anew: it is incomplete, was moved, or its Python is another one."; fi
        rm -rf .venv/bin # first, so that a removal cut short leaves nothing that looks usable
        rm -rf .venv
        say "Making .venv with Python $(version_of "$python")"
        mkdir .venv
        : >$unfinished
        "$python" -m venv .venv
    fi
    say "Installing requirements.txt into .venv; PyTorch is gigabytes the first time"
    : >$unfinished
    mkdir -p .venv/tmp # not /tmp, which is often too small for PyTorch's wheels
    export TMPDIR="$PWD/.venv/tmp" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0
    three_times .venv/bin/python -m pip install -r requirements.txt || fail "pip could not install requirements.txt into .venv"
    cp requirements.txt $installed
    rm -rf .venv/tmp $unfinished
}

main
