# Sourced by what makes images: the parts that they share.
# shellcheck shell=bash disable=SC2034

. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/parts.sh"

# A shell and what commands in pods need.
shell=(/bin/busybox=/bin/busybox)
for applet in sh sleep wget nc cat; do shell+=("busybox@/bin/$applet"); done
