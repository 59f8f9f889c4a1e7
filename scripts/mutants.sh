#!/bin/sh
# Breaks the protocol on purpose, one rule at a time, and fails if the simulator does not notice.
#
# Each testkit/mutants/NAME.patch says in its first lines how it is caught: the command, and the finding it must print.
# The same command must find nothing in the unbroken tree, so that every catch is the mutant's own. Works in a copy of
# the tree; with names as arguments, only these.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - --ignore-failed-read) | tar -xf - -C "$copy"
cd "$copy"
target=${CARGO_TARGET_DIR:-$root/target}/mutants

build() {
    CARGO_TARGET_DIR=$target cargo build --quiet -p testkit --bin sim
}

field() {
    sed -n "s/^$1: //p" "$2" | head -n 1
}

if [ $# -eq 0 ]; then
    set -- '*'
fi
patches=$(for name in "$@"; do ls "$root"/testkit/mutants/$name.patch; done)
build
cp "$target/debug/sim" "$copy/sim-unbroken"
survived=0
for patch in $patches; do
    name=$(basename "$patch" .patch)
    arguments=$(field 'caught by' "$patch" | sed 's/^sim //')
    finding=$(field finding "$patch")
    if ! "$copy/sim-unbroken" $arguments >"$copy/unbroken.txt" 2>&1; then
        echo "NOT CLEAN  $name: the unbroken tree fails 'sim $arguments'"
        survived=1
        continue
    fi
    git apply "$patch"
    build
    "$target/debug/sim" $arguments >"$copy/broken.txt" 2>&1 || true
    count=$(sed -n "s/^ *\([0-9][0-9]*\)  $finding.*/\1/p" "$copy/broken.txt" | head -n 1)
    if [ -n "$count" ]; then
        echo "caught     $name: $count times '$finding'"
    else
        echo "SURVIVED   $name: 'sim $arguments' does not find '$finding'"
        survived=1
    fi
    git apply -R "$patch"
done
exit $survived
