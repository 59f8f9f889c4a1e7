# Three Consul servers behind one address, port 8500: each connection goes to the next one that answers. The servers
# themselves answer at 127.0.0.1, 127.0.0.2 and 127.0.0.3, port 8510. Three agents that are no servers answer at 127.0.0.4
# to 127.0.0.6; as such agents do, the first two leave the cluster on SIGTERM, and the third one is told not to. TESTBED_CONSUL_ACL=1 denies what no token allows.
# shellcheck shell=bash disable=SC2154
. "$here/lib/consul.sh"
[ -z "${included[consul]:-}" ] || die "consul and consul-three take the same address: choose one"
need_built consul spread

{
    consul_common
    echo "ports { http = 8510 }"
    echo "performance { raft_multiplier = 1 }"
} >"$DIR/consul.hcl"
consul_agent() { # NAME ADDRESS OPTIONS...
    start "$1" "$BIN/consul" agent -node "$1" -data-dir "$DIR/$1" -bind "$2" -client "$2" -retry-interval 1s \
        -retry-join 127.0.0.1 -retry-join 127.0.0.2 -retry-join 127.0.0.3 -config-file "$DIR/consul.hcl" "${@:3}"
}
for i in 1 2 3; do consul_agent consul-$i 127.0.0.$i -server -bootstrap-expect 3; done
for i in 1 2; do consul_agent consul-agent-$i 127.0.0.$((3 + i)); done
consul_agent consul-agent-3 127.0.0.6 -hcl 'leave_on_terminate = false'
start consul-address "$BIN/spread" 0.0.0.0:8500 127.0.0.1:8510 127.0.0.2:8510 127.0.0.3:8510
consul_env
for i in 1 2 3; do
    set_env "TESTBED_CONSUL_$i" http://127.0.0.$i:8510
    wait_for 60 consul-$i consul_writes http://127.0.0.$i:8510
done
for i in 1 2 3; do
    set_env "TESTBED_CONSUL_AGENT_$i" http://127.0.0.$((3 + i)):8510
    wait_for 60 consul-agent-$i consul_writes http://127.0.0.$((3 + i)):8510
done
