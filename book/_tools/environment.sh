#!/usr/bin/env bash
# Make or refresh the environment that holds the pins of requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:-.venv}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" && { echo "$PYTHON"; return; }
        echo "PYTHON is '$PYTHON', which is no Python 3.11 or newer." >&2
        return 1
    fi
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3; do
        new_enough "$candidate" && { echo "$candidate"; return; }
    done
    echo "No Python 3.11 or newer found. Install one, or name it:" >&2
    echo "    make PYTHON=/path/to/python3.11 ..." >&2
    return 1
}

if [ -d "$venv" ] && ! new_enough "$venv/bin/python"; then
    rm -rf "$venv"
fi
if [ ! -d "$venv" ]; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version)"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "'$python -m venv' failed. On Debian and Ubuntu the module is a package" >&2
        echo "of its own: apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "Installing the pins of requirements.lock (a few minutes the first time)"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    -r requirements.lock
"$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    --no-deps --editable .
