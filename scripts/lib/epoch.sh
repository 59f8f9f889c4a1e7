# Sourced by what makes packages: files in them have the time of the last commit.
# shellcheck shell=bash
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
