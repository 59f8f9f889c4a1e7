# One Consul server in memory, at port 8500 (8501 with TLS). TESTBED_CONSUL_ACL=1 denies what no token allows.
# shellcheck shell=bash disable=SC2154
. "$here/lib/pki.sh"
. "$here/lib/consul.sh"
[ -z "${included[consul-three]:-}" ] || die "consul and consul-three take the same address: choose one"
need_built consul

new_authority
certificate consul /CN=consul "DNS:localhost,DNS:server.dc1.consul,IP:127.0.0.1,IP:198.18.0.1"
{
    consul_common
    echo "ports { https = 8501 }"
    echo "tls { https { ca_file = \"$DIR/pki/ca.crt\" cert_file = \"$DIR/pki/consul.crt\" key_file = \"$DIR/pki/consul.key\" } }"
} >"$DIR/consul.hcl"
start consul "$BIN/consul" agent -dev -bind 127.0.0.1 -client 0.0.0.0 -config-file "$DIR/consul.hcl"
consul_env
set_env TESTBED_CONSUL_HTTPS https://127.0.0.1:8501
set_env TESTBED_CONSUL_CA "$DIR/pki/ca.crt"
wait_for 30 consul consul_writes
