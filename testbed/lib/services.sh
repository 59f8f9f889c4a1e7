# Sourced inside a run: its servers, each with a command, a log and a pid of its own. Needs DIR.
# shellcheck shell=bash

# define NAME COMMAND...: how the server is started, now or later.
define() {
    local name=$1
    shift
    mkdir -p "$DIR/services" "$DIR/logs"
    printf '%q ' "$@" >"$DIR/services/$name.command"
}

launch() { # NAME
    [ -f "$DIR/services/$1.command" ] || die "no server is called '$1': $(service_names)"
    ! is_running "$1" || die "$1 runs already"
    bash -c "exec $(cat "$DIR/services/$1.command")" >>"$DIR/logs/$1.log" 2>&1 </dev/null &
    echo "$! $(start_time $!)" >"$DIR/services/$1.pid"
}

start() { define "$@" && launch "$1"; }

service_names() { (cd "$DIR/services" && ls) | sed -n 's/\.command$//p' | tr '\n' ' '; }

service_pid() { cut -d ' ' -f 1 "$DIR/services/$1.pid" 2>/dev/null; }

is_running() {
    local pid began
    read -r pid began 2>/dev/null <"$DIR/services/$1.pid" || return 1
    alive "$pid" "$began"
}

# wait_for SECONDS SERVER COMMAND...: until the command succeeds; if it does not, the server's last lines say why.
wait_for() {
    local until=$((SECONDS + $1)) name=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ] || ! is_running "$name"; then
            tail -n 5 "$DIR/logs/$name.log" >&2
            die "$name did not come up"
        fi
        sleep 0.05
    done
}

# set_env NAME VALUE: a variable for the caller's command.
set_env() { printf 'export %s=%q\n' "$1" "$2" >>"$DIR/env"; }
