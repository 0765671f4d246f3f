#!/usr/bin/env bash
# Test crlib without the pins of requirements.lock: with the lowest versions that
# pyproject.toml admits, with those that Colab has, or with the newest.
set -euo pipefail
cd "$(dirname "$0")/../.."
with=${1:-}
case $with in
lowest | colab | newest) ;;
*)
    echo "Say which versions: make versions WITH=lowest, colab or newest" >&2
    exit 1
    ;;
esac
python=${PYTHON:-python3}
venv=_build/versions/$with
rm -rf "$venv"
"$python" -m venv "$venv"
limits=$venv/limits.txt
case $with in
lowest) "$venv/bin/python" -m book._tools.lowest >"$limits" ;;
colab) cp tests/colab.txt "$limits" ;;
newest) : >"$limits" ;;
esac
"$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    -c "$limits" -e '.[test]'
"$venv/bin/python" -m pip list --disable-pip-version-check
"$venv/bin/python" -m pytest -q -n "${JOBS:-2}" tests/unit
# A notebook of each part, as a runner has them.
"$venv/bin/python" -m pytest -q --nbval-lax --nbval-current-env \
    --nbval-cell-timeout=600 \
    chapters/{02,09,13,17,22}_*.ipynb chapters/lab03_*.ipynb
