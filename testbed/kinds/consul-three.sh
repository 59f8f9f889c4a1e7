# Three Consul servers behind one address, port 8500: each connection goes to the next one that answers. The servers
# themselves answer at 127.0.0.1, 127.0.0.2 and 127.0.0.3, port 8510. TESTBED_CONSUL_ACL=1 denies what no token allows.
# shellcheck shell=bash disable=SC2154
. "$here/lib/consul.sh"
[ -z "${included[consul]:-}" ] || die "consul and consul-three take the same address: choose one"
need_built consul spread

{
    consul_common
    echo "ports { http = 8510 }"
    echo "performance { raft_multiplier = 1 }"
} >"$DIR/consul.hcl"
for i in 1 2 3; do
    start consul-$i "$BIN/consul" agent -server -node "consul-$i" -bootstrap-expect 3 -data-dir "$DIR/consul-$i" \
        -bind 127.0.0.$i -client 127.0.0.$i -retry-interval 1s \
        -retry-join 127.0.0.1 -retry-join 127.0.0.2 -retry-join 127.0.0.3 -config-file "$DIR/consul.hcl"
done
start consul-address "$BIN/spread" 0.0.0.0:8500 127.0.0.1:8510 127.0.0.2:8510 127.0.0.3:8510
consul_env
for i in 1 2 3; do
    set_env "TESTBED_CONSUL_$i" http://127.0.0.$i:8510
    wait_for 60 consul-$i consul_writes http://127.0.0.$i:8510
done
