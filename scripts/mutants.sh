#!/bin/sh
# Breaks soloist on purpose, one rule at a time, and fails if nothing notices.
#
# Each testkit/mutants/NAME.patch says in its first lines by what it is caught, the simulator or one test, and the
# finding that this must print:
#
#     caught by: sim ARGUMENTS
#     caught by: test PACKAGE TARGET NAME     (TARGET: lib, or a file of tests)
#
# The same must find nothing in the unbroken tree, so that every catch is the mutant's own; a mutant that does not build
# is not caught. Works in a copy of the tree; with names as arguments, only these.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - --ignore-failed-read) | tar -xf - -C "$copy"
cd "$copy"
# Were the temporary folder inside a repository, git would leave out what it does not track, and every mutant survive.
GIT_CEILING_DIRECTORIES=$(dirname "$copy")
export GIT_CEILING_DIRECTORIES
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/mutants
# What is broken on purpose has warnings that tell nobody anything.
RUSTFLAGS=-Awarnings
export CARGO_TARGET_DIR RUSTFLAGS
output=$copy/output.txt

field() {
    sed -n "s/^$1: //p" "$2" | head -n 1
}

target() {
    if [ "$1" = lib ]; then echo --lib; else echo "--test $1"; fi
}

# Builds what runs next; takes the words of `caught by`, as all below.
build() {
    if [ "$1" = sim ]; then
        cargo build --quiet -p testkit --bin sim
        return
    fi
    # Tests of testkit start the binaries.
    if [ "$2" = testkit ]; then
        cargo build --quiet -p soloist -p testkit --bins || return
    fi
    cargo test --quiet -p "$2" $(target "$3") --no-run
}

run() {
    if [ "$1" = sim ]; then
        shift
        "$CARGO_TARGET_DIR/debug/sim" "$@" >"$output" 2>&1
    else
        cargo test --quiet -p "$2" $(target "$3") -- --exact "$4" >"$output" 2>&1
    fi
}

# Whether that was clean; a test that is not there is not.
is_clean() {
    run "$@" && { [ "$1" = sim ] || grep -q '1 passed' "$output"; }
}

# Whether that printed the finding, as the simulator or a test that failed does.
is_caught() {
    if [ "$1" = sim ]; then
        grep -q "^ *[1-9][0-9]*  $finding" "$output"
    else
        grep -q '1 failed' "$output" && grep -qF -- "$finding" "$output"
    fi
}

if [ $# -eq 0 ]; then
    set -- '*'
fi
patches=$(for name in "$@"; do ls "$root"/testkit/mutants/$name.patch; done)
failed=0
clean=
for patch in $patches; do
    how=$(field 'caught by' "$patch")
    case "$(id -u) $how" in
        0\ *) ;;
        *' root_'* | *'_root '*) echo "SKIPPED    $(basename "$patch" .patch): needs root" && continue ;;
    esac
    build $how
    if is_clean $how; then
        clean="$clean $patch"
    else
        echo "NOT CLEAN  $(basename "$patch" .patch): the unbroken tree fails '$how'"
        failed=1
    fi
done
for patch in $clean; do
    name=$(basename "$patch" .patch)
    how=$(field 'caught by' "$patch")
    finding=$(field finding "$patch")
    git apply "$patch"
    if ! build $how; then
        echo "NO BUILD   $name"
        failed=1
    elif run $how || ! is_caught $how; then
        echo "SURVIVED   $name: '$how' does not find '$finding'"
        failed=1
    else
        echo "caught     $name: '$finding'"
    fi
    git apply -R "$patch"
done
exit $failed
