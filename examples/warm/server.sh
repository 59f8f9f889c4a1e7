#!/bin/sh
# A server that takes long to load, and so is kept warm. It says that it is ready by a file, hears by SIGUSR1 that it is
# active, and reads the token from the file that its member writes.
#
#     soloist run --lock ./app.lock --name a --warm --health-exec 'kill -0 "$(cat ready-$SOLOIST_MEMBER)"' \
#         --notify signal:USR1,file:role-a.json -- ./server.sh
set -eu
ready=ready-$SOLOIST_MEMBER role=role-$SOLOIST_MEMBER.json

become_active() {
    active=yes
}

# Before it says that it is ready: a signal that nobody expects ends a program.
active=
trap become_active USR1

sleep "${LOADING_S:-2}" # What takes long.
echo $$ >"$ready.new"
mv "$ready.new" "$ready"

# A signal ends the wait, not the sleep.
while [ -z "$active" ]; do
    sleep 1000 &
    wait $! || true
done

# The signal can be there before the file is.
until token=$(sed -n 's/.*"role":"active","fencing_token":\([0-9]*\).*/\1/p' "$role") && [ -n "$token" ]; do
    sleep 0.05
done
echo "$SOLOIST_MEMBER is active with token $token"
exec sleep 100000
