#!/bin/sh
# Usage: tools/venv.sh FOLDER [PYTHON]
# Makes a virtual environment with pip in FOLDER, by whichever way this machine has; needs no administrator.
# An environment that is there already and works is kept.
set -u
folder=$1
wanted=${2:-}
mark="$folder/.made-by-make"

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
works() { new_enough "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; }
# Leftovers are removed only where the mark says that they are ours.
afresh() { rm -rf "$folder" && mkdir -p "$folder" && touch "$mark"; }

if [ -e "$folder" ] && [ ! -e "$mark" ]; then
    works && exit 0
    echo "$folder is there and is no environment with Python 3.11 or newer and pip: remove it, or name another place with VENV=FOLDER." >&2
    exit 1
fi

python=
for candidate in ${wanted:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if new_enough "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    found=$("${wanted:-python3}" -V 2>/dev/null || echo missing)
    echo "glunet needs Python 3.11 or newer, and ${wanted:-python3} is $found here: install one, or name it with PYTHON=/path/to/python3." >&2
    exit 1
fi

# The usual way. What it says on failure is the advice to use sudo; there are other ways, so that stays unsaid.
afresh && "$python" -m venv "$folder" >/dev/null 2>&1 && works && exit 0

# Debian and Ubuntu keep ensurepip in a package of its own. The system's pip (22.3 or newer) can put one inside.
afresh && "$python" -m venv --without-pip "$folder" >/dev/null 2>&1 &&
    "$python" -m pip --python "$folder/bin/python" install --quiet pip >/dev/null 2>&1 && works && exit 0

afresh && "$python" -m virtualenv --quiet "$folder" >/dev/null 2>&1 && works && exit 0
afresh && virtualenv --quiet --python "$python" "$folder" >/dev/null 2>&1 && works && exit 0
afresh && uv venv --quiet --seed --allow-existing --python "$python" "$folder" >/dev/null 2>&1 && works && exit 0

rm -rf "$folder"
echo "$python can make no environment with pip in it (venv, pip, virtualenv and uv all failed): install python3-venv (Debian, Ubuntu: sudo apt install python3-venv), or name another Python with PYTHON=/path/to/python3." >&2
exit 1
