# Sourced by every script: where things are, and how to say something.
# shellcheck shell=bash disable=SC2034
CACHE=${TESTBED_CACHE:-$HOME/.cache/soloist-testbed}
BIN=$CACHE/bin
IMAGES=$CACHE/images
RUNS=${TESTBED_RUNS:-/tmp/soloist-testbed}

say() { echo "testbed: $*" >&2; }
die() { say "$*"; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "namespaces need root: run this with sudo"; }

# Programs that Debian and others package; testbed/packages installs them.
need_tools() {
    local tool
    for tool in unshare nsenter setpriv flock ip openssl curl; do
        command -v "$tool" >/dev/null || die "$tool is missing: make testbed"
    done
}

need_built() {
    local name
    for name in "$@"; do
        [ -x "$BIN/$name" ] || die "$name is not built: make testbed"
    done
}

# The 22nd field of stat: a pid means one process only together with it.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# alive PID START_TIME: that process, and not only its exit code, is there.
alive() {
    local stat
    # One look: between two a zombie may be reaped, and would count as alive.
    stat=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 1
    [ -n "$2" ] && [ "$(cut -d ' ' -f 20 <<<"$stat")" = "$2" ] && [ "${stat%% *}" != Z ]
}
