# Sourced by what makes images: the parts that they share.
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

# A shell and what commands in pods need.
shell=(/bin/busybox=/bin/busybox)
for applet in sh sleep wget nc cat; do shell+=("busybox@/bin/$applet"); done
