# Sourced by what makes images of soloist: what is in them.
# shellcheck shell=bash disable=SC2034

parts_of() { # BINARY: sets `parts`, soloist under all names that it is called by
    parts=(
        "$1=/usr/bin/soloist"
        soloist@/usr/bin/icr
        soloist@/usr/bin/consul
        /usr/bin/soloist@/k8s-await-election
        /usr/bin/soloist@/leader-elector
    )
}
